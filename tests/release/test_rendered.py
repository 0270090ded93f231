"""Rendered hands on disk: what they hold, and that each is rendered once."""

import numpy as np
import pytest

from hand_jax.release import rendered
from hand_jax.release.parts import joined
from hand_jax.release.rendered import RenderedHands, RenderPlan, rendered_hands
from hand_jax.synthetic.hands import render_examples

PLAN = RenderPlan('broad', 'validation', 3, 5, image_size=64)


def made_up(count, start=0):
  rng = np.random.default_rng(start)
  return RenderedHands(
    rng.integers(0, 255, (count, 64, 64, 3)).astype(np.uint8),
    rng.uniform(size=(count, 64, 64)) < 0.5,
    *(rng.normal(size=(count, *shape)).astype(np.float32) for shape in ((21, 2), (9, 2), (9, 3))),
    rng.integers(0, 255, (count, 9, 3)).astype(np.uint8),
  )


@pytest.mark.slow
def test_hands_are_those_of_the_split_with_all_labels(tmp_path):
  found = rendered_hands(PLAN._replace(count=2), tmp_path)
  examples = render_examples(3, 'validation', [0, 1], 64, with_vertex_labels=True, hands='broad')
  for k, example in enumerate(examples):
    np.testing.assert_array_equal(found.images[k], example.image)
    np.testing.assert_array_equal(found.masks[k], example.hand_mask)
    np.testing.assert_allclose(found.joints_image[k], example.joints_image, atol=1e-4)
    np.testing.assert_allclose(found.vertex_colors[k] / 255, example.vertex_colors, atol=0.003)
    # Most visible vertices lie on the mask.
    column, row = np.clip(found.vertices_image[k].astype(int), 0, 63).T
    assert found.masks[k][row, column][example.vertex_visible].mean() > 0.8


def test_a_stopped_pass_goes_on_where_it_was(tmp_path, monkeypatch):
  asked = []

  def render(plan, indices):
    asked.append(list(indices))
    if len(asked) == 2:
      raise KeyboardInterrupt
    return made_up(len(asked[-1]), asked[-1][0])

  monkeypatch.setattr(rendered, 'SHARD_SIZE', 2)
  monkeypatch.setattr(rendered, '_render', render)
  with pytest.raises(KeyboardInterrupt):
    rendered_hands(PLAN, tmp_path)
  found = rendered_hands(PLAN, tmp_path)
  assert asked == [[0, 1], [2, 3], [2, 3], [4]]
  expected = joined([made_up(2), made_up(2, 2), made_up(1, 4)])
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype
  rendered_hands(PLAN, tmp_path)
  assert len(asked) == 4  # nothing is rendered twice
