"""Hands outside the shape space: smooth displacements of the rest surface.

People's muscles, joints and skin differ in more ways than the ten shape components say. A
displacement stands for these differences. It is a sum of random fields on the surface, each
smoothed by the surface's own heat flow. The part that shape components or a rigid motion explain
is taken out.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hand_jax.mano.assets import load_mano_model
from hand_jax.types import ManoModel

MAGNITUDE_MM = (1.0, 1.8)
"""Range of the root mean square, over the vertices, of a displacement's length."""
WIDTH_MM = (16.0, 32.0)
"""Range of a field's width, which is twice the deviation of the heat kernel that smooths it."""
FIELDS = 3
# A field is mostly a bulge along the surface's normals, but the skin also slides a little.
_SLIDE = 0.3


class RestSurface(NamedTuple):
  """Data of a hand model's template from which displacements are built."""

  modes: Float[np.ndarray, 'vertices vertices']
  """Eigenvectors (columns) of the surface's Laplacian.

  They are scaled by the roots of the vertices' areas, which makes them orthonormal.
  """
  stiffness: Float[np.ndarray, 'vertices']
  """Eigenvalues of the Laplacian, 1 / m^2."""
  normals: Float[np.ndarray, 'vertices 3']
  """Unit normals of the vertices."""
  explained: Float[np.ndarray, 'coordinates explained']
  """Orthonormal basis (columns) of the displacements by shape components and rigid motions."""


def rest_surface(model: ManoModel) -> RestSurface:
  """Prepares a model's template for `sample_displacement`, which takes some tenths of a second."""
  vertices, faces = np.asarray(model.v_template, np.float64), np.asarray(model.faces)
  laplacian, areas = cotangent_laplacian(vertices, faces)
  area_roots = np.sqrt(areas)
  symmetric = laplacian / (area_roots[:, None] * area_roots)
  stiffness, modes = np.linalg.eigh(symmetric)
  corners = vertices[faces]
  across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  normals = np.zeros_like(vertices)
  for corner in range(3):
    np.add.at(normals, faces[:, corner], across)
  normals /= np.linalg.norm(normals, axis=1, keepdims=True)
  shapes = np.asarray(model.shapedirs, np.float64).reshape(vertices.size, -1)
  explained = np.linalg.qr(np.concatenate([shapes, rigid_motions(vertices)], axis=1))[0]
  return RestSurface(modes, np.maximum(stiffness, 0), normals, explained)


@functools.cache
def free_hand_surface() -> RestSurface:
  """Returns the `rest_surface` of the right free hand, computed once per process."""
  return rest_surface(load_mano_model(side='right'))


def cotangent_laplacian(
  vertices: Float[np.ndarray, 'vertices 3'], faces: Int[np.ndarray, 'faces 3']
) -> tuple[Float[np.ndarray, 'vertices vertices'], Float[np.ndarray, 'vertices']]:
  """Computes the stiffness matrix of linear elements on a mesh, and the area of each vertex.

  The matrix times a function's values is minus the integral of its Laplacian near each vertex. The
  area of a vertex is a third of its faces' areas.
  """
  laplacian = np.zeros((len(vertices), len(vertices)))
  areas = np.zeros(len(vertices))
  for corner in range(3):
    at, first, second = (faces[:, (corner + k) % 3] for k in range(3))
    one, other = vertices[first] - vertices[at], vertices[second] - vertices[at]
    double_area = np.maximum(np.linalg.norm(np.cross(one, other), axis=1), 1e-12)
    half_cotangent = 0.5 * np.sum(one * other, axis=1) / double_area
    for i, j in ((first, second), (second, first)):
      np.add.at(laplacian, (i, j), -half_cotangent)
      np.add.at(laplacian, (i, i), half_cotangent)
    np.add.at(areas, at, double_area / 6)
  return laplacian, areas


def rigid_motions(vertices: Float[np.ndarray, 'vertices 3']) -> Float[np.ndarray, 'coordinates 6']:
  """Returns the displacements (columns) of three shifts and three small turns about the middle."""
  centred = vertices - vertices.mean(0)
  shifts = [np.broadcast_to(axis, vertices.shape) for axis in np.eye(3)]
  turns = [np.cross(axis, centred) for axis in np.eye(3)]
  return np.stack([motion.ravel() for motion in (*shifts, *turns)], axis=1)


def smooth_fields(
  surface: RestSurface, noise: Float[np.ndarray, 'vertices fields'], width_m: float
) -> Float[np.ndarray, 'vertices fields']:
  """Smooths white noise on the vertices by heat flow.

  Every vertex has the same variance. Without this correction fingers would vary more than the palm,
  because heat meets less noise to average there.

  Args:
    surface: the prepared template.
    noise: independent standard normal values.
    width_m: width of the fields, metres, which is twice the deviation of the heat kernel.

  Returns:
    The fields, each with a root mean square of 1.
  """
  flowed = np.exp(-surface.stiffness * (width_m / 2) ** 2 / 2)
  fields = surface.modes @ (flowed[:, None] * (surface.modes.T @ noise))
  fields = fields / np.sqrt(surface.modes**2 @ flowed**2)[:, None]
  return fields / np.sqrt(np.mean(fields**2, axis=0))


def sample_displacement(
  rng: np.random.Generator, surface: RestSurface
) -> Float[np.ndarray, 'vertices 3']:
  """Draws a displacement of the template that neither shape components nor rigid motions explain.

  The displacement is in metres.
  """
  magnitude = rng.uniform(*MAGNITUDE_MM) / 1000
  total = np.zeros_like(surface.normals)
  for _ in range(FIELDS):
    width = np.exp(rng.uniform(*np.log(WIDTH_MM))) / 1000
    fields = smooth_fields(surface, rng.normal(size=(len(total), 4)), width)
    bulge, slide = fields[:, :1], fields[:, 1:]
    slide = slide - np.sum(slide * surface.normals, axis=1, keepdims=True) * surface.normals
    total += bulge * surface.normals + _SLIDE * slide
  unexplained = total.ravel() - surface.explained @ (surface.explained.T @ total.ravel())
  total = unexplained.reshape(total.shape)
  return total * (magnitude / np.sqrt(np.mean(np.sum(total**2, axis=1))))
