"""Makes the weights that the package ships, stage by stage. A finished stage is not made again.

The stages are: readings -> heads and errors -> calibration -> measurement and card.
"""

import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hand_jax.files.json_files import read_json
from hand_jax.files.writing import write_json
from hand_jax.fitting.evidence import PointErrors
from hand_jax.fitting.released_weights import Release, read_release, write_release
from hand_jax.fitting.sigma_calibration import no_calibration
from hand_jax.mano.assets import hand_model_name, load_mano_model
from hand_jax.release.calibration import calibrated, fit_calibration
from hand_jax.release.errors import error_shapes, pose_prior
from hand_jax.release.fitted import FittedHands, fit_rendered, summary
from hand_jax.release.heads import HeadSettings, estimate, train_heads
from hand_jax.release.parts import joined
from hand_jax.release.readings import (
  ReadHands,
  ReadingPlan,
  landmark_error_share,
  read_plan,
  select,
)

# The calibration's numbers need at least this many hands.
_MIN_CALIBRATED = 50
# The card states them, because it is what users of an installed package have of the documentation.
LIMITS = (
  'The heads were trained, and sigma was calibrated, on rendered hands alone. The landmark network '
  'below them was trained by others on photos of people.',
  'The measured photos are 160 of left hands, from one small data set. The three numbers '
  'chosen_on_real_photos_mm were chosen on them.',
  'Children, old hands, dark skin, gloves, tattoos, missing fingers and hands that hold tools were '
  'measured on renders at most, or not at all.',
)
_STAGE_FILES = ('heads.npz', 'calibrated.npz', 'release.npz', 'release_card.json')


class ErrorSizes(NamedTuple):
  """Root mean square errors in mm that the fit assumes, one for each kind of evidence.

  Only these three numbers were chosen on real photos, on both measuring sets together, because
  renders are harder to read than photos. The ratios between joints come from renders.
  """

  image: float = 3.0
  world: float = 9.0
  heads: float = 9.0


class ReleasePlan(NamedTuple):
  """The data and settings that the weights are made from. No photo of a person is among them."""

  learned: tuple[ReadingPlan, ...]
  """The hands that the heads are trained on."""
  held_out: tuple[ReadingPlan, ...]
  """The hands on which the joints' errors are measured and the error scale is trained."""
  calibration: tuple[ReadingPlan, ...]
  """The hands that sigma is calibrated on."""
  measured: dict[str, ReadingPlan]
  """The hands that the card's figures are measured on, by split."""
  heads: HeadSettings = HeadSettings()
  sizes: ErrorSizes = ErrorSizes()
  prior_samples: int = 40_000
  """The number of poses that the prior over joint angles is fitted to."""
  shape_sigma: float = 1.0
  """The prior's deviation of each shape number."""
  seed: int = 0


def release_plan(scale: float = 1.0, test_hands: int = 1000) -> ReleasePlan:
  """Returns the plan by which the shipped weights are made.

  Args:
    scale: multiplies the numbers of hands in all stages but the measurement. The shipped weights
      were made with 1. Larger scales are for machines with more time.
    test_hands: the number of hands of each test split that are measured.
  """

  def plan(hands: str, split: str, seed: int, count: int, crops: int = 1) -> ReadingPlan:
    return ReadingPlan(hands, split, seed, max(1, round(count * scale)), crops)

  def measured(split: str) -> ReadingPlan:
    return ReadingPlan('classic', split, 0, test_hands, 1)

  return ReleasePlan(
    learned=(plan('broad', 'train', 1, 6144, 2), plan('classic', 'train', 1, 2048, 2)),
    held_out=(plan('broad', 'validation', 1, 1536), plan('classic', 'validation', 1, 1024)),
    calibration=(plan('broad', 'validation', 2, 512), plan('classic', 'validation', 2, 512)),
    measured={split: measured(split) for split in ('test', 'test_broad', 'test_mismatch')},
  )


def make_release(
  plan: ReleasePlan,
  workdir: str | os.PathLike,
  commit: str = '',
  report: Callable[[str], None] = lambda line: None,
  trained: Release | None = None,
) -> Release:
  """Makes the weights in a folder, which holds `release.npz` and `release_card.json` in the end.

  Args:
    plan: the data and settings.
    workdir: folder where the stages keep their results.
    commit: commit of the code, for the card.
    report: called with a line about each step.
    trained: weights whose heads, errors and prior are taken as they are. Only the calibration and
      the measurement are made again, for a fit that has changed.

  Raises:
    ValueError: the folder holds stages of another plan, or the plan has too few hands.
    FileExistsError: the folder holds files of the stages' names, but no plan.
  """
  folder = pathlib.Path(workdir)
  _keep_plan(plan, folder, taken_over=trained is not None)

  def stage(name: str, path: pathlib.Path, make: Callable[[], Release]) -> Release:
    if not path.exists():
      started = time.monotonic()
      release = make()
      hours = round((time.monotonic() - started) / 3600, 3)
      # Trained heads that are only taken over bring their hours with them.
      known = release.card.get('hours', {})
      known = {name: hours, **known} if name == 'heads' else {**known, name: hours}
      write_release(path, release._replace(card=release.card | {'hours': known}))
      report(f'{name}: {hours:.2f} h, {path}')
    return read_release(path)

  def heads() -> Release:
    if trained is None:
      return _trained(plan, folder, commit, report)
    blank = no_calibration(len(load_mano_model().v_template))
    return trained._replace(calibration=blank, card=trained.card | {'calibration_commit': commit})

  before = stage('heads', folder / 'heads.npz', heads)
  after = stage('calibration', folder / 'calibrated.npz', lambda: _calibrated(plan, before))
  path = folder / 'release.npz'
  release = stage('measurement', path, lambda: _measured(plan, after))
  write_json(folder / 'release_card.json', release.card)
  return release


def _keep_plan(plan: ReleasePlan, folder: pathlib.Path, taken_over: bool) -> None:
  """Writes the plan into a new folder, or compares it with the plan of an existing one.

  Args:
    plan: the data and settings.
    folder: folder of the stages.
    taken_over: whether trained heads are taken over. Such stages are never mixed with others.
  """
  path, text = folder / 'plan.json', json.loads(json.dumps(_plan_numbers(plan)))
  text |= {'heads_taken_over': True} if taken_over else {}
  if not path.exists():
    if taken := [name for name in _STAGE_FILES if os.path.lexists(folder / name)]:
      raise FileExistsError(
        f'{folder} holds {", ".join(taken)}, but no {path.name} with the plan they were made from. '
        'They are not replaced. Name another --workdir.'
      )
    write_json(path, text)
  elif read_json(path) != text:
    raise ValueError(
      f'{folder} holds stages of another plan, see {path.name} there. '
      'Give the flags of that run, or name another --workdir.'
    )


def _plan_numbers(plan: ReleasePlan) -> dict[str, Any]:
  return {
    'hand_model': hand_model_name(load_mano_model()),
    'learned': [part._asdict() for part in plan.learned],
    'held_out': [part._asdict() for part in plan.held_out],
    'calibration': [part._asdict() for part in plan.calibration],
    'measured': {split: part._asdict() for split, part in plan.measured.items()},
    'heads': plan.heads._asdict(),
    'chosen_on_real_photos_mm': plan.sizes._asdict(),
    'prior_samples': plan.prior_samples,
    'shape_sigma': plan.shape_sigma,
    'seed': plan.seed,
  }


def _trained(
  plan: ReleasePlan, folder: pathlib.Path, commit: str, report: Callable[[str], None]
) -> Release:
  learned, held_out = _read(plan.learned, folder, report), _read(plan.held_out, folder, report)
  learned = _readable(learned, plan.heads)
  for read, what in ((learned, 'train on'), (held_out, 'measure the errors on')):
    if len(read.vectors) < 2 * plan.heads.batch_size:
      raise ValueError(
        f'{len(read.vectors)} crops to {what} are too few: expected at least two batches of '
        f'{plan.heads.batch_size}. Ask for more hands (--scale).'
      )
  # The error scale must also see hard hands, so it is trained on all held-out hands.
  parameters = train_heads(learned, held_out, plan.heads)
  held_out = _readable(held_out, plan.heads)
  shapes = error_shapes(held_out, estimate(parameters, held_out))
  model = load_mano_model()
  return Release(
    heads=parameters,
    errors=PointErrors(*(size * shape for size, shape in zip(plan.sizes, shapes, strict=True))),
    prior=pose_prior('broad', plan.prior_samples, plan.seed, plan.shape_sigma),
    calibration=no_calibration(len(model.v_template)),
    card={
      'commit': commit,
      'learned_crops': len(learned.vectors),
      'held_out_crops': len(held_out.vectors),
    }
    | _plan_numbers(plan),
  )


def _read(
  plans: tuple[ReadingPlan, ...], folder: pathlib.Path, report: Callable[[str], None]
) -> ReadHands:
  def told(plan: ReadingPlan) -> Callable[[int, int], None]:
    return lambda done, count: report(f'{plan.name}: {done} of {count} hands read')

  return joined(read_plan(plan, folder / 'readings', told(plan)) for plan in plans)


def _readable(read: ReadHands, settings: HeadSettings) -> ReadHands:
  """Selects the crops that the landmark network reads about as well as photos."""
  return select(read, landmark_error_share(read) <= settings.max_landmark_error)


def _calibrated(plan: ReleasePlan, release: Release) -> Release:
  """Calibrates sigma on renders that no other stage sees."""
  count = sum(part.count for part in plan.calibration)
  if count < _MIN_CALIBRATED:
    raise ValueError(
      f'{count} hands to calibrate on are too few: expected at least {_MIN_CALIBRATED}. '
      'Ask for more hands (--scale).'
    )
  model = load_mano_model()
  parts = [fit_rendered(model, release, part) for part in plan.calibration]
  fitted = FittedHands(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
  calibration = fit_calibration(fitted, model)
  degrees = float(calibration.degrees_of_freedom)
  card = release.card | {
    'before_calibration': summary(fitted, np.inf),
    'after_calibration': summary(calibrated(fitted, calibration), degrees),
    'error_degrees_of_freedom': round(degrees, 2),
  }
  return release._replace(calibration=calibration, card=card)


def _measured(plan: ReleasePlan, release: Release) -> Release:
  model = load_mano_model()
  degrees = float(release.calibration.degrees_of_freedom)
  scores: dict[str, Any] = {
    split: summary(fit_rendered(model, release, part), degrees)
    for split, part in plan.measured.items()
  }
  return release._replace(card=release.card | {'renders': scores, 'limits': list(LIMITS)})
