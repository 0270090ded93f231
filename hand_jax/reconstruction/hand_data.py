"""What is known of one hand of a photo: mesh, joints, their sigmas, place, and MANO parameters."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.detection.reading import DetectedHand
from hand_jax.reconstruction.camera_placement import PhotoCamera
from hand_jax.types import HandParameters


@dataclasses.dataclass(frozen=True, eq=False)
class HandData:
  """Holds what is known of a hand: metres, the wrist at the origin, x right, y down, z away.

  `branch` tells whose Gaussians these are: those of the posterior ('posterior'), those of a
  prior-net that was trained alone ('prior'), or Laplace's approximation of a fit ('fit'), which
  is calibrated. A left hand was estimated on the mirrored photo and mirrored back. Only its
  `parameters`, `camera_mean` and `camera_log_variance` still belong to the mirrored right hand.
  """

  vertices: Float[np.ndarray, 'vertices 3']
  joints: Float[np.ndarray, 'joints 3']
  faces: Int[np.ndarray, 'faces 3']
  vertex_sigma_mm: Float[np.ndarray, ' vertices']
  vertex_visible: Bool[np.ndarray, ' vertices']
  """Lies inside the photo and not behind the hand itself. Objects before the hand are not known."""
  vertex_colors: Float[np.ndarray, 'vertices 3'] | None
  """Display RGB in [0, 1] with the photo's light, or None from a network without texture."""
  vertices_image: Float[np.ndarray, 'vertices 2']
  """Where the photo shows the vertices: pixels, as `joints_image`."""
  joint_sigma_mm: Float[np.ndarray, ' joints']
  joint_sigma_xyz_mm: Float[np.ndarray, 'joints 3']
  """Sigma along each axis. `joint_sigma_mm` is the root of the mean of their squares."""
  joints_image: Float[np.ndarray, 'joints 2']
  """Pixels of the upright photo, the first pixel's centre at (0.5, 0.5)."""
  pixels_per_metre: float
  """Maps x, y to pixels in weak perspective: times this, plus the wrist's pixel."""
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
  """The camera that a network estimates. A fit has none."""
  camera_log_variance: Float[np.ndarray, '10'] | None
  photo: UInt8[np.ndarray, 'height width 3'] = dataclasses.field(repr=False)
  """The upright photo, at reduced size where it is very large."""
  photo_name: str
  photo_scale: float = 1.0
  """Pixels of `photo` for a pixel of the whole photo, whose pixels all other fields are in."""
  whole_size: tuple[int, int] | None = None
  """Width and height of the whole photo in pixels, or None where `photo` is the whole one."""
  file_stem: str = 'hand'
  """What the names of its files begin with. Several hands of a photo are numbered."""
  given_box: int | None = None
  """Which of the boxes that the caller gave it was found in, counted from 0. None: of none."""
  detection: DetectedHand | None = dataclasses.field(default=None, repr=False)
  """What the detection networks say of the hand, where they were asked."""

  @property
  def photo_size(self) -> tuple[int, int]:
    """Tells width and height of the whole upright photo in pixels."""
    return self.whole_size or (self.photo.shape[1], self.photo.shape[0])

  @property
  def side(self) -> Literal['left', 'right']:
    """Tells which hand it is."""
    return 'left' if self.is_left else 'right'

  @property
  def vertices_camera(self) -> Float[np.ndarray, 'vertices 3']:
    """Places the vertices in camera space, in metres."""
    return (self.vertices + self.wrist_camera[None]).astype(np.float32)

  @property
  def joints_camera(self) -> Float[np.ndarray, 'joints 3']:
    """Places the joints in camera space, in metres."""
    return (self.joints + self.wrist_camera[None]).astype(np.float32)

  @property
  def depth_sigma_m(self) -> float:
    """Tells one sigma of the wrist's distance along the view in metres, see `camera_placement`."""
    return float(self.wrist_camera[2]) * self.camera.relative_depth_sigma

  @property
  def is_free_hand(self) -> bool:
    """Tells whether the mesh has the free hand's texture coordinates. MANO's has none."""
    return self.hand_model.startswith('free hand')
