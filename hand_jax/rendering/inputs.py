"""What the rendering functions take: one check of meshes, with errors that say what was expected.

NumPy arrays, integers and half precision are welcome; all is drawn in float32, or in float64 where
the caller has enabled that and asks for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hand_jax.types import ArrayLike

Scalar = float | int | np.generic | Float[Array, '']
# Of sigma and gamma; the square of its reciprocal is far inside float32.
_SMALLEST_SETTING = 1e-12


def checked_mesh(
  vertices: ArrayLike,
  faces: ArrayLike,
  channels: tuple[int, ...] | None = (3,),
  name: str = 'vertices_image',
) -> tuple[Array, Int[Array, 'faces 3']]:
  """Values per vertex as float32 (float64 stays), (batch, V, channels), and faces as int32, (F, 3).

  `channels` are the sizes that the last axis may have, None for any; `name` is for messages. Raises
  ValueError for another shape, values that are not real numbers, faces that are not integers, and
  vertex ids out of range. The ids of traced faces are unknown and not checked.
  """
  vertices, faces = _array(vertices), _array(faces)
  last = 'channels' if channels is None else ' or '.join(map(str, channels))
  expected = f'expected (batch, vertices, {last})'
  if vertices.ndim != 3 or (channels is not None and vertices.shape[2] not in channels):
    raise ValueError(f'{name} has shape {vertices.shape}, {expected}')
  dtype = jnp.promote_types(vertices.dtype, jnp.float32)
  if vertices.dtype == bool or not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f'{name} holds {vertices.dtype}, expected real numbers')
  if faces.ndim != 2 or faces.shape[1] != 3:
    raise ValueError(f'faces has shape {faces.shape}, expected (faces, 3)')
  if not jnp.issubdtype(faces.dtype, jnp.integer):
    raise ValueError(f'faces holds {faces.dtype}, expected integers: ids of vertices')
  _check_ids(faces, vertices.shape[1])
  return jnp.asarray(vertices, jax.dtypes.canonicalize_dtype(dtype)), jnp.asarray(faces, jnp.int32)


def _array(values) -> ArrayLike:
  return values if isinstance(values, jax.Array) else np.asarray(values)


def _check_ids(faces: ArrayLike, count: int) -> None:
  known = isinstance(faces, np.ndarray) or (
    not isinstance(faces, jax.core.Tracer) and faces.is_fully_addressable
  )
  if not known or faces.size == 0:
    return
  low, high = np.min(np.asarray(faces)), np.max(np.asarray(faces))
  if low < 0 or high >= count:
    raise ValueError(
      f'faces names vertices {low} to {high}, expected ids from 0 to {count - 1}:'
      f' there are {count} vertices'
    )


def check_setting(name: str, value: Scalar) -> None:
  """Raises ValueError for a setting below 1e-12 or not finite; a traced one is not checked."""
  if not isinstance(value, jax.core.Tracer) and not _SMALLEST_SETTING <= float(value) < np.inf:
    raise ValueError(f'{name} must be a number of at least {_SMALLEST_SETTING}, got {value}')
