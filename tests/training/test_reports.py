"""What a run reports: validation figures by name, the progress line, skeletons with gaps."""

import numpy as np
import pytest

from hand_jax.evaluation.evaluate import ERROR_NAMES
from hand_jax.setting_checks import VALIDATION_FIGURES
from hand_jax.training.reports import overlay_sheet, progress_line, validation_metrics

STEP = {'step': 2, 'total': 1.0, 'joints_2d': 0.5, 'examples_per_second': 4.0, 'seconds_left': 3.0}
PIXELS = {'posterior_px': 3.0, 'prior_px': 4.0, 'examples': 9, 'crop_size_px': 64}


@pytest.mark.parametrize(
  'results, expected',
  [
    (
      {'posterior': {'mpjpe_mm': 1.0}, 'prior': {'mpjpe_mm': 2.0}, 'examples': 5},
      {'validation_mpjpe_mm': 1.0, 'validation_prior_mpjpe_mm': 2.0},
    ),
    (
      {'prior': {'mpjpe_mm': 2.0}, 'joints_2d': {'prior_px': 4.0, 'examples': 9}},
      {'validation_mpjpe_mm': 2.0, 'validation_joints_2d_px': 4.0},
    ),
    (
      {'posterior': {'mpjpe_mm': 1.0}, 'joints_2d': {'posterior_px': 3.0, 'examples': 9}},
      {'validation_mpjpe_mm': 1.0, 'validation_joints_2d_px': 3.0},
    ),
    (
      {'examples': 0, 'joints_2d': PIXELS},
      {'validation_joints_2d_px': 3.0, 'validation_prior_joints_2d_px': 4.0},
    ),
  ],
)
def test_validation_metrics_are_named_after_the_best_branch(results, expected):
  assert validation_metrics(results) == expected


def test_the_names_that_a_best_metric_may_have_are_those_of_validation():
  errors = dict.fromkeys(ERROR_NAMES, 1.0)
  pixels = {'posterior_px': 1.0, 'prior_px': 1.0}
  made = validation_metrics({'posterior': errors, 'prior': errors, 'joints_2d': pixels})
  assert {'validation_total', *made} == set(VALIDATION_FIGURES)


def test_the_progress_line_shows_2d_errors_where_there_are_none_in_3d():
  flat = {'validation_total': 7.0} | validation_metrics({'examples': 0, 'joints_2d': PIXELS})
  assert progress_line(STEP | flat, 10) == (
    'step 2/10 | total 1 | joints_2d 0.5 | validation total 7 | validation joints 2d px 3 | '
    'validation prior joints 2d px 4 | 4.0 examples/s | 0:03 left'
  )
  line = progress_line(STEP | flat | {'validation_pa_mpjpe_mm': 21.5}, 10)
  assert 'validation pa mpjpe mm 21.5' in line and 'px' not in line


def test_bones_of_unknown_joints_are_not_drawn():
  images = np.zeros((1, 32, 32, 3), np.uint8)
  hidden = np.full((1, 21, 2), np.nan)
  # The wrist and the index finger's four joints, on a line across the crop's lower half.
  truth = hidden.copy()
  truth[0, [0, 5, 6, 7, 8]] = np.stack([np.linspace(-0.5, 0.5, 5), np.full(5, 0.5)], axis=1)
  sheet = overlay_sheet(images, hidden, truth, columns=1)
  drawn = np.argwhere(sheet.any(-1))
  assert len(drawn) > 100
  assert drawn[:, 0].min() >= 190 and drawn[:, 0].max() <= 193
  assert drawn[:, 1].min() >= 62 and drawn[:, 1].max() <= 193
  truth[0, 0, 1] = np.inf
  assert overlay_sheet(images, hidden, truth, columns=1).any(-1).sum() < len(drawn)
  assert not overlay_sheet(images, hidden, hidden, columns=1).any()
