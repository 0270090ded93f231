"""Builds `hand_jax/assets/environments.npz`, which holds 18 real environment maps in reduced form.

The source is the unpacked HDRI folder of the npm package `@pmndrs/assets` (CC0-1.0, with maps of
Poly Haven). Each `NAME.exr.js` holds an EXR file in base64. To read EXR, the tool needs the PyPI
package `OpenEXR`, which nothing else in the project uses.

  python -m tools.build_environments --source=package/hdri
"""

import base64
import pathlib
import re
import tempfile

import cv2
import numpy as np

from experiments.launching import launch, refuse_arguments
from experiments.path_flags import define_path
from hand_jax.files.writing import unfinished_path
from hand_jax.synthetic.light import equirectangular_directions, project_to_harmonics
from hand_jax.synthetic.light import solid_angles as pixel_solid_angles

SOURCE = define_path('source', None, 'Folder with the *.exr.js files.', required=True)
OUTPUT = define_path('output', 'hand_jax/assets/environments.npz', 'File to write.')
JPEG_QUALITY = 88
LIGHT_SIZE = (16, 32)  # rows and columns of the small HDR map that lights the hand
# Maps are scaled to this mean luminance, which leaves room above for windows and lamps.
MEAN_LUMINANCE = 0.5


def read_exr_module(path: pathlib.Path) -> np.ndarray:
  """Reads the linear RGB radiance (height, width, 3) of an `.exr.js` file.

  Small negative values become 0, and the lost core of a sun gets the brightest sound value.

  Raises:
    ValueError: OpenEXR is not installed, or the file holds no base64 data.
  """
  try:
    import OpenEXR
  except ImportError as error:
    raise ValueError('Reading EXR files needs OpenEXR: pip install OpenEXR.') from error
  match = re.search(r'base64,([A-Za-z0-9+/=]+)', path.read_text())
  if match is None:
    raise ValueError(f'{path}: expected a base64 data URL, found none; is this @pmndrs/assets?')
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / 'map.exr'
    file.write_bytes(base64.b64decode(match.group(1)))
    with OpenEXR.File(str(file)) as exr:
      radiance = np.array(exr.channels()['RGB'].pixels, np.float32)
  # The compression lost the core of the sun, which is strongly negative or not finite.
  finite = np.where(np.isfinite(radiance), radiance, -np.inf)
  sound = (finite > -0.05 * finite.max()).all(-1)
  # Around it the compression leaves rings, in blocks of eight pixels.
  sound = (cv2.erode(sound.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0)[..., None]
  brightest = np.where(sound, radiance, 0).max((0, 1))
  return np.maximum(np.where(sound, radiance, brightest), 0.0)


def scale_exposure(radiance: np.ndarray) -> np.ndarray:
  """Scales a map so that the mean luminance over the sphere is `MEAN_LUMINANCE`.

  Before that, luminance is cut at 60 times its median. A sun of a few pixels would otherwise leave
  all else black.
  """
  weights = pixel_solid_angles(*radiance.shape[:2])[..., None]
  luminance = radiance.mean(-1, keepdims=True)
  bound = 60.0 * np.median(luminance)
  radiance = radiance * np.minimum(1.0, bound / np.maximum(luminance, 1e-6))
  mean = (radiance.mean(-1, keepdims=True) * weights).sum() / weights.sum()
  return radiance * (MEAN_LUMINANCE / mean)


def encode_view(radiance: np.ndarray) -> np.ndarray:
  """Encodes a map as a JPEG that can be looked at, and returns its bytes.

  The map is exposed by its median, its highlights are compressed, and its colours are close to
  sRGB.
  """
  exposed = radiance * (0.22 / np.median(radiance))
  rolled = np.where(exposed < 0.6, exposed, 0.6 + 0.4 * np.tanh((exposed - 0.6) / 0.8))
  image = (np.clip(rolled, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)
  options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
  return cv2.imencode('.jpg', image[..., ::-1], options)[1].ravel()


def reduce_map(radiance: np.ndarray) -> dict[str, np.ndarray]:
  """Reduces an environment to a small HDR map and nine coefficients of spherical harmonics."""
  weights = pixel_solid_angles(*radiance.shape[:2])
  size = LIGHT_SIZE[::-1]
  energy = cv2.resize(radiance * weights[..., None], size, interpolation=cv2.INTER_AREA)
  area = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
  small = energy / area[..., None]
  directions = equirectangular_directions(*radiance.shape[:2]).reshape(-1, 3)
  harmonics = project_to_harmonics(directions, radiance.reshape(-1, 3), weights.ravel())
  return {'light': small.astype(np.float16), 'harmonics': harmonics.astype(np.float32)}


def main(argv: list[str]) -> None:
  """Reads all maps and writes the file."""
  refuse_arguments(argv)
  paths = sorted(pathlib.Path(SOURCE.value).glob('*.exr.js'))
  if not paths:
    raise ValueError(
      f'{SOURCE.value}: no *.exr.js files; expected the hdri folder of @pmndrs/assets'
    )
  names, views, lights, harmonics = [], [], [], []
  for path in paths:
    radiance = scale_exposure(read_exr_module(path))
    reduced = reduce_map(radiance)
    names.append(path.name.removesuffix('.exr.js'))
    views.append(encode_view(radiance))
    lights.append(reduced['light'])
    harmonics.append(reduced['harmonics'])
  output = pathlib.Path(OUTPUT.value)
  with unfinished_path(output) as unfinished, unfinished.open('wb') as file:
    np.savez(
      file,
      names=np.array(names),
      views=np.concatenate(views),
      view_sizes=np.array([len(view) for view in views]),
      light=np.stack(lights),
      harmonics=np.stack(harmonics),
    )
  print(f'{output}: {len(names)} maps, {output.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
  launch(main)
