"""The named tuples that cross module borders.

A name carries its frame:

- `hand` is in metres with the wrist at the origin and the global orientation removed.
- `root` is in metres with the wrist at the origin, in camera axes.
- `camera` is in metres with x right, y down and z forward from the camera.
- `image` is in pixels, and the first pixel's centre is (0.5, 0.5).
- `normalized` is [-1, 1] over the crop.

A hand has V = 778 vertices, F = 1538 faces and K = 21 joints in the standard order (see
`hand_jax.mano.joints`).
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ArrayLike = jax.Array | np.ndarray


class HandParameters(NamedTuple):
  """MANO's inputs. Rotations are axis-angle in radians, and `transl` is in metres.

  `hand_pose` is relative to the zero pose, which is a flat hand.
  """

  global_orient: Float[ArrayLike, '*batch 3']
  hand_pose: Float[ArrayLike, '*batch 45']
  betas: Float[ArrayLike, '*batch shapes']
  transl: Float[ArrayLike, '*batch 3']


class HandMesh(NamedTuple):
  """A posed hand: vertices and the 21 standard joints in metres, and the vertex ids of faces."""

  vertices: Float[Array, '*batch vertices 3']
  joints: Float[Array, '*batch joints 3']
  faces: Int[Array, 'faces 3']


class ManoModel(NamedTuple):
  """The constants of one hand model with MANO's structure, in metres.

  All fields are arrays, so that JAX can trace the model. `joint_regressor` gives the 16 chain
  joints in MANO's own order. `fingertip_vertices` are vertex ids from thumb to little finger.
  `hands_mean` is the relaxed pose relative to the zero pose. The rows of `hands_components` are
  the principal components of poses, largest variance first.
  """

  v_template: Float[Array, 'vertices 3']
  shapedirs: Float[Array, 'vertices 3 shapes']
  posedirs: Float[Array, 'vertices 3 135']
  joint_regressor: Float[Array, '16 vertices']
  lbs_weights: Float[Array, 'vertices 16']
  faces: Int[Array, 'faces 3']
  hands_mean: Float[Array, '45']
  hands_components: Float[Array, '45 45']
  fingertip_vertices: Int[Array, '5']


class DiagonalGaussian(NamedTuple):
  """Independent normal variables. `log_variance` is the natural logarithm of the variance."""

  mean: Float[Array, '*shape']
  log_variance: Float[Array, '*shape']


class LowRankGaussian(NamedTuple):
  """Normal variables with common causes: mean + own error + factor @ causes, causes ~ N(0, 1).

  The covariance is diagonal plus low rank.
  """

  mean: Float[Array, '*shape']
  own_log_variance: Float[Array, '*shape']
  """Natural logarithm of the variance that each variable has by itself."""
  factor: Float[Array, '*shape causes']
  """How far one deviation of each common cause moves the variable."""


class HandCamera(NamedTuple):
  """The paper's weak-perspective camera C = (R, T, s), stored so that its numbers are of order one.

  See docs/derivations.md.
  """

  rotation_6d: Float[ArrayLike, '*batch 6']
  """The first two columns of R, one after the other. x @ R takes the hand frame to camera axes."""
  translation: Float[ArrayLike, '*batch 3']
  """T_x and T_y in normalised crop coordinates, and T_z, the root's depth, in metres."""
  scale: Float[ArrayLike, '*batch 1']
  """Normalised crop units per decimetre."""


class PerspectiveCamera(NamedTuple):
  """A pinhole camera, with focal lengths and principal point in pixels."""

  focal_length: Float[ArrayLike, '*batch 2']
  principal_point: Float[ArrayLike, '*batch 2']


class ImageFeatures(NamedTuple):
  """The output of a backbone. Features that were read from a prepared data set have no maps.

  Only the landmark network gives `landmarks`, `world_landmarks` and `middle_map`.
  """

  global_feature: Float[Array, 'batch channels']
  """The pooled vector."""
  shallow_map: Float[Array, 'batch height width channels'] | None
  """The map of half the crop's resolution."""
  landmarks: Float[Array, 'batch 21 3'] | None = None
  """x and y in [-1, 1] over the crop, and the depth beyond the wrist in the same unit."""
  last_map: Float[Array, 'batch _h _w channels'] | None = None
  """The map whose mean is the pooled vector."""
  world_landmarks: Float[Array, 'batch 21 3'] | None = None
  """Metres, in the axes of the crop. The origin is near the hand's centre."""
  middle_map: Float[Array, 'batch _height _width middle'] | None = None
  """A map of finer resolution than the last one."""
  reduced_maps: tuple[Float[Array, 'batch _h1 _w1 c'], Float[Array, 'batch _h2 _w2 c']] | None = (
    None
  )
  """The last and the middle map with their channels reduced by `map_projection`, where a prepared
  data set holds them."""


class CorrelatedGaussians(NamedTuple):
  """A branch's Gaussians with what their variables have in common, in the frames of the others."""

  vertices: LowRankGaussian
  joints: LowRankGaussian
  joints_normalized: LowRankGaussian


class HandGaussians(NamedTuple):
  """All uncertain outputs of one branch, the prior or the posterior."""

  vertices: DiagonalGaussian
  """Metres, hand frame."""
  joints: DiagonalGaussian
  """Metres, hand frame."""
  joints_normalized: DiagonalGaussian
  """Projections of the joints, in [-1, 1] over the crop."""
  correlated: CorrelatedGaussians | None = None
  """Where the variables have common causes: the whole Gaussians, whose marginals are the above."""


class HandEstimate(NamedTuple):
  """The network's output for a batch. `camera` is a Gaussian over the ten stored numbers.

  A network with a single branch (`model.branches`) leaves the other branch None, and a network
  without the prior-net also leaves `parameters` None. `vertex_colors` come from the texture branch
  and are None without it. They are display RGB in [0, 1] and include the light on the hand.
  """

  parameters: HandParameters | None
  camera: DiagonalGaussian
  prior: HandGaussians | None
  posterior: HandGaussians | None
  vertex_colors: Float[Array, 'batch vertices 3'] | None = None


class Fragments(NamedTuple):
  """The face that each pixel shows, the place on it and its depth.

  Pixels that show no face have the face -1, barycentrics 0 and depth +inf.
  """

  face_index: Int[Array, 'batch height width']
  barycentric: Float[Array, 'batch height width 3']
  depth: Float[Array, 'batch height width']


class RenderedHand(NamedTuple):
  """A hand drawn into its crop: display RGB in [0, 1], and the pixels that the hand covers.

  In a hard drawing the silhouette is true or false, and the colour outside it is 0. In a soft
  drawing the silhouette is a share in [0, 1], and the colour is blended with the background's.
  """

  rgb: Float[Array, 'batch height width 3']
  silhouette: Bool[Array, 'batch height width'] | Float[Array, 'batch height width']


SILHOUETTE_FULL, SILHOUETTE_UNKNOWN = 254, 255
"""Levels of `HandBatch.silhouette`: a pixel that shows nothing but the hand, and one of which it is
not known whether the hand is there, because something may hide it."""


class HandBatch(NamedTuple):
  """A batch of crops and labels. It always has the same fields, and absent labels are masked.

  Left hands are mirrored into right ones together with their labels, and `is_left` marks them. A
  masked field may hold anything, NaN included. `example_id` holds strings, which stay on the host:
  on a device it is None. `features` that were read from a prepared data set replace the image,
  which is then black, and its hand mask. Where an objective asks for it (`loss.silhouette`),
  `silhouette` holds a small hand mask in either case.
  """

  image: Any  # (batch, side, side, 3) uint8 RGB
  example_id: Any  # (batch,) str
  global_index: Any  # (batch,) int32, position in the source, which also seeds the example's noise
  is_left: Any  # (batch,) bool, True where the photo showed a left hand
  vertices_hand: Any  # (batch, V, 3) float32
  joints_hand: Any  # (batch, K, 3) float32
  has_3d: Any  # (batch,) bool, for both of the above
  joints_normalized: Any  # (batch, K, 2) float32
  joint_confidence: Any  # (batch, K) float32, 0 where a joint is unknown
  camera: Any  # (batch, 10) float32, HandCamera's order and scaling
  camera_mask: Any  # (batch, 10) bool
  intrinsics: Any  # (batch, 3, 3) float32, of the crop
  root_camera: Any  # (batch, 3) float32, the wrist in camera space
  has_root: Any  # (batch,) bool
  hand_mask: Any  # (batch, side, side) bool, True where the photo shows the hand unoccluded
  has_mask: Any  # (batch,) bool
  vertex_colors: Any  # (batch, V, 3) float32, display RGB in [0, 1], also of hidden vertices
  vertex_visible: Any  # (batch, V) bool, True where the crop shows the vertex
  has_vertex_colors: Any  # (batch,) bool, for both of the above
  is_padding: Any  # (batch,) bool, True for examples that fill up a last batch and count nowhere
  features: ImageFeatures | None = None  # float32, a frozen backbone's output for the crop
  # (batch, small, small) uint8: `SILHOUETTE_FULL` times the share of the pixel that shows the hand,
  # or `SILHOUETTE_UNKNOWN`
  silhouette: Any = None
