"""Vertices that a camera cannot see because they lie at or behind it.

The rasterizer does not clip: it drops each face that has a vertex with NaN. These functions set NaN
for vertices nearer than the near plane, with gradients that are exactly zero there, whatever the
projection of such a vertex gives.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.geometry.cameras import NEAR_M, project_perspective
from hand_jax.types import PerspectiveCamera


def drop_near_vertices(
  vertices_image: Float[Array, '*batch vertices 3'], near: float = NEAR_M
) -> Float[Array, '*batch vertices 3']:
  """Image vertices with NaN in all coordinates of those whose depth is below `near`, or NaN.

  `near` in depth's unit, above zero for depths measured from the camera. The gradient for a dropped
  vertex is zero; a projection before this call must have finite derivatives at it, as
  `project_perspective` has at any finite point (`project_in_front` needs no such care).
  """
  # Not `depth < near`: NaN compares as false, and must be dropped.
  kept = jnp.all(jnp.isfinite(vertices_image), axis=-1) & (vertices_image[..., 2] >= near)
  return jnp.where(kept[..., None], vertices_image, jnp.nan)


def project_in_front(
  camera: PerspectiveCamera,
  points_camera: Float[Array, '*batch vertices 3'],
  near_m: float = NEAR_M,
) -> Float[Array, '*batch vertices 3']:
  """Pixels and depth (metres) of points in camera space, as the rasterizer takes them.

  Points nearer than `near_m`, behind the camera or not finite become NaN and are not drawn; their
  gradients are exactly zero. Raises ValueError when `near_m` is below the depth from which
  `project_perspective` projects, `NEAR_M`.
  """
  if near_m < NEAR_M:
    raise ValueError(f'near_m is {near_m}, expected at least {NEAR_M} metres')
  finite = jnp.all(jnp.isfinite(points_camera), axis=-1)
  kept = (finite & (points_camera[..., 2] >= near_m))[..., None]
  # A stand-in before the camera: what is dropped multiplies its zero gradient by finite numbers.
  safe = jnp.where(kept, points_camera, 1)
  pixels = project_perspective(camera, safe)
  return jnp.where(kept, jnp.concatenate([pixels, safe[..., 2:]], axis=-1), jnp.nan)
