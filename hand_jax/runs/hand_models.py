"""Chooses the hand model for a run's data, records it in the run's folder, and finds it again."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.writing import write_whole
from hand_jax.mano.assets import (
  FREE_HAND_VERSION,
  hand_model_name,
  load_mano_model,
  resolve_mano_dir,
  with_fingertips,
)
from hand_jax.runs.checkpoints import read_config
from hand_jax.runs.packed_run import run_folder
from hand_jax.types import ManoModel

HAND_MODEL_NAME = 'hand_model.json'
# These hands came with earlier versions of the package, by digest. Their runs are refused by name.
FORMER_FREE_HANDS = {
  '30ca8533dd8ce0e66ec34a1e9201f50b0b0ec5502fe7edf0ee82c0ea86afa52c': 'free hand 1',
  '3d59c63b856bc2399bc8668013aae271df272aa4c2ec573c329ee69d6e4d05fe': 'free hand 2',
}
# These are rendered from the free hand, whose vertices are in another order than MANO's.
FREE_HAND_DATASETS = ('synthetic_hands',)
# These are labelled with joints alone, which any hand model has.
ANY_HAND_DATASETS = ('hand_photos',)
# These are labelled with MANO's vertices. The values name the vertices that are their fingertips
# (see FINGERTIP_VERTICES).
MANO_FINGERTIPS = {'freihand': 'freihand', 'ho3d_v2': 'ho3d', 'ho3d_v3': 'ho3d'}


def load_training_model(
  dataset: str, mano_dir: str | None, workdirs: Sequence[str] = ()
) -> ManoModel:
  """Loads the hand model to train with, which is the one that `dataset` is labelled with.

  Data rendered from the free hand are trained with it, even where $MANO_DIR is set. Data labelled
  with MANO need MANO, and give it their own fingertips. Photos with 2D joints alone can use any
  hand model. Without the flag they take that of the first of `workdirs` that holds a run.

  Args:
    dataset: name of the data set.
    mano_dir: value of the flag --mano_dir.
    workdirs: folder of the run to be continued, or of the runs that it starts from.

  Raises:
    ValueError: the flag asks for MANO on data of the free hand, or data labelled with MANO have
      none.
    FileNotFoundError: there is no such folder.
  """
  if dataset in ANY_HAND_DATASETS and not mano_dir:
    for workdir in workdirs:
      if (run_folder(workdir) / HAND_MODEL_NAME).exists():
        return load_run_model(workdir)
  if dataset in MANO_FINGERTIPS:
    directory = resolve_mano_dir(mano_dir)
    if directory is None:
      raise ValueError(
        f"{dataset} is labelled with MANO's vertices, which are not the free hand's: name the "
        'folder of your MANO_RIGHT.pkl by --mano_dir or $MANO_DIR.'
      )
    return with_fingertips(load_mano_model(directory), MANO_FINGERTIPS[dataset])
  if dataset not in FREE_HAND_DATASETS:
    return load_mano_model(resolve_mano_dir(mano_dir))
  if mano_dir:
    raise ValueError(
      f"--mano_dir={mano_dir}: {dataset} is labelled with the free hand's vertices, which are not "
      "MANO's. Leave --mano_dir out, or train on data labelled with MANO."
    )
  return load_mano_model()


def hand_model_digest(model: ManoModel) -> str:
  """Computes the SHA-256 of a hand model's arrays."""
  digest = hashlib.sha256()
  for name, array in model._asdict().items():
    array = np.asarray(array)
    digest.update(f'{name} {array.dtype} {array.shape}'.encode() + array.tobytes())
  return digest.hexdigest()


def claim_hand_model(workdir: str | os.PathLike, model: ManoModel) -> None:
  """Records the hand model of a new run, or checks that a continued run uses its own.

  Raises:
    ValueError: the run in the folder uses another hand model.
  """
  path = open_path(workdir) / HAND_MODEL_NAME
  digest = hand_model_digest(model)
  if not path.exists():
    if jax.process_index() > 0:
      return  # only the first host writes
    record = {'name': hand_model_name(model), 'sha256': digest}
    write_whole(path, json.dumps(record) + '\n')
  elif (recorded := _recorded_digest(path)) != digest:
    _refuse_former_hand(workdir, recorded)
    raise ValueError(
      f'{workdir} holds a run of another hand model. Continue it with the same --mano_dir (or '
      '$MANO_DIR), or choose another --workdir.'
    )


def load_run_model(workdir: str | os.PathLike, mano_dir: str | None = None) -> ManoModel:
  """Loads the hand model that a run was trained with.

  It is looked for in `mano_dir` if that is given, and otherwise in $MANO_DIR and the package.

  Raises:
    FileNotFoundError: there is no run in the folder, or no such hand model folder.
    ValueError: none of these is the run's hand model.
  """
  path = run_folder(workdir) / HAND_MODEL_NAME
  if not path.exists():
    read_config(str(workdir))  # raises where there is no run at all
    raise FileNotFoundError(
      f'{path} is missing, which records the hand model that the run in {workdir} was trained '
      'with. Copy it from where the run was trained, or continue the run, which writes it again.'
    )
  recorded = _recorded_digest(path)
  _refuse_former_hand(workdir, recorded)
  candidates = [resolve_mano_dir(mano_dir)]
  if not mano_dir and candidates[0] is not None:
    candidates.append(None)
  for candidate in candidates:
    for model in _with_every_fingertips(load_mano_model(candidate), candidate is not None):
      if hand_model_digest(model) == recorded:
        return model
  tried = ' or '.join(candidate or 'the free hand' for candidate in candidates)
  raise ValueError(
    f'{workdir} was trained with another hand model than {tried}: give the folder of its MANO '
    'files by --mano_dir, or leave the flag out for the free hand.'
  )


def _with_every_fingertips(model: ManoModel, is_mano: bool) -> Iterator[ManoModel]:
  """Yields the model, and MANO also with the fingertips of each data set labelled with it."""
  yield model
  for name in sorted(set(MANO_FINGERTIPS.values())) if is_mano else ():
    yield with_fingertips(model, name)


def _refuse_former_hand(workdir: str | os.PathLike, digest: str) -> None:
  """Raises a ValueError about a run of a free hand that this version no longer has."""
  if digest in FORMER_FREE_HANDS:
    raise ValueError(
      f'{workdir} was trained with {FORMER_FREE_HANDS[digest]}, whose joints or shapes '
      f'differ from those of free hand {FREE_HAND_VERSION}, which this version of hand_jax has. '
      'Train anew, or use the version of hand_jax that trained it.'
    )


def _recorded_digest(path: AnyPath) -> str:
  try:
    return json.loads(path.read_text())['sha256']
  except (ValueError, KeyError, TypeError):
    raise ValueError(f'{path} cannot be read as the record of a hand model.') from None
