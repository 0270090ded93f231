"""The data of one hand of a photo: mesh, joints, sigmas, position, and MANO parameters."""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.detection.reading import DetectedHand
from hand_jax.reconstruction.camera_placement import PhotoCamera
from hand_jax.student_t import interval_in_sigmas
from hand_jax.types import HandParameters

MaskSource = Literal['none', 'given', 'estimated']
"""Where the mask of the hand comes from that tells of objects before the hand."""


@dataclasses.dataclass(frozen=True, eq=False)
class HandData:
  """Holds the data of a hand, in metres, with the wrist at the origin, x right, y down, z away.

  `branch` names the source of the Gaussians: the posterior ('posterior'), a prior-net that was
  trained alone ('prior'), or the calibrated Laplace approximation of a fit ('fit'). A left hand was
  estimated on the mirrored photo and mirrored back. Only its
  `parameters`, `camera_mean` and `camera_log_variance` still belong to the mirrored right hand.
  """

  vertices: Float[np.ndarray, 'vertices 3']
  joints: Float[np.ndarray, 'joints 3']
  faces: Int[np.ndarray, 'faces 3']
  vertex_sigma_mm: Float[np.ndarray, ' vertices']
  vertex_visible: Bool[np.ndarray, ' vertices']
  """Whether a vertex is inside the photo and not behind the hand itself.

  Where `mask_source` names a mask, vertices behind other objects count as hidden too.
  """
  vertex_colors: Float[np.ndarray, 'vertices 3'] | None
  """Display RGB in [0, 1] with the photo's light, or None from a network without texture."""
  vertices_image: Float[np.ndarray, 'vertices 2']
  """The vertices in pixels of the photo, like `joints_image`."""
  joint_sigma_mm: Float[np.ndarray, ' joints']
  joint_sigma_xyz_mm: Float[np.ndarray, 'joints 3']
  """Sigma along each axis. `joint_sigma_mm` is the root of the mean of their squares."""
  joints_image: Float[np.ndarray, 'joints 2']
  """Pixels of the upright photo, the first pixel's centre at (0.5, 0.5)."""
  pixels_per_metre: float
  """The scale of weak perspective: (x, y) times this, plus the wrist's pixel, gives pixels."""
  wrist_camera: Float[np.ndarray, '3']
  """The wrist in camera space, in metres. There `camera` projects the joints to `joints_image`."""
  camera: PhotoCamera
  """The photo's camera, with the focal length that `wrist_camera` was computed with."""
  is_left: bool
  box_xywh: Float[np.ndarray, '4']
  crop_affine: Float[np.ndarray, '3 3']
  """Maps pixels of the photo to pixels of the network's crop, which is mirrored for a left hand."""
  crop_side: int
  parameters: HandParameters | None
  """MANO parameters whose mesh is the nearest to `vertices`."""
  parameters_error_mm: float
  """The mean distance of that mesh from `vertices`. It is 0 if the two are the same mesh."""
  branch: str
  hand_model: str
  """The name of the hand model, see `hand_model_name`. The free hand has texture coordinates."""
  camera_mean: Float[np.ndarray, '10'] | None
  """The camera that a network estimates. A fit has none."""
  camera_log_variance: Float[np.ndarray, '10'] | None
  photo: UInt8[np.ndarray, 'height width 3'] = dataclasses.field(repr=False)
  """The upright photo, at reduced size where it is very large."""
  photo_name: str
  photo_scale: float = 1.0
  """The size of `photo` relative to the whole photo, whose pixels all other fields are in."""
  whole_size: tuple[int, int] | None = None
  """Width and height of the whole photo in pixels, or None where `photo` is the whole one."""
  file_stem: str = 'hand'
  """The beginning of its files' names. Several hands of a photo are numbered."""
  given_box: int | None = None
  """The number of the given box that it was found in, counted from 0, or None without boxes."""
  detection: DetectedHand | None = dataclasses.field(default=None, repr=False)
  """The output of the detection networks for this hand, if they were run."""
  mask_source: MaskSource = 'none'
  sigma_degrees_of_freedom: float | None = None
  """Those of Student's t, which the errors of a fit follow, or None for the Gaussian of a network.

  In both, sigma is half of the width of the 68.3 % interval.
  """

  @property
  def photo_size(self) -> tuple[int, int]:
    """Returns width and height of the whole upright photo in pixels."""
    return self.whole_size or (self.photo.shape[1], self.photo.shape[0])

  @property
  def side(self) -> Literal['left', 'right']:
    """Returns the side of the hand."""
    return 'left' if self.is_left else 'right'

  @property
  def vertices_camera(self) -> Float[np.ndarray, 'vertices 3']:
    """Returns the vertices in camera space, in metres."""
    return (self.vertices + self.wrist_camera[None]).astype(np.float32)

  @property
  def joints_camera(self) -> Float[np.ndarray, 'joints 3']:
    """Returns the joints in camera space, in metres."""
    return (self.joints + self.wrist_camera[None]).astype(np.float32)

  @property
  def depth_sigma_m(self) -> float:
    """Returns one sigma of the wrist's depth in metres, see `camera_placement`."""
    return float(self.wrist_camera[2]) * self.camera.relative_depth_sigma

  def interval_in_sigmas(self, level: float) -> float:
    """Returns half the width of the interval that holds a share of the errors, in sigmas.

    With `interval_in_sigmas(0.95) * joint_sigma_xyz_mm` on both sides of a coordinate, the interval
    is expected to hold the truth in 95 of 100 cases.

    Args:
      level: the share, between 0 and 1.

    Raises:
      ValueError: the level is not between 0 and 1.
    """
    return interval_in_sigmas(level, self.sigma_degrees_of_freedom or math.inf)

  @property
  def is_free_hand(self) -> bool:
    """Returns whether the mesh has the free hand's texture coordinates. MANO's has none."""
    return self.hand_model.startswith('free hand')
