"""Soft pictures by tiles, the form for accelerators, equal those by windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering import blending, coverage, tiles

HEIGHT, WIDTH, BATCH, FACES = 37, 50, 2, 21
SIGMA, GAMMA, RADIUS = 0.7, 0.1, 3.0


def corners_and_valid():
  """Small faces everywhere, some out of the picture, a large one, a thin one and broken ones."""
  rng = np.random.default_rng(0)
  middle = rng.uniform(-10, 60, (BATCH, FACES, 1, 2))
  corners = middle + rng.normal(scale=4, size=(BATCH, FACES, 3, 2))
  corners[:, 0] = [[-300, -100], [400, 60], [300, -90]]
  corners[:, 1] = [[3, 3], [40, 30], [21.5, 16.5]]
  corners[:, 2] = 0
  valid = np.ones((BATCH, FACES), bool)
  valid[:, 2] = False
  valid[1, 5:9] = False
  return jnp.asarray(corners), jnp.asarray(valid)


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


def close(ours, theirs):
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    scale = np.abs(np.asarray(other)).max()
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * scale)


def test_uncovered_shares_and_their_slopes_are_those_of_windows():
  numbers = (*corners_and_valid(), jnp.asarray(SIGMA), jnp.asarray(RADIUS))
  in_windows = jax.jit(functools.partial(coverage.uncovered_in_windows, HEIGHT, WIDTH))(*numbers)
  in_tiles = jax.jit(functools.partial(coverage.uncovered_in_tiles, HEIGHT, WIDTH))(*numbers)
  assert 0.02 < float(jnp.mean(in_windows < 0.5)) < 0.98
  close(in_tiles, in_windows)
  weight = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, HEIGHT, WIDTH)))
  slopes = jax.jit(coverage.slopes_in_windows)(*numbers, weight)
  assert (np.abs(slopes[0]).max(axis=(2, 3)) > 0).sum() > FACES // 2
  close(jax.jit(coverage.slopes_in_tiles)(*numbers, weight), slopes)


def test_blended_colours_and_their_slopes_are_those_of_windows():
  corners, valid = corners_and_valid()
  rng = np.random.default_rng(2)
  # Some nearnesses leave [0, 1], where a face weighs nothing.
  nearness = rng.uniform(-0.2, 1.2, (BATCH, FACES, 3))
  colors = rng.uniform(size=(BATCH, FACES, 6))
  flat = corners.reshape(BATCH, FACES, 6)
  numbers = jnp.concatenate([flat, jnp.asarray(nearness), jnp.asarray(colors)], axis=-1)
  given = (numbers, valid, jnp.asarray(SIGMA), jnp.asarray(GAMMA), jnp.asarray(RADIUS))
  in_windows = jax.jit(functools.partial(blending.blended_in_windows, HEIGHT, WIDTH))(*given)
  in_tiles = jax.jit(functools.partial(blending.blended_in_tiles, HEIGHT, WIDTH))(*given)
  assert in_windows[1].shape == (BATCH, HEIGHT, WIDTH, 2)
  seen = np.asarray(in_windows[0]) > -1e20
  np.testing.assert_array_equal(np.asarray(in_tiles[0]) > -1e20, seen)
  assert seen.any() and not seen.all()
  close(np.where(seen, in_tiles[0], 0), np.where(seen, in_windows[0], 0))
  close(in_tiles[1], in_windows[1])
  pulls = [jnp.asarray(rng.normal(size=(BATCH, HEIGHT, WIDTH))) for _ in range(3)]
  pulls = (in_windows[0], pulls[0], jnp.stack(pulls[1:], axis=-1))
  slopes = jax.jit(blending.slopes_in_windows)(*given, *pulls)
  assert all(np.abs(part).max() > 0 for part in slopes)
  close(jax.jit(blending.slopes_in_tiles)(*given, *pulls), slopes)


def test_a_tile_lists_the_faces_that_reach_it_alone():
  corners = jnp.asarray([[[[2.0, 2], [5, 2], [2, 5]], [[20, 20], [30, 20], [20, 30]]]])
  valid = jnp.ones((1, 2), bool)
  found = tiles.tiles_of(corners, valid, jnp.asarray(1.0), 40, 40)
  lists = [
    found.faces[0, tile, :count].tolist() for tile, count in enumerate(found.counts[0].tolist())
  ]
  # Tiles have 16 pixels: three in a row.
  assert lists == [[0], [], [], [], [1], [], [], [], []]
  wide = tiles.tiles_of(corners, valid, jnp.asarray(12.0), 40, 40)
  assert wide.counts[0].tolist() == [2, 2, 1, 2, 2, 1, 1, 1, 1]


def test_pictures_are_cut_into_tiles_and_joined_again():
  picture = jnp.arange(2.0 * HEIGHT * WIDTH).reshape(2, HEIGHT, WIDTH)
  cut = tiles.to_tiles(picture)
  assert cut.shape == (2, 3 * 4, 1, 16, 16)
  np.testing.assert_array_equal(cut[0, 0, 0], picture[0, :16, :16])
  np.testing.assert_array_equal(tiles.from_tiles(cut, HEIGHT, WIDTH), picture)
