"""The outline of a hand as evidence: where a mask of the hand ends, the mesh should end too.

The drawn mesh of a first fit has an outline. From each vertex on it, the outline of the mask is
searched along the direction in which the mesh ends. The distance to it is the evidence. It says
nothing along the outline, where a vertex may slide. The pairs are those of the iterative closest
point method (Besl and McKay 1992), with distances along normals (Chen and Medioni 1992).
"""

from typing import NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from hand_jax.fitting.evidence import PinholeView, project_view
from hand_jax.geometry.cameras import transform_points
from hand_jax.geometry.warping import warp_image
from hand_jax.types import ArrayLike, ManoModel

OUTLINE_POINTS = 160
"""The number of vertices that an outline holds."""
# Outlines are compared in a square of this side in pixels, which is this much larger than the mesh.
_SIDE, _SQUARE_OF_MESH = 224, 1.5
# These are pixels of that square. A vertex is on the mesh's outline within the first. The mask's
# outline is searched within the second. The third is the assumed error, chosen on rendered hands.
_RIM, _REACH, _SIGMA = 2.5, 12.0, 2.0
_SEARCH_STEP = 0.5
# Smoothing in pixels of the square, of the mask's steps and of the mesh's directions.
_MASK_BLUR, _DIRECTION_BLUR = 1.0, 1.5
# Below this slope of the distance, two outlines are close and there is no one direction outwards.
_LEAST_SLOPE = 0.3
# A mask that covers less of the drawn mesh than this share shows another thing, or a hidden hand.
_LEAST_COVER = 0.5
# A mask may end anywhere near the wrist. Vertices less than this far beyond it, in metres along the
# palm, do not count.
_WRIST_LENGTH = 0.02
# MANO's number of the joint at the base of the middle finger.
_MIDDLE_MCP = 4
# OpenCV draws with this many binary digits behind the point.
_SHIFT = 4


class HandOutline(NamedTuple):
  """Vertices on the outline of a right hand, and where the photo shows this outline.

  A vertex whose sigma is infinite is unknown.
  """

  vertices: Int[ArrayLike, '*batch 160']
  """Vertex ids."""
  normals: Float[ArrayLike, '*batch 160 2']
  """Directions out of the hand in the photo, of length one."""
  places: Float[ArrayLike, '*batch 160']
  """Positions of the photo's outline along the normals, in pixels of the photo."""
  sigma: Float[ArrayLike, '*batch 160']
  """Standard deviations of the positions in pixels of the photo."""


def unknown_outline() -> HandOutline:
  """Makes the outline of a hand without a mask."""
  return HandOutline(
    np.zeros(OUTLINE_POINTS, np.int32),
    np.zeros((OUTLINE_POINTS, 2), np.float32),
    np.zeros(OUTLINE_POINTS, np.float32),
    np.full(OUTLINE_POINTS, np.inf, np.float32),
  )


def beyond_the_wrist(model: ManoModel) -> Bool[np.ndarray, ' vertices']:
  """Finds the vertices that are so far from the wrist that a mask surely includes them."""
  template = np.asarray(model.v_template)
  wrist, knuckle = np.asarray(model.joint_regressor)[[0, _MIDDLE_MCP]] @ template
  palm = knuckle - wrist
  return (template - wrist) @ (palm / np.linalg.norm(palm)) >= _WRIST_LENGTH


def find_outline(
  vertices_image: Float[np.ndarray, 'vertices 2'],
  faces: Int[np.ndarray, 'faces 3'],
  hand_mask: Bool[np.ndarray, 'height width'],
  counted: Bool[np.ndarray, ' vertices'],
) -> HandOutline:
  """Finds the outline of a mask near that of a drawn mesh.

  Where the photo ends, the mask has no outline. A mask that shows less than half of the drawn mesh
  has none at all.

  Args:
    vertices_image: the mesh's vertices in pixels of the photo.
    faces: vertex ids of the triangles, in either winding.
    hand_mask: True where the photo shows the hand.
    counted: whether a vertex may belong to the outline, see `beyond_the_wrist`.

  Returns:
    The outline, without an axis over hands. Vertices without a mask's outline near them are left
    out. If there are too many, some are taken evenly along the outline.
  """
  low, high = vertices_image.min(0), vertices_image.max(0)
  extent = float((high - low).max())
  if not (np.isfinite(extent) and extent > 0):
    return unknown_outline()
  scale = _SIDE / (_SQUARE_OF_MESH * extent)
  to_square = np.diag([scale, scale, 1.0])
  to_square[:2, 2] = _SIDE / 2 - scale * (low + high) / 2
  points = transform_points(to_square, np.asarray(vertices_image, np.float64))
  drawn = _draw(points, faces)
  shown = _shown(to_square, hand_mask.shape)
  mask = warp_image(255 * hand_mask.astype(np.uint8), to_square, _SIDE).astype(np.float32) / 255
  drawn_and_shown = mask[(drawn > 0) & shown]
  if not (drawn_and_shown.size and drawn_and_shown.mean() >= _LEAST_COVER):
    return unknown_outline()
  rim, normals = _rim(drawn, points, counted)
  distances = _distances(cv2.GaussianBlur(mask, (0, 0), _MASK_BLUR), shown, points[rim], normals)
  found = np.flatnonzero(np.isfinite(distances))
  if len(found) > OUTLINE_POINTS:
    found = found[_evenly_along(drawn, points[rim[found]], OUTLINE_POINTS)]
  rim, normals, distances = rim[found], normals[found], distances[found]
  outline, count = unknown_outline(), len(found)
  outline.vertices[:count] = rim
  outline.normals[:count] = normals
  outline.places[:count] = np.sum(vertices_image[rim] * normals, axis=1) + distances / scale
  outline.sigma[:count] = _SIGMA / scale
  return outline


def _shown(to_square: np.ndarray, shape: tuple[int, int]) -> Bool[np.ndarray, 'side side']:
  """Finds the pixels of the square that lie in the photo."""
  centres = np.arange(_SIDE)[:, None] + 0.5
  places = (centres - to_square[:2, 2]) / np.diag(to_square)[:2]
  column, row = ((places >= 0) & (places < shape[::-1])).T
  return row[:, None] & column[None]


def _draw(points: np.ndarray, faces: np.ndarray) -> UInt8[np.ndarray, 'side side']:
  """Draws a mesh with ones on zeros."""
  drawn = np.zeros((_SIDE, _SIDE), np.uint8)
  # OpenCV counts from pixel centres.
  triangles = np.round((points - 0.5)[faces] * 2**_SHIFT).astype(np.int32)
  first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
  area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
  # The near and the far side of a closed mesh cover the same pixels, so one of them is enough. An
  # open mesh, as a hand is at the wrist, is covered best by the side that is larger.
  side = area > 0 if area.sum() > 0 else area < 0
  for triangle in triangles[side]:
    cv2.fillConvexPoly(drawn, triangle, 1, shift=_SHIFT)
  return drawn


def _rim(
  drawn: np.ndarray, points: np.ndarray, counted: np.ndarray
) -> tuple[Int[np.ndarray, ' rim'], Float[np.ndarray, 'rim 2']]:
  """Finds the vertices on the drawn mesh's outline, and the directions in which the mesh ends."""
  depth = cv2.distanceTransform(drawn, cv2.DIST_L2, 5)
  signed = cv2.GaussianBlur(
    depth - cv2.distanceTransform(1 - drawn, cv2.DIST_L2, 5), (0, 0), _DIRECTION_BLUR
  )
  slope = -np.stack(np.gradient(signed)[::-1], axis=-1)
  column, row = np.clip(np.floor(points), 0, _SIDE - 1).astype(int).T
  normals = slope[row, column]
  length = np.linalg.norm(normals, axis=1)
  rim = np.flatnonzero(counted & (depth[row, column] < _RIM) & (length > _LEAST_SLOPE))
  return rim, normals[rim] / length[rim, None]


def _evenly_along(
  drawn: np.ndarray, points: Float[np.ndarray, 'points 2'], count: int
) -> Int[np.ndarray, ' count']:
  """Chooses points evenly in their order along the outline of a drawing.

  In the order of vertex ids one point more or less would change the choice everywhere.
  """
  outlines, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
  way = np.concatenate(outlines)[:, 0] + 0.5
  nearest = np.sum((points[:, None] - way) ** 2, axis=-1).argmin(axis=1)
  order = np.argsort(nearest, kind='stable')
  return order[np.linspace(0, len(points) - 1, count).astype(int)]


def _distances(
  mask: np.ndarray, shown: np.ndarray, points: np.ndarray, normals: np.ndarray
) -> Float[np.ndarray, ' points']:
  """Measures how far along each normal the mask ends, in pixels of the square.

  The nearest end counts. The distance is infinite where there is none that the photo shows.
  """
  steps = np.arange(-_REACH, _REACH + _SEARCH_STEP / 2, _SEARCH_STEP)
  if not len(points):
    return np.zeros(0)
  places = points[:, None] + steps[None, :, None] * normals[:, None]
  column, row = (places[..., axis].astype(np.float32) - 0.5 for axis in (0, 1))
  values = cv2.remap(mask, column, row, cv2.INTER_LINEAR)
  seen = cv2.remap(shown.astype(np.uint8), column, row, cv2.INTER_NEAREST) > 0
  before, after = values[:, :-1], values[:, 1:]
  ends = (before >= 0.5) & (after < 0.5) & seen[:, 1:]
  # Between two steps the mask falls linearly.
  part = (before - 0.5) / np.where(ends, before - after, 1.0)
  ended = np.where(ends, steps[:-1] + _SEARCH_STEP * part, np.inf)
  return ended[np.arange(len(points)), np.abs(ended).argmin(axis=1)]


def add_vertices(reduced: ManoModel, model: ManoModel, vertices: Int[Array, ' added']) -> ManoModel:
  """Appends vertices of the whole model to a reduced one, whose joints they do not change.

  Args:
    reduced: see `joint_vertices_only`.
    model: the whole model.
    vertices: ids of the vertices to append.
  """

  def appended(name: str) -> Array:
    added = jnp.asarray(getattr(model, name))[vertices]
    return jnp.concatenate([getattr(reduced, name), added])

  unused = jnp.zeros((len(reduced.joint_regressor), len(vertices)), reduced.v_template.dtype)
  return reduced._replace(
    v_template=appended('v_template'),
    shapedirs=appended('shapedirs'),
    posedirs=appended('posedirs'),
    lbs_weights=appended('lbs_weights'),
    joint_regressor=jnp.concatenate([reduced.joint_regressor, unused], axis=1),
  )


def outline_residuals(
  outline: HandOutline,
  view: PinholeView,
  points: Float[Array, '160 3'],
  principal_point: Float[ArrayLike, '2'],
) -> Float[Array, '160 1']:
  """Compares projected vertices with the photo's outline.

  Args:
    outline: the observed outline of one hand.
    view: the place of the hand's centre.
    points: the outline's vertices in metres, in camera axes and relative to the hand's centre.
    principal_point: pixels of the photo.

  Returns:
    Projected minus observed positions along the normals, in standard deviations, and zero for
    unknown vertices.
  """
  sigma = jnp.asarray(outline.sigma)
  known = jnp.isfinite(sigma)
  pixels = project_view(view, points, principal_point)
  places = jnp.sum(pixels * outline.normals, axis=-1)
  residuals = (places - outline.places) / jnp.where(known, sigma, 1.0)
  return jnp.where(known, residuals, 0.0)[:, None]
