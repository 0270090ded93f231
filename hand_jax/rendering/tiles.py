"""Computes soft rendering on accelerators, for all square tiles of all pictures at once.

Every tile has a list of the faces that reach it, and each step of a loop takes the next few faces
of all lists. The longest list decides the number of steps, some tens for a hand. The windows of
`soft_windows.py` would take hundreds of thousands of steps one after the other, which suits only a
CPU. This form is plain XLA. No step computes a face at all pixels, and a step keeps only the
picture or the sums over each face's pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from hand_jax.rendering.soft_windows import EdgeTable

SIDE = 16
"""Side of a tile in pixels."""
FACES_AT_ONCE = 8
"""The number of faces of each tile's list in one step of the loop."""

Update = Callable[[Array, Array, Any], Any]


class Tiles(NamedTuple):
  """The tiles of a batch of pictures, row by row, and the faces that each meets."""

  x: Float[Array, '1 tiles 1 side side']
  """Pixel centres of the tiles."""
  y: Float[Array, '1 tiles 1 side side']
  faces: Int[Array, 'batch tiles places']
  """Face ids. Faces that meet the tile come first, in ascending order."""
  counts: Int[Array, 'batch tiles']
  """The number of faces that meet each tile."""


def tiles_of(
  corners: Float[Array, 'batch faces 3 2'],
  valid: Bool[Array, 'batch faces'],
  radius: Float[Array, ''],
  height: int,
  width: int,
) -> Tiles:
  """Finds the faces whose bounding box, widened by the blur, meets each tile.

  Args:
    corners: corners of the faces, pixels.
    valid: whether a face is drawn at all.
    radius: blur radius, pixels.
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
  """
  rows, columns = -(-height // SIDE), -(-width // SIDE)
  low, high = corners.min(axis=2) - radius, corners.max(axis=2) + radius

  def meets(axis: int, count: int) -> Array:
    first = (jnp.arange(count) * SIDE + 0.5).astype(corners.dtype)[None, None]
    reached = low[..., axis, None] <= first + (SIDE - 1)
    return reached & (high[..., axis, None] >= first) & valid[..., None]

  met = meets(1, rows)[..., None] & meets(0, columns)[..., None, :]
  met = jnp.moveaxis(met.reshape(*met.shape[:2], -1), 1, 2)
  faces = jnp.argsort(~met, axis=-1, stable=True)
  padding = -faces.shape[-1] % FACES_AT_ONCE
  faces = jnp.pad(faces, ((0, 0), (0, 0), (0, padding)))
  place = jnp.arange(SIDE, dtype=corners.dtype) + 0.5
  row, column = jnp.divmod(jnp.arange(rows * columns), columns)

  def centers(number: Array, along: Array) -> Array:
    return (number * SIDE).astype(corners.dtype)[:, None, None] + along[None]

  x, y = centers(column, place[None, :]), centers(row, place[:, None])
  shape = (1, rows * columns, 1, SIDE, SIDE)
  x, y = (jnp.broadcast_to(part, (rows * columns, SIDE, SIDE)).reshape(shape) for part in (x, y))
  return Tiles(x, y, faces.astype(jnp.int32), jnp.sum(met, axis=-1, dtype=jnp.int32))


def fold_faces(tiles: Tiles, update: Update, start: Any) -> Any:
  """Folds a function over the lists of all tiles, a few faces of each at a time.

  Args:
    tiles: the tiles, from `tiles_of`.
    update: called as `update(faces, exist, value)` with face ids (batch, tiles, some) and whether
      they are in the lists (batch, tiles, some, 1, 1). It returns the next value.
    start: the first value.

  Returns:
    The last value.
  """
  steps = -(-jnp.max(tiles.counts, initial=0) // FACES_AT_ONCE)

  def step(state):
    number, value = state
    first = number * FACES_AT_ONCE
    faces = lax.dynamic_slice_in_dim(tiles.faces, first, FACES_AT_ONCE, axis=2)
    exist = first + jnp.arange(FACES_AT_ONCE)[None, None] < tiles.counts[..., None]
    return number + 1, update(faces, exist[..., None, None], value)

  return lax.while_loop(lambda state: state[0] < steps, step, (jnp.int32(0), start))[1]


def take(
  values: Float[Array, 'batch faces numbers'], faces: Int[Array, 'batch tiles some']
) -> list[Float[Array, 'batch tiles some 1 1']]:
  """Gathers each number of the listed faces, with axes for the pixels."""
  rows = values[jnp.arange(values.shape[0])[:, None, None], faces]
  return [rows[..., i, None, None] for i in range(values.shape[-1])]


def take_edges(table: EdgeTable, faces: Int[Array, 'batch tiles some']) -> EdgeTable:
  """Gathers the edges of the listed faces, as arguments of `squared_distance`.

  Args:
    table: the edges of all faces of all pictures.
    faces: face ids.
  """
  *sides, winding = table
  packed = jnp.concatenate([*sides, winding[..., None]], axis=-1)
  numbers = take(packed, faces)
  fields = [jnp.stack(numbers[i : i + 3]) for i in range(0, 3 * len(sides), 3)]
  return EdgeTable._make((*fields, numbers[-1]))


def add_to_faces(
  sums: Float[Array, 'batch faces numbers'],
  faces: Int[Array, 'batch tiles some'],
  terms: list[Float[Array, 'batch tiles some 1 1']],
) -> Float[Array, 'batch faces numbers']:
  """Adds terms to the numbers of the listed faces.

  Args:
    sums: the numbers of all faces.
    faces: numbers of the listed faces.
    terms: what to add to each number, 0 for faces that are not in a list.
  """
  rows = jnp.stack([term[..., 0, 0] for term in terms], axis=-1)
  return sums.at[jnp.arange(sums.shape[0])[:, None, None], faces].add(rows)


def to_tiles(
  picture: Float[Array, 'batch height width'],
) -> Float[Array, 'batch tiles 1 side side']:
  """Cuts pictures into tiles, and fills up the last ones with zeros."""
  batch, height, width = picture.shape
  picture = jnp.pad(picture, ((0, 0), (0, -height % SIDE), (0, -width % SIDE)))
  rows, columns = (size // SIDE for size in picture.shape[1:])
  cut = picture.reshape(batch, rows, SIDE, columns, SIDE)
  return jnp.moveaxis(cut, 3, 2).reshape(batch, rows * columns, 1, SIDE, SIDE)


def from_tiles(
  tiles: Float[Array, 'batch tiles 1 side side'], height: int, width: int
) -> Float[Array, 'batch height width']:
  """Joins tiles to pictures again, see `to_tiles`.

  Args:
    tiles: the tiles, row by row.
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
  """
  rows, columns = -(-height // SIDE), -(-width // SIDE)
  cut = jnp.moveaxis(tiles.reshape(-1, rows, columns, SIDE, SIDE), 2, 3)
  return cut.reshape(-1, rows * SIDE, columns * SIDE)[:, :height, :width]
