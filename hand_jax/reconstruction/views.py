"""Pictures of a reconstruction over its photo, upright and unmirrored."""

import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.geometry.cameras import crop_affine, transform_points
from hand_jax.geometry.warping import warp_image
from hand_jax.reconstruction.meshes import legend_image, sigma_colors, sigma_range_mm
from hand_jax.reconstruction.reconstruct import Reconstruction
from hand_jax.rendering.overlay import PAPER, overlay_panels, texture_panels

PANEL_SIDE = 480


def display_vertices(
  reconstruction: Reconstruction, crop_side: int
) -> Float[np.ndarray, 'vertices 3']:
  """Vertices in pixels of an upright, unmirrored crop of the photo at `crop_side`; depth too."""
  to_crop, pixels = display_affine(reconstruction, crop_side)
  scale = reconstruction.pixels_per_metre
  depth = scale * pixels * reconstruction.vertices[:, 2:]
  return np.concatenate(
    [transform_points(to_crop, reconstruction.vertices_image.astype(np.float64)), depth], axis=1
  )


def display_affine(
  reconstruction: Reconstruction, side: int
) -> tuple[Float[np.ndarray, '3 3'], float]:
  """Photo to the network's crop at another size, never mirrored; its scale."""
  crop_to_photo = np.linalg.inv(reconstruction.crop_affine)
  network_side = reconstruction.crop_side
  corners = transform_points(
    crop_to_photo, np.array([[0.0, 0.0], [network_side, network_side]], np.float64)
  )
  low, high = corners.min(axis=0), corners.max(axis=0)
  box = np.array([*low, *(high - low)])
  return crop_affine(box, side, 1.0), float(side / (high - low).max())


def display_crop(
  reconstruction: Reconstruction, image: UInt8[np.ndarray, 'height width 3'], side: int
) -> Float[np.ndarray, 'side side 3']:
  """What the network saw of the photo, at another size: colours in [0, 1], paper outside it."""
  to_crop, _ = display_affine(reconstruction, side)
  inside = warp_image(np.full_like(image, 255), to_crop, side) / np.float32(255)
  return warp_image(image, to_crop, side) / np.float32(255) + PAPER * (1 - inside)


def overlay_image(
  reconstruction: Reconstruction, image: UInt8[np.ndarray, 'height width 3']
) -> UInt8[np.ndarray, 'panel_height width2 3']:
  """Photo crop, mesh over it, and the mesh coloured by sigma with its legend, side by side."""
  range_mm = sigma_range_mm(reconstruction.vertex_sigma_mm)
  return overlay_panels(
    display_crop(reconstruction, image, PANEL_SIDE),
    display_vertices(reconstruction, PANEL_SIDE),
    reconstruction.faces,
    sigma_colors(reconstruction.vertex_sigma_mm, range_mm),
    legend_image(range_mm, PANEL_SIDE),
  )


def texture_image(
  reconstruction: Reconstruction, image: UInt8[np.ndarray, 'height width 3']
) -> UInt8[np.ndarray, 'panel_height width2 3']:
  """Photo crop, the hand in its own colours over it, and the same hand from two other views.

  Of a reconstruction that has `vertex_colors`.
  """
  return texture_panels(
    display_crop(reconstruction, image, PANEL_SIDE),
    display_vertices(reconstruction, PANEL_SIDE),
    reconstruction.faces,
    reconstruction.vertex_colors,
  )
