"""Starts a new run's network with the parameters of runs trained before, matched by name."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.config_text import config_differences
from hand_jax.files.buckets import open_path
from hand_jax.files.writing import write_whole
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.runs.checkpoints import load_network
from hand_jax.runs.hand_models import HAND_MODEL_NAME, hand_model_digest
from hand_jax.runs.lineage import Origin, read_lineage
from hand_jax.runs.packed_run import run_folder
from hand_jax.runs.train_state import TrainState, state_variables
from hand_jax.training.objective import Objective
from hand_jax.types import ManoModel

INIT_FROM_NAME = 'init_from.json'
# These settings change the meaning of a part's numbers, but not their shapes.
_MEANINGS = {
  'model.vertex_offset_from': 'vertex_regressor',
  'loss.length_unit_m': 'vertex_regressor',
  'data.crop_factor': 'camera_model',
  'data.upright': 'camera_model',
  'model.camera_log_variance': 'camera_model',
}


class TakenFrom(NamedTuple):
  """The arrays that one checkpoint gave. The three lists together name all arrays that it holds.

  Names are paths from the collection down, such as `params/camera_model/dense/kernel`.
  """

  origin: Origin
  config: str
  taken: tuple[str, ...]
  given_before: tuple[str, ...]  # an earlier source has already given them
  no_place: tuple[str, ...]  # the new network has no such names
  other_hand_model: bool
  other_meanings: tuple[str, ...] = ()  # settings (see `_MEANINGS`) in which it differs, and how


class WarmStart(NamedTuple):
  """Where each array of the new network comes from, which is a source or a fresh draw."""

  sources: tuple[TakenFrom, ...]
  fresh: tuple[str, ...]


def warm_start(
  state: TrainState,
  workdirs: Sequence[str],
  model: ManoModel,
  config: ExperimentConfig | None = None,
) -> tuple[TrainState, WarmStart]:
  """Puts the parameters and batch statistics of other runs into a fresh state.

  They come from the newest checkpoint of each folder, and are matched by name. The first folder
  takes precedence, and the others fill in missing parameters. Optimizer state, step and key do not
  change.

  Args:
    state: the fresh state of the new run.
    workdirs: folders of the runs to take from.
    model: the new run's hand model. It is only compared with those of the sources.
    config: the new run's config. It is only compared with those of the sources.

  Returns:
    The state, and where each of its arrays comes from.

  Raises:
    FileNotFoundError: a folder has no run or no checkpoint.
    ValueError: arrays of the same name have another shape in a source, no array of a source fits
      this network, or a source is unreadable.
  """
  ours = _by_name(state_variables(state))
  given: dict[str, Any] = {}
  sources = []
  for workdir in workdirs:
    saved = load_network(workdir)
    theirs = _by_name(saved.variables)
    common = [name for name in theirs if name in ours]
    if not common:
      raise ValueError(
        f'training.init_from: {workdir} ({saved.config.name}) holds nothing that has a place in '
        f'this network. It has {_parts(theirs)}; this one {_parts(ours)}.'
      )
    misfits = [
      f'{name} is {_describe(theirs[name])} there, {_describe(ours[name])} here'
      for name in common
      if _describe(theirs[name]) != _describe(ours[name])
    ]
    if misfits:
      raise ValueError(_misfits(misfits, workdir, saved.config, config))
    taken = [name for name in common if name not in given]
    sources.append(
      TakenFrom(
        Origin(workdir, saved.step, read_lineage(workdir)),
        saved.config.name,
        tuple(taken),
        tuple(name for name in common if name in given),
        tuple(name for name in theirs if name not in ours),
        _is_other_hand_model(workdir, model),
        _other_meanings(config, saved.config, taken) if config else (),
      )
    )
    given |= {name: theirs[name] for name in taken}
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: given.get(_name(path), leaf), state_variables(state)
  )
  fresh = tuple(name for name in ours if name not in given)
  return state.replace(**variables), WarmStart(tuple(sources), fresh)


def check_start(objective: Objective, start: WarmStart) -> None:
  """Raises ValueError if parts are fresh that the objective needs trained.

  These are the frozen parts, and the parts that cannot be trained from random values.
  """
  needed = tuple(f'params/{part}/' for part in objective.needs_trained)
  if fresh := [name for name in start.fresh if needed and name.startswith(needed)]:
    raise ValueError(f'{_summarize(fresh, fresh)} would start fresh: {objective.why_trained}')
  if objective.learned_parts is None:
    return
  learned = tuple(f'params/{part}/' for part in objective.learned_parts)
  if untrained := [name for name in start.fresh if not name.startswith(learned)]:
    raise ValueError(
      f'loss.kind={objective.kind!r} trains {", ".join(objective.learned_parts)} alone, so the '
      f'rest must come from a trained run: {_summarize(untrained, untrained)} would stay random. '
      f'Name the run by --init_from=WORKDIR; {objective.continues} is the network it continues.'
    )


def check_frozen_backbone(config: ExperimentConfig, start: WarmStart) -> None:
  """Raises ValueError if the config freezes a backbone that was never trained."""
  backbone = config.model.backbone
  if config.optimizer.backbone_learning_rate_scale or backbone.weights:
    return
  if backbone.pretrained == 'none' and any(
    name.startswith('params/backbone/') for name in start.fresh
  ):
    raise ValueError(
      'optimizer.backbone_learning_rate_scale=0 freezes the backbone, which would stay random: '
      f'name the run it comes from by --init_from=WORKDIR, or the weights of a {backbone.name} in '
      'model.backbone.weights.'
    )


def check_cached_backbone(config: ExperimentConfig, state: TrainState) -> None:
  """Checks that the backbone is the one that computed the cached features which the run reads.

  Raises:
    ValueError: the backbone is another one.
  """
  if config.data.features != 'cached':
    return
  bundled = load_bundled_parameters('hand_landmark')['params']
  same = jax.tree.map(np.array_equal, bundled, state.params['backbone'])
  if not all(jax.tree.leaves(same)):
    raise ValueError(
      "training.init_from: data.features='cached' holds the features of the landmark network as it "
      'comes with the package, but the run named there has trained it further. Train with '
      "data.features='none', or start from a run whose backbone was frozen."
    )


def claim_warm_start(workdir: str, start: WarmStart) -> None:
  """Writes the full lists into a new run's folder, as `init_from.json`."""
  if jax.process_index() != 0:
    return
  record = {
    'sources': [
      {
        'workdir': source.origin.workdir,
        'step': source.origin.step,
        'config': source.config,
        'other_hand_model': source.other_hand_model,
        'other_meanings': source.other_meanings,
        'taken': source.taken,
        'not_taken_given_before': source.given_before,
        'not_taken_no_place': source.no_place,
      }
      for source in start.sources
    ],
    'fresh': start.fresh,
  }
  write_whole(open_path(workdir) / INIT_FROM_NAME, json.dumps(record, indent=2) + '\n')


def describe_warm_start(start: WarmStart) -> list[str]:
  """Describes a warm start in a few lines. Whole parts appear by name and number of arrays."""
  ours = {*start.fresh, *(name for source in start.sources for name in source.taken)}
  lines = []
  for source in start.sources:
    theirs = {*source.taken, *source.given_before, *source.no_place}
    begin = f'{source.origin.workdir} ({source.config}, step {source.origin.step})'
    lines.append(f'Taken from {begin}: {_summarize(source.taken, ours)}.')
    if source.given_before:
      lines.append(f'  not taken, given before: {_summarize(source.given_before, theirs)}')
    if source.no_place:
      lines.append(f'  not taken, no place here: {_summarize(source.no_place, theirs)}')
    if source.other_hand_model:
      lines.append('  note: it was trained with another hand model than this run')
    lines += [
      f'  note: its parameters have another meaning here, {text}' for text in source.other_meanings
    ]
  lines.append(f'Fresh: {_summarize(start.fresh, ours)}.')
  return lines


def _name(path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _by_name(variables: dict[str, Any]) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
  return {_name(path): leaf for path, leaf in leaves}


def _describe(array: Any) -> str:
  return f'{np.dtype(array.dtype).name}{list(array.shape)}'


def _parts(names: Iterable[str]) -> str:
  return ', '.join(sorted({name.split('/')[1] for name in names}))


def _misfits(
  misfits: list[str], workdir: str, theirs: ExperimentConfig, ours: ExperimentConfig | None
) -> str:
  """Makes the error about arrays of another shape, with the settings that differ."""
  differences = config_differences(ours, theirs) if ours else []
  settings = [text for text in differences if text.startswith('model.')]
  cause = f' This network has {_first(settings, 6)}.' if settings else ''
  return (
    f'training.init_from: {len(misfits)} arrays of {workdir} ({theirs.name}) have another shape '
    f'than here: {_first(misfits, 3)}.{cause} Take the model settings of that run, or leave it out.'
  )


def _first(texts: list[str], count: int) -> str:
  more = [f'and {len(texts) - count} more'] if len(texts) > count else []
  return '; '.join(texts[:count] + more)


def _is_other_hand_model(workdir: str, model: ManoModel) -> bool:
  """Returns whether a run recorded another hand model than this one (see `claim_hand_model`)."""
  path = run_folder(workdir) / HAND_MODEL_NAME
  return path.exists() and hand_model_digest(model) not in path.read_text()


def _other_meanings(
  ours: ExperimentConfig, theirs: ExperimentConfig, taken: Iterable[str]
) -> tuple[str, ...]:
  parts = {name.split('/')[1] for name in taken}
  differing = {text.partition(':')[0]: text for text in config_differences(ours, theirs)}
  return tuple(
    f'{part}: {differing[setting]}'
    for setting, part in _MEANINGS.items()
    if setting in differing and part in parts
  )


def _summarize(names: Iterable[str], among: Iterable[str]) -> str:
  """Names parts of a network that has the names `among`.

  Whole parts come with their number of arrays, and single arrays by their path. Parameters and
  statistics count together.
  """
  texts = _whole_parts(_without_collection(names), _without_collection(among), ())
  return ', '.join(texts) or 'nothing'


def _without_collection(names: Iterable[str]) -> list[tuple[str, ...]]:
  return sorted(tuple(name.split('/')[1:]) for name in names)


def _whole_parts(
  names: list[tuple[str, ...]], among: list[tuple[str, ...]], prefix: tuple[str, ...]
) -> list[str]:
  """Names the parts right below `prefix`, with which all given paths begin."""
  depth = len(prefix)
  texts = []
  for part in dict.fromkeys(path[depth] for path in names):
    inside = [path for path in names if path[depth] == part]
    every = [path for path in among if path[depth] == part]
    path = (*prefix, part)
    if inside == [path]:
      texts.append('/'.join(path))
    elif len(inside) == len(every):
      texts.append(f'{"/".join(path)} (all {len(inside)})')
    else:
      texts += _whole_parts(inside, every, path)
  return texts
