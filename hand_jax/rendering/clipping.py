"""Removes vertices that a camera cannot see because they lie at or behind it.

The rasterizer does not clip: it drops each face that has a vertex with NaN. These functions set NaN
for vertices nearer than the near plane. Their gradients are exactly zero there, whatever the
projection of such a vertex gives.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.geometry.cameras import NEAR_M, project_perspective
from hand_jax.types import PerspectiveCamera


def drop_near_vertices(
  vertices_image: Float[Array, '*batch vertices 3'], near: float = NEAR_M
) -> Float[Array, '*batch vertices 3']:
  """Sets all coordinates to NaN for vertices whose depth is below `near`.

  A vertex that has a coordinate which is not finite becomes NaN in all coordinates too. The
  gradient for a dropped vertex is zero, provided that the projection before this call has finite
  derivatives at it. `project_perspective` has them at any finite point. `project_in_front` handles
  all points itself.

  Args:
    vertices_image: pixel x, pixel y and depth.
    near: smallest depth that is kept, in the unit of the depths. It has to be above zero for depths
      measured from the camera.

  Returns:
    The vertices, with NaN for dropped ones.
  """
  # The test is not `depth < near`, because NaN compares as false and must be dropped.
  kept = jnp.all(jnp.isfinite(vertices_image), axis=-1) & (vertices_image[..., 2] >= near)
  return jnp.where(kept[..., None], vertices_image, jnp.nan)


def project_in_front(
  camera: PerspectiveCamera,
  points_camera: Float[Array, '*batch vertices 3'],
  near_m: float = NEAR_M,
) -> Float[Array, '*batch vertices 3']:
  """Projects points in camera space to pixels and depths for the rasterizer.

  Points that are nearer than `near_m`, behind the camera or not finite become NaN. They are not
  drawn, and their gradients are exactly zero.

  Args:
    camera: pinhole camera.
    points_camera: points in camera space, metres.
    near_m: smallest depth that is drawn, metres.

  Returns:
    Pixel x, pixel y and depth in metres.

  Raises:
    ValueError: `near_m` is below `NEAR_M`, under which `project_perspective` does not project.
  """
  if near_m < NEAR_M:
    raise ValueError(f'near_m is {near_m}, expected at least {NEAR_M} metres')
  finite = jnp.all(jnp.isfinite(points_camera), axis=-1)
  kept = (finite & (points_camera[..., 2] >= near_m))[..., None]
  # Dropped points are replaced by a safe point first, so that their zero gradient is not multiplied
  # by infinity or NaN.
  safe = jnp.where(kept, points_camera, 1)
  pixels = project_perspective(camera, safe)
  return jnp.where(kept, jnp.concatenate([pixels, safe[..., 2:]], axis=-1), jnp.nan)
