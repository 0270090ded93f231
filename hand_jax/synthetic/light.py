"""Light and backgrounds of synthetic hands: bundled environment maps, harmonics, rotations.

Environment axes (left-handed): z through the map's centre, x to the right of it, y up; a map is
equirectangular, row 0 = straight up, and looks as in a photo, unmirrored.
"""

import functools
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from hand_jax.rendering.surfaces import DIFFUSE_SHARES, spherical_harmonics


class Environments(NamedTuple):
  """The bundled maps: tone-mapped views for backgrounds, small HDR maps and harmonics for light."""

  names: tuple[str, ...]
  views: tuple[np.ndarray, ...]  # (256, 512, 3) uint8 RGB each
  light: np.ndarray  # (maps, 16, 32, 3) linear radiance, mean luminance 0.5
  harmonics: np.ndarray  # (maps, 9, 3) radiance coefficients of the full map


@functools.cache
def load_environments() -> Environments:
  """Read `hand_jax/assets/environments.npz` (CC0, see its NOTICE); cached for the process."""
  path = resources.files('hand_jax') / 'assets' / 'environments.npz'
  with path.open('rb') as file, np.load(file) as data:
    ends = np.cumsum(data['view_sizes'])
    encoded = np.split(data['views'], ends[:-1])
    views = tuple(cv2.imdecode(view, cv2.IMREAD_COLOR)[..., ::-1].copy() for view in encoded)
    return Environments(
      tuple(str(name) for name in data['names']),
      views,
      data['light'].astype(np.float32),
      data['harmonics'],
    )


def equirectangular_directions(height: int, width: int) -> Float[np.ndarray, 'height width 3']:
  """Unit direction of every pixel centre of an equirectangular map."""
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
  """Steradians of every pixel of an equirectangular map; they sum to 4 pi."""
  edges = np.cos(np.arange(height + 1) / height * np.pi)
  rows = (edges[:-1] - edges[1:]) * (2 * np.pi / width)
  return np.repeat(rows[:, None], width, axis=1)


def project_to_harmonics(
  directions: Float[np.ndarray, 'points 3'],
  radiance: Float[np.ndarray, 'points 3'],
  weights: Float[np.ndarray, 'points'],
) -> Float[np.ndarray, '9 3']:
  """Harmonic coefficients of a radiance map: integral of L Y over the sphere."""
  return spherical_harmonics(directions).T @ (radiance * weights[:, None])


def ambient_radiosity(
  normals: Float[np.ndarray, 'points 3'], harmonics: Float[np.ndarray, '9 3']
) -> Float[np.ndarray, 'points 3']:
  """Gives `irradiance` / pi at unit normals in environment axes, in NumPy; never negative."""
  coefficients = (harmonics * np.array(DIFFUSE_SHARES)[:, None]).astype(normals.dtype)
  return np.maximum(spherical_harmonics(normals) @ coefficients, 0)


class Light(NamedTuple):
  """What lights one hand: an environment turned against the camera, and one lamp (or the sun)."""

  environment: int
  camera_to_environment: np.ndarray  # (3, 3)
  harmonics: np.ndarray  # (9, 3) radiance, environment axes
  lamp_direction: np.ndarray  # (3,) from the hand to the lamp, camera axes
  lamp_color: np.ndarray  # (3,) radiosity at normal incidence


def sample_light(rng: np.random.Generator) -> Light:
  """A random environment, camera pitch and yaw; a lamp in it, weak to dominant, sometimes none."""
  environments = load_environments()
  environment = int(rng.integers(len(environments.names)))
  camera_to_environment = _sample_camera_rotation(rng)
  harmonics = environments.harmonics[environment].astype(np.float64)
  # Cameras balance colours: most of a map's cast goes.
  cast = harmonics[0] / harmonics[0].mean()
  harmonics = harmonics * cast ** -rng.uniform(0.7, 1.05)
  harmonics[1:] *= rng.uniform(0.6, 1.25)
  direction = _sample_lamp_direction(rng, environments.light[environment], camera_to_environment)
  strength = 0.0 if rng.uniform() < 0.25 else 0.12 + rng.gamma(1.5, 0.4)
  warmth = rng.normal(0.03, 0.09)
  color = strength * np.exp(warmth * np.array([1.0, 0.1, -1.2]))
  return Light(environment, camera_to_environment, harmonics, direction, color)


def _sample_camera_rotation(rng: np.random.Generator) -> np.ndarray:
  """Camera axes to environment axes: any yaw, pitch about level, little roll."""
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
  """Either where the map is bright, or from above and the camera's side."""
  if rng.uniform() < 0.4:
    luminance = light_map.mean(-1) ** 2 * solid_angles(*light_map.shape[:2])
    flat = luminance.ravel() / luminance.sum()
    pixel = int(np.searchsorted(np.cumsum(flat), rng.uniform()))
    directions = equirectangular_directions(*light_map.shape[:2]).reshape(-1, 3)
    direction = directions[min(pixel, len(directions) - 1)] @ camera_to_environment
  else:
    direction = rng.normal(0, 1, 3) + np.array([0, -0.9, -0.7])
  return direction / np.linalg.norm(direction)
