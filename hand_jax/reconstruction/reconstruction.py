"""What is known of one hand of a photo: mesh, joints, their sigmas, place, and MANO parameters."""

import base64
import dataclasses
import html
import os
import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.detection.reading import DetectedHand
from hand_jax.reconstruction.camera_placement import PhotoCamera
from hand_jax.types import HandParameters

Axes = Literal['y_up', 'camera']


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """A hand of a photo. Metres, wrist at the origin, camera axes (x right, y down, z away).

  `branch` tells whose Gaussians these are: the posterior's, those of a prior-net trained alone
  ('prior'), or Laplace's approximation of a fit, calibrated ('fit').
  A left hand was estimated on the mirrored photo and mirrored back, except `parameters`,
  `camera_mean` and `camera_log_variance`: those are of the mirrored right hand.
  """

  vertices: Float[np.ndarray, 'vertices 3']
  joints: Float[np.ndarray, 'joints 3']
  faces: Int[np.ndarray, 'faces 3']
  vertex_sigma_mm: Float[np.ndarray, ' vertices']
  vertex_visible: Bool[np.ndarray, ' vertices']
  """Inside the photo and not behind the hand itself; objects before the hand are not known."""
  vertex_colors: Float[np.ndarray, 'vertices 3'] | None
  """Display RGB in [0, 1], the photo's light included; None from a network without texture."""
  vertices_image: Float[np.ndarray, 'vertices 2']
  """Where the photo shows the vertices: pixels, as `joints_image`."""
  joint_sigma_mm: Float[np.ndarray, ' joints']
  joint_sigma_xyz_mm: Float[np.ndarray, 'joints 3']
  """Along each of the camera's axes; `joint_sigma_mm` is the root of the mean of their squares."""
  joints_image: Float[np.ndarray, 'joints 2']
  """Pixels of the upright photo, the first pixel's centre at (0.5, 0.5)."""
  pixels_per_metre: float
  """Weak perspective: a point's pixel is this times its x, y, plus the wrist's pixel."""
  wrist_camera: Float[np.ndarray, '3']
  """The wrist in camera space, metres: where `camera` sees the joints at `joints_image`."""
  camera: PhotoCamera
  """The photo's camera, with the focal length that `wrist_camera` rests on."""
  is_left: bool
  box_xywh: Float[np.ndarray, '4']
  crop_affine: Float[np.ndarray, '3 3']
  """Pixels of the photo to pixels of the network's crop, which is mirrored for a left hand."""
  crop_side: int
  parameters: HandParameters | None
  """MANO parameters whose mesh is the nearest to `vertices`."""
  parameters_error_mm: float
  """How far the vertices of that mesh are from `vertices` on average: 0 where it is the mesh."""
  branch: str
  hand_model: str
  """Whose mesh it is, see `hand_model_name`: the free hand's has texture coordinates."""
  camera_mean: Float[np.ndarray, '10'] | None
  """The camera that a network estimates; a fit has none."""
  camera_log_variance: Float[np.ndarray, '10'] | None
  photo: UInt8[np.ndarray, 'height width 3'] = dataclasses.field(repr=False)
  """The upright photo."""
  photo_name: str
  detection: DetectedHand | None = dataclasses.field(default=None, repr=False)
  """What the detection networks say of the hand, where they were asked."""

  @property
  def side(self) -> Literal['left', 'right']:
    """Which hand it is."""
    return 'left' if self.is_left else 'right'

  @property
  def vertices_camera(self) -> Float[np.ndarray, 'vertices 3']:
    """The vertices in camera space, metres."""
    return (self.vertices + self.wrist_camera[None]).astype(np.float32)

  @property
  def joints_camera(self) -> Float[np.ndarray, 'joints 3']:
    """The joints in camera space, metres."""
    return (self.joints + self.wrist_camera[None]).astype(np.float32)

  @property
  def depth_sigma_m(self) -> float:
    """One sigma of the wrist's distance along the view, metres, see `camera_placement`."""
    return float(self.wrist_camera[2]) * self.camera.relative_depth_sigma

  @property
  def is_free_hand(self) -> bool:
    """Whether the mesh has the free hand's texture coordinates; MANO's has none."""
    return self.hand_model.startswith('free hand')

  def save(
    self,
    folder: str | os.PathLike,
    name: str | None = None,
    axes: Axes = 'y_up',
    overwrite: bool = False,
  ) -> list[pathlib.Path]:
    """Writes the hand's meshes, pictures and numbers, and returns their paths.

    Args:
      folder: is made where it is missing.
      name: what the files' names begin with. None means the photo's name without its suffix.
      axes: of OBJ and PLY: 'y_up' as GLB has, or 'camera'.
      overwrite: replaces files of these names.

    Raises:
      FileExistsError: a file of such a name is there.
      NotADirectoryError, PermissionError: nothing can be written to the folder.
    """
    from hand_jax.reconstruction.files import check_free, output_suffixes, write_reconstruction

    name = pathlib.Path(self.photo_name).stem if name is None else name
    if not overwrite:
      suffixes = output_suffixes(self.vertex_colors is not None, self.is_free_hand)
      check_free([pathlib.Path(folder) / f'{name}{suffix}' for suffix in suffixes])
    return write_reconstruction(self, name, folder, axes)

  def _repr_html_(self) -> str:
    """The hand over its photo with its main figures, for notebooks."""
    from hand_jax.reconstruction.meshes import png_bytes
    from hand_jax.reconstruction.views import overlay_image

    picture = base64.b64encode(png_bytes(overlay_image(self))).decode()
    sigma, distance = self.vertex_sigma_mm, float(self.wrist_camera[2])
    rows = {
      'hand': f'{self.side} ({self.hand_model}, {len(self.vertices)} vertices)',
      'sigma of the vertices': f'{sigma.mean():.1f} mm on average, '
      f'{sigma.min():.1f} to {sigma.max():.1f}',
      'distance of the wrist': f'{distance:.2f} m, give or take {self.depth_sigma_m:.2f}',
      'focal length': f'{self.camera.focal_length_px:.0f} pixels, {self.camera.source_text}',
    }
    cells = ''.join(
      f'<tr><th style="text-align:left">{html.escape(key)}</th>'
      f'<td style="text-align:left">{html.escape(value)}</td></tr>'
      for key, value in rows.items()
    )
    alternative = html.escape(f'The {self.side} hand of {self.photo_name} and its mesh', quote=True)
    return (
      f'<img alt="{alternative}" style="max-width:100%" src="data:image/png;base64,{picture}">'
      f'<table>{cells}</table>'
    )
