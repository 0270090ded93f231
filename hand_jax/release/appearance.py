"""Makes the mask head and the texture branch that the package ships, stage by stage.

The stages are: renders -> mask head -> readings -> texture branch. A finished stage is not made
again. Interrupted renders and readings continue where they stopped.
"""

import dataclasses
import io
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hand_jax.config import LossConfig
from hand_jax.config_text import config_to_json
from hand_jax.files.json_files import read_json
from hand_jax.files.writing import write_json, write_whole
from hand_jax.release.mask_training import MaskSettings, measure_mask_head, train_mask_head
from hand_jax.release.parts import joined, load_arrays, save_arrays
from hand_jax.release.rendered import RenderedHands, RenderPlan, rendered_hands
from hand_jax.release.texture_training import (
  TEXTURE,
  TextureReadings,
  TextureSettings,
  read_texture,
  train_texture,
)
from hand_jax.runs.checkpoints import CONFIG_NAME, SavedNetwork, load_network
from hand_jax.runs.hand_models import HAND_MODEL_NAME, load_run_model
from hand_jax.runs.lineage import LINEAGE_NAME
from hand_jax.runs.packed_run import RELEASE, run_folder, write_packed_variables

MASK_NAME, MASK_CARD_NAME = 'hand_mask.npz', 'hand_mask_card.json'
TEXTURE_NAME, TEXTURE_CARD_NAME = 'hand_texture.npz', 'hand_texture_card.json'
TEXTURED_RUN = 'textured_run'
_READINGS_NAME = 'texture_readings.npz'


class AppearancePlan(NamedTuple):
  """The data and settings that the parts are made from. No photo of a person is among the data."""

  learned: tuple[RenderPlan, ...]
  measured: dict[str, RenderPlan]
  """Hands on which nothing is trained, by the name of their split."""
  textured: tuple[RenderPlan, ...] = ()
  """The hands on which the texture branch is trained."""
  mask: MaskSettings = MaskSettings()
  texture: TextureSettings = TextureSettings()


def appearance_plan(scale: float = 1.0, test_hands: int = 192) -> AppearancePlan:
  """Returns the plan by which the shipped parts are made.

  Args:
    scale: multiplies the number of hands to train on. The shipped parts were made with 1.
    test_hands: the number of hands of each test split that are measured.
  """

  def plan(hands: str, count: int) -> RenderPlan:
    return RenderPlan(hands, 'train', 1, max(1, round(count * scale)))

  return AppearancePlan(
    learned=(plan('broad', 2304), plan('classic', 2496)),
    textured=(plan('broad', 1216), plan('classic', 1120)),
    measured={
      split: RenderPlan('classic', split, 0, test_hands)
      for split in ('test', 'test_broad', 'test_mismatch')
    },
  )


def make_mask_head(
  plan: AppearancePlan,
  workdir: str | os.PathLike,
  commit: str = '',
  report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Makes `hand_mask.npz` and `hand_mask_card.json` in a folder, and returns the card.

  Args:
    plan: the data and settings of the head.
    workdir: folder where the stages keep their results.
    commit: commit of the code, for the card.
    report: called with a line about each step.

  Raises:
    ValueError: the folder holds a head that was made by another plan.
  """
  folder = pathlib.Path(workdir)
  path, card_path = folder / MASK_NAME, folder / MASK_CARD_NAME
  made_from = {
    'learned': [part._asdict() for part in plan.learned],
    'settings': {**plan.mask._asdict(), 'left_out': list(plan.mask.left_out)},
  }
  card: dict[str, Any] = read_json(card_path) if card_path.exists() else {}
  if card and {name: card.get(name) for name in made_from} != made_from:
    raise ValueError(
      f'{folder} holds a mask head of another plan, see {MASK_CARD_NAME} there. '
      'Give the flags of that pass, or another --workdir.'
    )
  if not (path.exists() and card):
    hands = _hands(plan.learned, folder, report)
    started = time.monotonic()
    parameters = train_mask_head(
      hands, plan.mask, lambda step, loss, _: report(f'mask head, step {step}: loss {loss:.4f}')
    )
    hours = round((time.monotonic() - started) / 3600, 3)
    write_parameters(path, parameters)
    card = {'commit': commit, **made_from, 'hours': hours}
    write_json(card_path, card)
  if 'renders' not in card:
    parameters = read_parameters(path)
    scores = {
      split: measure_mask_head(_hands((part,), folder, report), parameters, plan.mask)
      for split, part in plan.measured.items()
    }
    card |= {'measured': {split: part._asdict() for split, part in plan.measured.items()}}
    card |= {'renders': scores}
    write_json(card_path, card)
  return card


def make_texture(
  plan: AppearancePlan,
  workdir: str | os.PathLike,
  commit: str = '',
  report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Makes `hand_texture.npz`, its card and a textured run in a folder, and returns the card.

  The run is the one in the package with the texture branch added, which `evaluate_texture` reads.

  Args:
    plan: the data and settings of the branch.
    workdir: folder where the stages keep their results. It holds the finished mask head.
    commit: commit of the code, for the card.
    report: called with a line about each step.
  """
  folder = pathlib.Path(workdir)
  path, card_path = folder / TEXTURE_NAME, folder / TEXTURE_CARD_NAME
  saved, model = load_network(RELEASE), load_run_model(RELEASE)
  if not (path.exists() and card_path.exists()):
    readings = _readings(plan, folder, report)
    started = time.monotonic()
    branch = train_texture(
      readings,
      model,
      plan.texture,
      lambda step, loss, _: report(f'texture branch, step {step}: loss {loss:.4f}'),
    )
    norm = saved.variables['params']['feature_norm']
    write_parameters(path, {'feature_norm': norm, 'texture_regressor': branch})
    card = {
      'commit': commit,
      'learned': [part._asdict() for part in plan.textured],
      'settings': plan.texture._asdict(),
      'texture': dataclasses.asdict(TEXTURE),
      'hours': round((time.monotonic() - started) / 3600, 3),
    }
    write_json(card_path, card)
  hands = sum(part.count for part in plan.textured)
  _write_textured_run(folder / TEXTURED_RUN, saved, read_parameters(path), hands)
  return read_json(card_path)


def _readings(
  plan: AppearancePlan, folder: pathlib.Path, report: Callable[[str], None]
) -> TextureReadings:
  path, saved = folder / _READINGS_NAME, load_network(RELEASE)
  if not path.exists():
    readings = read_texture(
      _hands(plan.textured, folder, report),
      saved,
      load_run_model(RELEASE),
      plan.texture.seed,
      lambda done, count: report(f'{done} of {count} hands read'),
    )
    save_arrays(path, readings)
  return load_arrays(path, TextureReadings)


def _write_textured_run(
  folder: pathlib.Path, saved: SavedNetwork, texture: dict[str, Any], hands: int
) -> None:
  """Writes the run in the package with a texture branch, which was trained on `hands` hands."""
  old = saved.config
  config = dataclasses.replace(
    old,
    name='release_texture',
    model=dataclasses.replace(old.model, texture=TEXTURE),
    loss=LossConfig(
      kind='photometric', convention=old.loss.convention, length_unit_m=old.loss.length_unit_m
    ),
    # A texture needs pictures.
    data=dataclasses.replace(old.data, features='none', data_dir='', train_examples=hands),
  )
  params = {**saved.variables['params'], 'texture_regressor': texture['texture_regressor']}
  folder.mkdir(parents=True, exist_ok=True)
  write_packed_variables(folder, saved.step, {**saved.variables, 'params': params}, np.float16)
  write_whole(folder / CONFIG_NAME, config_to_json(config))
  for name in (LINEAGE_NAME, HAND_MODEL_NAME):
    write_whole(folder / name, (run_folder(RELEASE) / name).read_text())


def write_parameters(path: str | os.PathLike, parameters: dict[str, Any]) -> None:
  """Writes a network's parameters in half precision, which is precise enough for these networks."""
  leaves: dict[str, Any] = flatten_dict(parameters, sep='/')
  halves: dict[str, Any] = {name: np.asarray(leaf, np.float16) for name, leaf in leaves.items()}
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **halves)
  write_whole(pathlib.Path(path), buffer.getvalue())


def read_parameters(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the parameters that `write_parameters` wrote, in single precision."""
  with np.load(path) as file:
    leaves = {name: file[name].astype(np.float32) for name in file.files}
  return unflatten_dict(leaves, sep='/')


def _hands(
  plans: tuple[RenderPlan, ...], folder: pathlib.Path, report: Callable[[str], None]
) -> RenderedHands:
  def told(plan: RenderPlan) -> Callable[[int, int], None]:
    return lambda done, count: report(f'{plan.name}: {done} of {count} hands rendered')

  return joined([rendered_hands(plan, folder / 'rendered', told(plan)) for plan in plans])
