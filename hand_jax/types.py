"""The vocabulary: every named tuple that crosses a module border.

Frames: `hand` = metres, wrist at the origin, global orientation removed; `root` = metres, wrist at
the origin, camera axes; `camera` = metres, x right, y down, z forward; `image` = pixels with the
first pixel's centre at (0.5, 0.5); `normalized` = [-1, 1] over the crop. Sizes: V vertices (778),
F faces (1538), K = 21 joints in the standard order (see `hand_jax.mano.joints`).
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ArrayLike = jax.Array | np.ndarray


class HandParameters(NamedTuple):
  """MANO's inputs: axis-angle radians relative to zero pose (a flat hand), metres."""

  global_orient: Float[Array, '*batch 3']
  hand_pose: Float[Array, '*batch 45']
  betas: Float[Array, '*batch shapes']
  transl: Float[Array, '*batch 3']


class HandMesh(NamedTuple):
  """A posed hand: vertices and the 21 standard joints in metres, triangle vertex ids."""

  vertices: Float[Array, '*batch vertices 3']
  joints: Float[Array, '*batch joints 3']
  faces: Int[Array, 'faces 3']


class ManoModel(NamedTuple):
  """The constants of one hand model, MANO's structure; metres. Arrays only, so it can be traced.

  `joint_regressor` gives the 16 chain joints in MANO's own order; `fingertip_vertices` are vertex
  ids from thumb to little finger. `hands_mean` is the relaxed pose (relative to zero pose) and the
  rows of `hands_components` are its principal components, largest variance first.
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
  """Independent normal variables; `log_variance` is the natural logarithm of the variance."""

  mean: Float[Array, '*shape']
  log_variance: Float[Array, '*shape']


class HandCamera(NamedTuple):
  """The paper's C = (R, T, s), weak perspective, in its stored scaling (DERIVATIONS: order one).

  `rotation_6d`: first two columns of R in `x @ R` (hand frame to camera axes), column after column.
  `translation`: T_x, T_y in normalised crop coordinates, T_z (the root's depth) in metres.
  `scale`: normalised crop units per decimetre.
  """

  rotation_6d: Float[Array, '*batch 6']
  translation: Float[Array, '*batch 3']
  scale: Float[Array, '*batch 1']


class PerspectiveCamera(NamedTuple):
  """A pinhole: focal lengths and principal point in pixels."""

  focal_length: Float[Array, '*batch 2']
  principal_point: Float[Array, '*batch 2']


class ImageFeatures(NamedTuple):
  """What a backbone gives: the pooled vector and the shallow (half-resolution) map.

  Of the landmark network alone: `landmarks`, whose x and y are in [-1, 1] over the crop and whose
  depth relative to the wrist is in the same unit, smaller towards the camera; and `last_map`, the
  map that the pooled vector is the mean of. Features read from a prepared data set have no maps.
  """

  global_feature: Float[Array, 'batch channels']
  shallow_map: Float[Array, 'batch height width channels'] | None
  landmarks: Float[Array, 'batch 21 3'] | None = None
  last_map: Float[Array, 'batch _h _w channels'] | None = None


class HandGaussians(NamedTuple):
  """All uncertain outputs of a branch, prior or posterior: hand frame in metres, and the crop."""

  vertices: DiagonalGaussian
  joints: DiagonalGaussian
  joints_normalized: DiagonalGaussian


class HandEstimate(NamedTuple):
  """What the network returns for a batch. `camera` is a Gaussian over the ten stored numbers.

  A network of one branch alone (`model.branches`) leaves the other None; without the prior-net
  there are no MANO parameters either. `vertex_colors` (display RGB in [0, 1], with the light that
  falls on them) come from the texture branch, None without one.
  """

  parameters: HandParameters | None
  camera: DiagonalGaussian
  prior: HandGaussians | None
  posterior: HandGaussians | None
  vertex_colors: Float[Array, 'batch vertices 3'] | None = None


class Fragments(NamedTuple):
  """What a pixel sees: face (-1: nothing), barycentrics (0 there), depth (+inf there)."""

  face_index: Int[Array, 'batch height width']
  barycentric: Float[Array, 'batch height width 3']
  depth: Float[Array, 'batch height width']


class RenderedHand(NamedTuple):
  """A hand drawn into its crop: display RGB in [0, 1], and what it covers.

  Drawn hard, the silhouette is true or false and the colour 0 outside it; drawn softly, it is a
  share in [0, 1] and the colour blended with the background's.
  """

  rgb: Float[Array, 'batch height width 3']
  silhouette: Bool[Array, 'batch height width'] | Float[Array, 'batch height width']


class HandBatch(NamedTuple):
  """A batch of crops and labels; always the same fields, absent labels masked, never missing.

  Left hands arrive mirrored into right ones, labels with them (`is_left` tells). A masked field may
  hold anything, NaN included. `example_id` (strings) stays on the host: None on a device.
  `features`, where they were read from a prepared data set, stand for the image, which is then
  black, and for its hand mask.
  """

  image: Any  # (batch, side, side, 3) uint8 RGB
  example_id: Any  # (batch,) str
  global_index: Any  # (batch,) int32: position in the source, which also seeds its noise
  is_left: Any  # (batch,) bool: the photo showed a left hand
  vertices_hand: Any  # (batch, V, 3) float32
  joints_hand: Any  # (batch, K, 3) float32
  has_3d: Any  # (batch,) bool, for both of the above
  joints_normalized: Any  # (batch, K, 2) float32
  joint_confidence: Any  # (batch, K) float32, 0: unknown
  camera: Any  # (batch, 10) float32, HandCamera's order and scaling
  camera_mask: Any  # (batch, 10) bool
  intrinsics: Any  # (batch, 3, 3) float32, of the crop
  root_camera: Any  # (batch, 3) float32: the wrist in camera space
  has_root: Any  # (batch,) bool
  hand_mask: Any  # (batch, side, side) bool: where the photo shows the hand, nothing before it
  has_mask: Any  # (batch,) bool
  vertex_colors: Any  # (batch, V, 3) float32: display RGB in [0, 1], of hidden vertices too
  vertex_visible: Any  # (batch, V) bool: what the crop shows
  has_vertex_colors: Any  # (batch,) bool, for both of the above
  is_padding: Any  # (batch,) bool: fills up a last batch, counts nowhere
  features: ImageFeatures | None = None  # what a frozen backbone makes of the crop, float32
