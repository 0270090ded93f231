"""Light and backgrounds of synthetic hands: bundled environment maps, harmonics, rotations.

Environment axes are left-handed: z points through the map's centre, x to the right of it, and y up.
A map is equirectangular and unmirrored, as in a photo, and its row 0 lies straight up.
"""

import functools
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from hand_jax.rendering.surfaces import DIFFUSE_SHARES, spherical_harmonics


class Environments(NamedTuple):
  """The bundled environment maps, in the forms that backgrounds and light need."""

  names: tuple[str, ...]
  """Names of the maps."""
  views: tuple[np.ndarray, ...]  # each (256, 512, 3) uint8 RGB
  """Tone-mapped views for backgrounds."""
  light: np.ndarray  # (maps, 16, 32, 3)
  """Small maps of linear radiance, with a mean luminance of 0.5."""
  harmonics: np.ndarray  # (maps, 9, 3)
  """Coefficients of the full maps' radiance in `spherical_harmonics`."""


@functools.cache
def load_environments() -> Environments:
  """Reads `hand_jax/assets/environments.npz` (CC0, see its NOTICE), once per process."""
  path = resources.files('hand_jax') / 'assets' / 'environments.npz'
  with path.open('rb') as file, np.load(file) as data:
    ends = np.cumsum(data['view_sizes'])
    encoded = np.split(data['views'], ends[:-1])
    decoded = (np.asarray(cv2.imdecode(view, cv2.IMREAD_COLOR)) for view in encoded)
    views = tuple(view[..., ::-1].copy() for view in decoded)
    return Environments(
      tuple(str(name) for name in data['names']),
      views,
      data['light'].astype(np.float32),
      data['harmonics'],
    )


def equirectangular_directions(height: int, width: int) -> Float[np.ndarray, 'height width 3']:
  """Returns the unit direction of every pixel centre of a map, in environment axes."""
  polar = (np.arange(height) + 0.5) / height * np.pi
  azimuth = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
  ring = np.sin(polar)[:, None]
  return np.stack(
    [
      ring * np.sin(azimuth)[None],
      np.repeat(np.cos(polar)[:, None], width, axis=1),
      ring * np.cos(azimuth)[None],
    ],
    axis=-1,
  )


def solid_angles(height: int, width: int) -> Float[np.ndarray, 'height width']:
  """Returns the steradians of every pixel of an equirectangular map. They sum to 4 pi."""
  edges = np.cos(np.arange(height + 1) / height * np.pi)
  rows = (edges[:-1] - edges[1:]) * (2 * np.pi / width)
  return np.repeat(rows[:, None], width, axis=1)


def project_to_harmonics(
  directions: Float[np.ndarray, 'points 3'],
  radiance: Float[np.ndarray, 'points 3'],
  weights: Float[np.ndarray, 'points'],
) -> Float[np.ndarray, '9 3']:
  """Integrates radiance times each spherical harmonic over the sphere.

  Args:
    directions: unit directions of the samples.
    radiance: linear RGB radiance of the samples.
    weights: solid angles of the samples, steradians.

  Returns:
    The coefficients of `spherical_harmonics`, per colour channel.
  """
  return np.asarray(spherical_harmonics(directions)).T @ (radiance * weights[:, None])


def ambient_radiosity(
  normals: Float[np.ndarray, 'points 3'], harmonics: Float[np.ndarray, '9 3']
) -> Float[np.ndarray, 'points 3']:
  """Computes `irradiance` / pi at unit normals in environment axes, in NumPy.

  The result is never negative.
  """
  coefficients = (harmonics * np.array(DIFFUSE_SHARES)[:, None]).astype(normals.dtype)
  return np.maximum(spherical_harmonics(normals) @ coefficients, 0)


class Light(NamedTuple):
  """The light on one hand: an environment turned relative to the camera, and one lamp or sun."""

  environment: int
  """Index of the map in `load_environments`."""
  camera_to_environment: np.ndarray  # (3, 3)
  """Matrix from camera axes to environment axes, for column vectors."""
  harmonics: np.ndarray  # (9, 3)
  """Coefficients of the environment's radiance, in environment axes."""
  lamp_direction: np.ndarray  # (3,)
  """Unit vector from the hand to the lamp, in camera axes."""
  lamp_color: np.ndarray  # (3,)
  """Radiosity of a white surface that faces the lamp. It is 0 without a lamp."""


def sample_light(rng: np.random.Generator) -> Light:
  """Draws an environment, a rotation of the camera in it, and a lamp.

  The lamp is weak to dominant, and missing in a quarter of the cases.
  """
  environments = load_environments()
  environment = int(rng.integers(len(environments.names)))
  camera_to_environment = _sample_camera_rotation(rng)
  harmonics = environments.harmonics[environment].astype(np.float64)
  # Cameras balance colours, so most of a map's colour cast is removed.
  cast = harmonics[0] / harmonics[0].mean()
  harmonics = harmonics * cast ** -rng.uniform(0.7, 1.05)
  harmonics[1:] *= rng.uniform(0.6, 1.25)
  direction = _sample_lamp_direction(rng, environments.light[environment], camera_to_environment)
  strength = 0.0 if rng.uniform() < 0.25 else 0.12 + rng.gamma(1.5, 0.4)
  warmth = rng.normal(0.03, 0.09)
  color = strength * np.exp(warmth * np.array([1.0, 0.1, -1.2]))
  return Light(environment, camera_to_environment, harmonics, direction, color)


def _sample_camera_rotation(rng: np.random.Generator) -> np.ndarray:
  """Draws a rotation from camera axes to environment axes.

  The yaw is arbitrary, the pitch is about level, and the roll is small.
  """
  yaw, pitch, roll = rng.uniform(0, 2 * np.pi), rng.normal(-0.1, 0.4), rng.normal(0, 0.15)
  cosine, sine = np.cos(yaw), np.sin(yaw)
  turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
  cosine, sine = np.cos(pitch), np.sin(pitch)
  tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
  cosine, sine = np.cos(roll), np.sin(roll)
  spin = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
  # Camera axes have y down and z forward.
  return turn @ tilt @ spin @ np.diag([1.0, -1.0, 1.0])


def _sample_lamp_direction(rng, light_map: np.ndarray, camera_to_environment: np.ndarray):
  """Draws the lamp's direction: where the map is bright, or from above and the camera's side."""
  if rng.uniform() < 0.4:
    luminance = light_map.mean(-1) ** 2 * solid_angles(*light_map.shape[:2])
    flat = luminance.ravel() / luminance.sum()
    pixel = int(np.searchsorted(np.cumsum(flat), rng.uniform()))
    directions = equirectangular_directions(*light_map.shape[:2]).reshape(-1, 3)
    direction = directions[min(pixel, len(directions) - 1)] @ camera_to_environment
  else:
    direction = rng.normal(0, 1, 3) + np.array([0, -0.9, -0.7])
  return direction / np.linalg.norm(direction)
