"""The calibration of sigma on errors whose true size is known."""

import numpy as np
import pytest

from hand_jax import student_t
from hand_jax.fitting.sigma_calibration import (
  calibration_for,
  hand_factor,
  no_calibration,
  vertex_groups,
)
from hand_jax.release.calibration import calibrated, fit_calibration, joint_groups
from hand_jax.release.fitted import FittedHands, summary

HANDS = 1500


DEGREES, DEPTH = 4.0, 1.5


@pytest.fixture(scope='module', params=[DEGREES, np.inf], ids=['heavy tails', 'normal'])
def fitted(model, request):
  """Hands whose errors are 3 (palm) or 5 (elsewhere) times too large, and exp(log_scale) times.

  Along the camera's axis they are larger still. Sigma is half of the 68.3 % interval of the errors.
  """
  rng, degrees = np.random.default_rng(0), request.param

  def noise(shape):
    if np.isinf(degrees):
      return rng.normal(size=shape)
    return rng.standard_t(degrees, size=shape) / student_t.sigmas_per_scale(degrees)

  log_scale = rng.normal(0, 0.4, HANDS)
  vertices = np.arange(0, 778, 6)
  size = np.exp(rng.normal(0, 0.3, HANDS))[:, None, None]
  joint_sigma = 2.0 * size * np.ones((HANDS, 21, 3))
  vertex_sigma = 2.0 * size * np.ones((HANDS, len(vertices), 3))
  # What the fit says of a hand's size of errors is half right: errors go with its square root.
  truth = np.exp(log_scale)[:, None, None] * (2.0 * size) ** -0.5 * [1.0, 1.0, DEPTH]
  palm = (vertex_groups(model)[vertices] == 0)[None, :, None]
  vertex_errors = truth * vertex_sigma * np.where(palm, 3.0, 5.0)
  joint_errors = 4.0 * truth * joint_sigma
  joint_errors[:, 0] = joint_sigma[:, 0] = 0
  small = model._replace(
    v_template=model.v_template[vertices], lbs_weights=model.lbs_weights[vertices]
  )
  hands = FittedHands(
    vertex_errors * noise(vertex_errors.shape),
    vertex_sigma,
    joint_errors * noise(joint_errors.shape),
    joint_sigma,
    np.mean(joint_sigma, axis=-1) * np.where(np.arange(21) == 0, 0, 1) + 1e-9,
    np.linalg.norm(joint_errors, axis=-1),
    log_scale,
  )
  return small, hands, degrees


def test_all_numbers_are_found_again(fitted):
  small, hands, degrees = fitted
  found = fit_calibration(hands, small)
  assert found.scale_weight == pytest.approx(1, abs=0.03)
  assert found.fit_weight == pytest.approx(-0.5, abs=0.03)
  assert found.depth_factor == pytest.approx(DEPTH, rel=0.02)
  if np.isinf(degrees):
    assert found.degrees_of_freedom > 50
  else:
    assert found.degrees_of_freedom == pytest.approx(degrees, rel=0.05)
  palm = vertex_groups(small) == 0
  # The wrist counts in the mean of the fit's sigmas, which are so a twenty-first smaller.
  shift = (20 / 21) ** 0.5
  np.testing.assert_allclose(found.vertex_factor[palm], 3 * shift, rtol=0.05)
  np.testing.assert_allclose(found.vertex_factor[~palm], 5 * shift, rtol=0.05)
  np.testing.assert_allclose(found.joint_factor[1:], 4 * shift, rtol=0.05)
  corrected = calibrated(hands, found)
  figures = summary(corrected, float(found.degrees_of_freedom))
  assert figures['coverage_68'] == pytest.approx(0.68, abs=0.01)
  assert figures['coverage_95'] == pytest.approx(0.95, abs=0.01)
  assert summary(hands, np.inf)['coverage_95'] < 0.6
  by_axis = corrected.joint_sigma[:, 1:]
  np.testing.assert_allclose(by_axis[..., 2], found.depth_factor * by_axis[..., 0], rtol=1e-5)
  np.testing.assert_allclose(
    corrected.joint_sigma_mm**2, np.mean(corrected.joint_sigma**2, axis=-1)
  )


def test_parts_of_the_hand(model):
  groups = vertex_groups(model)
  assert set(groups) == {0, 1, 2, 3, 4, 5, 6}
  assert len(set(joint_groups())) == 9  # wrist, mcp, pip, dip, tip, four of the thumb
  assert joint_groups()[[5, 9, 13, 17]].std() == 0 and joint_groups()[2] != joint_groups()[5]


def test_another_hand_model_takes_the_factors_of_its_own_parts(model):
  """The same hand with its vertices in another order, as those of MANO are."""
  factors = (1.0 + vertex_groups(model)).astype(np.float32)
  measured = no_calibration(len(factors))._replace(vertex_factor=factors)
  order = np.random.default_rng(2).permutation(len(factors))
  other = model._replace(lbs_weights=model.lbs_weights[order])
  found = calibration_for(other, measured, model)
  np.testing.assert_array_equal(found.vertex_factor, factors[order])
  np.testing.assert_array_equal(found.joint_factor, measured.joint_factor)


def test_a_hand_without_calibration_keeps_its_sigma():
  blank = no_calibration(3)
  np.testing.assert_allclose(hand_factor(blank, np.array([0.7]), np.full((1, 21), 5.0)), 1)
