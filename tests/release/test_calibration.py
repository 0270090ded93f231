"""The calibration of sigma on errors whose true size is known."""

import numpy as np
import pytest

from hand_jax.fitting.sigma_calibration import (
  SigmaCalibration,
  calibration_for,
  hand_factor,
  no_calibration,
  vertex_groups,
)
from hand_jax.release.calibration import (
  fit_calibration,
  joint_groups,
  part_factors,
)
from hand_jax.release.fitted import FittedHands, summary

HANDS = 1500


@pytest.fixture(scope='module')
def fitted(model):
  """Hands whose errors are 3 (palm) or 5 (elsewhere) times too large, and exp(log_scale) times."""
  rng = np.random.default_rng(0)
  log_scale = rng.normal(0, 0.4, HANDS)
  vertices = np.arange(0, 778, 6)
  size = np.exp(rng.normal(0, 0.3, HANDS))[:, None, None]
  joint_sigma = 2.0 * size * np.ones((HANDS, 21, 3))
  vertex_sigma = 2.0 * size * np.ones((HANDS, len(vertices), 3))
  # What the fit says of a hand's size of errors is half right: errors go with its square root.
  truth = np.exp(log_scale)[:, None, None] * (2.0 * size) ** -0.5
  palm = (vertex_groups(model)[vertices] == 0)[None, :, None]
  vertex_errors = truth * vertex_sigma * np.where(palm, 3.0, 5.0)
  joint_errors = 4.0 * truth * joint_sigma
  joint_errors[:, 0] = joint_sigma[:, 0] = 0
  small = model._replace(
    v_template=model.v_template[vertices], lbs_weights=model.lbs_weights[vertices]
  )
  return small, FittedHands(
    vertex_errors * rng.normal(size=vertex_errors.shape),
    vertex_sigma,
    joint_errors * rng.normal(size=joint_errors.shape),
    joint_sigma,
    np.mean(joint_sigma, axis=-1) * np.where(np.arange(21) == 0, 0, 1) + 1e-9,
    np.linalg.norm(joint_errors, axis=-1),
    log_scale,
  )


def test_weights_and_factors_are_found_again(fitted):
  small, hands = fitted
  found = fit_calibration(hands, small)
  assert found.scale_weight == pytest.approx(1, abs=0.03)
  assert found.fit_weight == pytest.approx(-0.5, abs=0.03)
  palm = vertex_groups(small) == 0
  # The wrist counts in the mean of the fit's sigmas, which are so a twenty-first smaller.
  shift = (20 / 21) ** 0.5
  np.testing.assert_allclose(found.vertex_factor[palm], 3 * shift, rtol=0.05)
  np.testing.assert_allclose(found.vertex_factor[~palm], 5 * shift, rtol=0.05)
  factor = hand_factor(found, hands.log_scale, hands.joint_sigma_mm)[:, None, None]
  sigma = factor * hands.vertex_sigma * found.vertex_factor[None, :, None]
  calibrated = summary(hands._replace(vertex_sigma=sigma))
  assert calibrated['coverage_68'] == pytest.approx(0.68, abs=0.01)
  assert calibrated['coverage_95'] == pytest.approx(0.95, abs=0.01)
  assert summary(hands)['coverage_95'] < 0.6


def test_part_factors_lie_between_what_both_shares_ask_for():
  rng = np.random.default_rng(1)
  errors = rng.standard_t(3, size=(4000, 2, 3))  # heavy tails
  (factor, _) = part_factors(errors, np.ones_like(errors), np.zeros(2, int))
  shares = [np.mean(np.abs(errors) <= width * factor) for width in (0.9945, 1.96)]
  assert shares[0] > 0.68 and shares[1] < 0.95


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
  blank = SigmaCalibration(np.ones(3), np.ones(21), np.float32(0), np.float32(0))
  np.testing.assert_allclose(hand_factor(blank, np.array([0.7]), np.full((1, 21), 5.0)), 1)
