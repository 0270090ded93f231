"""Checks the meshes and settings of rendering functions, with errors that name the expectation.

NumPy arrays, integers and half precision are accepted. Everything is drawn in float32, or in
float64 if the caller has enabled it and passes float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from hand_jax.types import ArrayLike

Scalar = float | int | np.number | Float[Array, '']
# Smallest value of sigma and gamma. The square of its reciprocal is far inside float32's range.
_SMALLEST_SETTING = 1e-12


def checked_mesh(
  vertices: ArrayLike,
  faces: ArrayLike,
  channels: tuple[int, ...] | None = (3,),
  name: str = 'vertices_image',
) -> tuple[Array, Int[Array, 'faces 3']]:
  """Checks a mesh and converts it to floating-point values per vertex and int32 faces.

  The ids of traced faces are unknown and not checked.

  Args:
    vertices: values per vertex. They become float32, or stay float64.
    faces: vertex ids.
    channels: the sizes that the last axis of `vertices` may have. None allows any size.
    name: name of `vertices` in error messages.

  Returns:
    The values, (batch, vertices, channels), and the faces.

  Raises:
    ValueError: a shape is wrong, values are not real numbers, faces are not integers, or a vertex
      id is out of range.
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
    not isinstance(faces, Tracer) and faces.is_fully_addressable
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
  """Checks that a setting is finite and at least 1e-12. A traced setting is not checked.

  Raises:
    ValueError: the setting is smaller or not finite.
  """
  if not isinstance(value, Tracer) and not _SMALLEST_SETTING <= float(value) < np.inf:
    raise ValueError(f'{name} must be a number of at least {_SMALLEST_SETTING}, got {value}')
