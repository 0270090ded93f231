"""The default program on rendered hands: each hand's errors and sigma are its own."""

import numpy as np
import pytest

from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.fitting.released_weights import load_release
from hand_jax.release.fitted import fit_rendered
from hand_jax.release.readings import ReadingPlan
from hand_jax.synthetic.hands import render_examples

PLAN = ReadingPlan('broad', 'validation', 2, 2, crops=1)


@pytest.mark.slow
def test_errors_are_those_of_each_hand_whatever_is_fitted_with_it(model):
  both = fit_rendered(model, load_release(), PLAN)
  alone = fit_rendered(model, load_release(), PLAN._replace(count=1))
  np.testing.assert_allclose(both.vertex_errors[0], alone.vertex_errors[0], atol=0.6)
  np.testing.assert_allclose(both.vertex_sigma[0], alone.vertex_sigma[0], rtol=0.05, atol=0.05)
  assert np.abs(both.vertex_errors[0] - both.vertex_errors[1]).max() > 5
  examples = render_examples(PLAN.seed, PLAN.split, [0, 1], PLAN.image_size, hands=PLAN.hands)
  for k, example in enumerate(examples):
    joints = 1000 * np.asarray(example.joints_camera, np.float64)
    found = joints - joints[:1] + both.joint_errors[k]
    aligned = np.linalg.norm(procrustes_align(found, joints) - joints, axis=-1)
    np.testing.assert_allclose(both.pa_joint_errors[k], aligned, atol=1e-3)
    # A hand that was fitted to another one's reading or truth would be this far off.
    assert aligned.mean() < 25
  np.testing.assert_allclose(
    both.joint_sigma_mm, np.sqrt(np.mean(both.joint_sigma**2, axis=-1)), rtol=1e-4, atol=1e-3
  )
