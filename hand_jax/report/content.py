"""Plain values that describe the photos and hands of a report.

They do not depend on the files in which the program stores its results.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.types import ArrayLike


class ReportPicture(NamedTuple):
  """A picture of a hand in sRGB, with a caption of a few words."""

  caption: str
  image: UInt8[ArrayLike, 'height width 3']


class ReportHand(NamedTuple):
  """One hand of a photo, as the report shows it.

  Attributes:
    name: the stem of the hand's files, such as `photo_1_right`.
    side: `right` or `left`.
    score: probability that there is a hand. It is None where the box was given.
    side_score: probability that the side is correct. It is None where the side was given.
    box_xywh: left, top, width and height in pixels of the upright photo.
    vertices: metres, wrist at the origin, camera axes (x right, y down, z away from the camera).
    joints: the 21 standard joints, like `vertices`.
    faces: vertex numbers of each triangle.
    vertex_sigma_mm: how uncertain each vertex is, in millimetres.
    joint_sigma_mm: how uncertain each joint is, in millimetres.
    vertex_visible: whether the photo shows the vertex.
    vertex_colors: sRGB in [0, 1], or None where no texture was estimated.
    wrist_camera: the wrist in the camera, metres, camera axes.
    depth_sigma_m: how uncertain the wrist's depth is, in metres.
    focal_length_px: in pixels of the upright photo.
    focal_source: where the focal length comes from, in words such as `from the EXIF data`.
    hand_model: name of the hand model, such as `free hand 2`.
    pictures: the pictures that are shown beside the 3D view.
    files: the hand's files, as names relative to the report's folder.
  """

  name: str
  side: str
  score: float | None
  side_score: float | None
  box_xywh: Float[ArrayLike, '4']
  vertices: Float[ArrayLike, 'vertices 3']
  joints: Float[ArrayLike, 'joints 3']
  faces: Int[ArrayLike, 'faces 3']
  vertex_sigma_mm: Float[ArrayLike, 'vertices']
  joint_sigma_mm: Float[ArrayLike, 'joints']
  vertex_visible: Bool[ArrayLike, 'vertices']
  vertex_colors: Float[ArrayLike, 'vertices 3'] | None
  wrist_camera: Float[ArrayLike, '3']
  depth_sigma_m: float
  focal_length_px: float
  focal_source: str
  hand_model: str
  pictures: tuple[ReportPicture, ...]
  files: tuple[str, ...]


class ReportPhoto(NamedTuple):
  """One photo of a report.

  Attributes:
    photo: its path as the user gave it.
    picture: the photo, scaled down, with numbered boxes. It is None where no photo was read.
    hands: its hands in the order of the boxes' numbers, which begin at 1.
    seconds: how long its hands took, or None where that is unknown.
    error: why it could not be read or reconstructed, or None.
    files: the files of the photo as a whole, as names relative to the report's folder.
  """

  photo: str
  picture: UInt8[ArrayLike, 'height width 3'] | None
  hands: tuple[ReportHand, ...]
  seconds: float | None
  error: str | None
  files: tuple[str, ...] = ()
