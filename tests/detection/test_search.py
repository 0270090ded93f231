"""Where palms are looked for: tiles cover the photo, plain parts are skipped."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hand_jax.detection.search import bordered_photo, find_palms, tile_levels, whole_photo
from tools.drawn_hand import draw_test_picture

sizes = st.integers(60, 5000)


def holds(tile, low, high):
  left = np.array(tile.centre) - tile.side / 2
  return (left <= low + 1e-6).all() and (left + tile.side >= high - 1e-6).all()


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(sizes, sizes, st.data())
def test_some_tile_shows_every_hand_of_its_level(width, height, data):
  coarser = float(max(width, height))
  for tiles in tile_levels(width, height):
    side = tiles[0].side
    assert coarser / side <= 2 + 1e-9
    hand = min(0.15 * coarser, width, height)
    low = np.array([data.draw(st.floats(0, size - hand)) for size in (width, height)])
    assert any(holds(tile, low, low + hand) for tile in tiles)
    coarser = side


def test_hands_of_forty_pixels_are_large_enough_in_the_finest_tiles():
  assert 40 / tile_levels(4000, 3000)[-1][0].side >= 0.15
  assert [len(tiles) for tiles in tile_levels(4000, 3000)] == [6, 24, 88, 336]
  # One row fewer than tiles of the smallest size would need.
  assert [len(tiles) for tiles in tile_levels(480, 640)] == [2, 9]
  assert tile_levels(256, 200) == []


def test_whole_photo_and_border():
  assert holds(whole_photo(300, 200)[0], np.zeros(2), np.array([300, 200]))
  assert whole_photo(300, 200)[0].side == 300
  assert bordered_photo(300, 200)[0].side == 600


@pytest.mark.slow
def test_palms_are_placed_in_the_photo():
  picture = np.full((500, 700, 3), 90, np.uint8)
  picture[200:424, 300:524] = draw_test_picture(224)
  palms = find_palms(picture, whole_photo(700, 500), 0.3)
  assert len(palms.score) == 1
  wrist, middle = palms.points[0, 0], palms.points[0, 2]
  # The drawn wrist and the base of its middle finger, see `draw_test_picture`.
  np.testing.assert_allclose(wrist, [300 + 0.48 * 224, 200 + 0.82 * 224], atol=25)
  assert middle[1] < wrist[1] - 30


def test_plain_tiles_are_skipped(monkeypatch):
  def fail(pictures):
    raise AssertionError('the network was asked about a plain picture')

  monkeypatch.setattr('hand_jax.detection.search.detect_palms', fail)
  picture = np.empty((300, 400, 3), np.uint8)
  picture[:] = [90, 120, 200]
  assert len(find_palms(picture, tile_levels(400, 300)[0], 0.3).score) == 0
