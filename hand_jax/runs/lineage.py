"""Records from which runs a run took its parameters and its camera prior, back to the first.

`lineage.json` holds `config`, `supervision` ('full' or 'weak'), `init_from` (a list of origins) and
`camera_prior` (an origin or null). An origin has `workdir`, `step` and the `lineage` of that run.
The record is complete, so the runs that it names need not exist any more.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax

from hand_jax.config import ExperimentConfig
from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.writing import write_whole
from hand_jax.runs.checkpoints import read_config
from hand_jax.runs.packed_run import run_folder

LINEAGE_NAME = 'lineage.json'
Supervision = Literal['full', 'weak']


class Origin(NamedTuple):
  """A checkpoint that another run started from: its folder, its step, and its run's lineage."""

  workdir: str
  step: int
  lineage: dict[str, Any]


def make_lineage(
  config: ExperimentConfig, init_from: Sequence[Origin] = (), camera_prior: Origin | None = None
) -> dict[str, Any]:
  """Makes the record of a run that starts from these checkpoints.

  Args:
    config: the run's config.
    init_from: the checkpoints that its parameters come from.
    camera_prior: the checkpoint that its camera prior comes from, or None.
  """
  return {
    'config': config.name,
    'supervision': 'weak' if config.data.labels == '2d' else 'full',
    'init_from': [origin._asdict() for origin in init_from],
    'camera_prior': camera_prior._asdict() if camera_prior else None,
  }


def claim_lineage(workdir: str, lineage: dict[str, Any]) -> None:
  """Writes the record of a run that starts. A continued run keeps the record it has."""
  if jax.process_index() == 0:
    write_whole(open_path(workdir) / LINEAGE_NAME, json.dumps(lineage, indent=2) + '\n')


def read_lineage(workdir: str) -> dict[str, Any]:
  """Reads the record of the run in a folder.

  For a run of an early version, which has no record, one is made from its config.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: the record is unreadable, or missing though the run started from others.
  """
  path = run_folder(workdir) / LINEAGE_NAME
  if path.exists():
    return _parse(path, _check)
  config = read_config(workdir)
  if config.training.init_from or config.training.camera_prior:
    raise ValueError(
      f'{path} is missing, though the run took parameters from others (training.init_from, '
      'training.camera_prior). Their training data are unknown without it. Put the file back.'
    )
  return make_lineage(config)


def lineage_supervision(lineage: dict[str, Any]) -> Supervision:
  """Returns whether a run and all that it comes from saw 2D joints alone ('weak') or more ('full').

  Camera priors count too.
  """
  runs = [lineage, *(origin['lineage'] for origin in _origins(lineage))]
  weak = runs[0]['supervision'] == 'weak'
  return 'weak' if weak and all(lineage_supervision(run) == 'weak' for run in runs[1:]) else 'full'


def write_origin(path: AnyPath, origin: Origin) -> None:
  """Writes an origin into a file of its own."""
  write_whole(path, json.dumps(origin._asdict(), indent=2) + '\n')


def read_origin(path: AnyPath) -> Origin:
  """Reads a file of `write_origin`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file holds no origin. The message names it.
  """
  return Origin(**_parse(path, _check_origin))


def _parse(path: AnyPath, check: Callable[[Any], None]) -> dict[str, Any]:
  try:
    tree = json.loads(path.read_text())
    check(tree)
  except (ValueError, LookupError, TypeError) as error:
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(f'{path} cannot be read as the record of a lineage ({reason}).') from None
  return tree


def _origins(lineage: dict[str, Any]) -> list[dict[str, Any]]:
  prior = lineage['camera_prior']
  return [*lineage['init_from'], *([prior] if prior is not None else [])]


def _check(lineage: Any) -> None:
  """Looks up every part of a lineage, so that a missing part or a wrong type raises."""
  if not isinstance(lineage['config'], str):
    raise TypeError(f'config should be a name, got {lineage["config"]!r}')
  if lineage['supervision'] not in ('full', 'weak'):
    raise ValueError(f"supervision should be 'full' or 'weak', got {lineage['supervision']!r}")
  for origin in _origins(lineage):
    _check_origin(origin)


def _check_origin(origin: Any) -> None:
  if set(origin) != set(Origin._fields):
    raise ValueError(f'an origin should have {Origin._fields}, got {sorted(origin)}')
  if not isinstance(origin['workdir'], str) or not isinstance(origin['step'], int):
    raise TypeError(f'expected a folder and a step, got {origin["workdir"]!r}, {origin["step"]!r}')
  _check(origin['lineage'])
