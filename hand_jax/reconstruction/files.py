"""The files that show a reconstruction: meshes, pictures, numbers."""

import dataclasses
import json
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hand_jax.geometry.cameras import camera_from_vector
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.reconstruction.meshes import (
  glb_bytes,
  legend_image,
  obj_text,
  ply_bytes,
  png_bytes,
  sigma_colors,
  sigma_range_mm,
)
from hand_jax.reconstruction.reconstruct import Reconstruction
from hand_jax.reconstruction.texture_picture import (
  free_hand_texture,
  material_text,
  textured_obj_text,
)
from hand_jax.reconstruction.views import overlay_image, texture_image

OUTPUT_SUFFIXES = (
  '_overlay.png',
  '_legend.png',
  '.obj',
  '.ply',
  '.glb',
  '.npz',
  '.json',
)
# Of a hand with vertex colours; and of one with texture coordinates.
TEXTURE_SUFFIXES = ('_texture_views.png', '_textured.obj', '_textured.ply', '_textured.glb')
_SIGMA_OF_FIT = (
  "; Laplace's approximation of the fit's posterior, brought to the size of errors on rendered "
  'hands (docs/release.md)'
)
UV_SUFFIXES = ('_textured.mtl', '_texture.png')


def summary(reconstruction: Reconstruction, photo: str, size: tuple[int, int]) -> dict[str, Any]:
  """What the JSON file holds: plain numbers with units, small arrays; large ones are in the NPZ.

  Without MANO parameters (no prior-net) there is no `mano`, without texture branch no `texture`.
  """
  sigma = reconstruction.vertex_sigma_mm
  of_mirrored = ' of the mirrored right hand' if reconstruction.is_left else ''
  extra_units, extra = _texture_summary(reconstruction)
  if reconstruction.detection is not None:
    extra_units |= {
      'detection': 'probabilities: that there is a hand, and that the side is '
      'right (null where the side was given)'
    }
    found = reconstruction.detection
    side_score = None if found.side_score == 1 else found.side_score
    extra |= {'detection': {'presence': found.presence, 'side_score': side_score}}
  if reconstruction.parameters is not None:
    parameters = reconstruction.parameters._asdict()
    extra_units |= {'mano.*': _mano_meaning(reconstruction.branch, of_mirrored)}
    extra |= {'mano': {name: _numbers(value) for name, value in parameters.items()}}
  return {
    'photo': photo,
    'photo_size': {'width': size[0], 'height': size[1]},
    'hand': 'left' if reconstruction.is_left else 'right',
    'branch': reconstruction.branch,
    'hand_model': reconstruction.hand_model,
    'box_xywh': _numbers(reconstruction.box_xywh),
    'units': {
      'vertices, joints': 'metres; wrist at the origin; x right, y down, z away from the camera',
      'joints_image, box_xywh, photo_to_crop': 'pixels of the upright photo (EXIF applied); '
      "the first pixel's centre is at (0.5, 0.5)",
      'sigma': 'millimetres; per point the root of the mean of its three variances'
      + _SIGMA_OF_FIT * (reconstruction.branch == 'fit'),
      'vertex_visible': 'in the NPZ file, per vertex: inside the photo and not behind the hand '
      'itself; objects before the hand are not known',
      **extra_units,
    },
    'sigma_mm': {
      'mean': float(sigma.mean()),
      'median': float(np.median(sigma)),
      'min': float(sigma.min()),
      'max': float(sigma.max()),
      'joints': dict(zip(JOINT_NAMES, _numbers(reconstruction.joint_sigma_mm), strict=True)),
    },
    'visible_vertices': {
      'seen': int(reconstruction.vertex_visible.sum()),
      'all': len(reconstruction.vertex_visible),
    },
    'joints': dict(zip(JOINT_NAMES, _numbers(reconstruction.joints), strict=True)),
    'joints_image': dict(zip(JOINT_NAMES, _numbers(reconstruction.joints_image), strict=True)),
    'camera': {
      'kind': 'weak perspective: a pixel is about pixels_per_metre * (x, y) + wrist_pixel',
      'pixels_per_metre': reconstruction.pixels_per_metre,
      'wrist_pixel': _numbers(reconstruction.joints_image[0]),
      'absolute_depth': 'needs the focal length f of the photo in pixels, which a photo does not '
      "tell: the wrist's depth in metres is f / pixels_per_metre",
      **_estimated_camera(reconstruction, of_mirrored),
      'photo_to_crop': _numbers(reconstruction.crop_affine),
    },
    **extra,
  }


def _estimated_camera(reconstruction: Reconstruction, of_mirrored: str) -> dict[str, Any]:
  """The camera of a network, as it estimates it; a fit has none."""
  if reconstruction.camera_mean is None:
    return {}
  log_variance = np.asarray(reconstruction.camera_log_variance, np.float64)
  camera = camera_from_vector(np.asarray(reconstruction.camera_mean))
  spread = camera_from_vector(np.exp(0.5 * log_variance))
  return {
    'estimate': {name: _numbers(value) for name, value in camera._asdict().items()},
    'standard_deviation': {name: _numbers(value) for name, value in spread._asdict().items()},
    'estimate_meaning': f'stored numbers{of_mirrored}: first two columns of R (hand to camera '
    'axes, row vectors), translation in normalised crop units (third: metres), scale in '
    'normalised crop units per decimetre',
  }


def _texture_summary(reconstruction: Reconstruction) -> tuple[dict[str, str], dict[str, Any]]:
  """What `units` and the summary itself gain from a texture branch."""
  if reconstruction.vertex_colors is None:
    return {}, {}
  units = {
    'vertex_colors': 'in the NPZ file, per vertex: display RGB (sRGB) in [0, 1] as the photo shows '
    'it, light included; where the photo shows nothing, what the network makes of the rest',
    '*_textured.obj, *_textured.ply, *_textured.glb': 'the mesh with these colours per vertex '
    '(GLB: linear, as glTF wants them, and marked unlit)',
    '*_texture_views.png': 'crop; the coloured hand over it; the same from 60 degrees to the left '
    'and to the right, larger; no light is added',
  }
  if not reconstruction.is_free_hand:
    return units, {'texture': {'uv': 'none: this hand model has no texture coordinates'}}
  units['*_texture.png'] = (
    "the OBJ's texture (material: *_textured.mtl), made from the colours of the vertices by the "
    "free hand's texture coordinates; faces across a seam have patches at the right"
  )
  return units, {'texture': {'uv': "the free hand's, fitted to the picture"}}


def _mano_meaning(branch: str, of_mirrored: str) -> str:
  if branch == 'fit':
    return (
      f'radians and metres, MANO parameters{of_mirrored}, fitted to the evidence of the photo: '
      'the mesh in the files is this parametric hand'
    )
  meaning = f'radians and metres, MANO parameters{of_mirrored}, from the prior network: '
  if branch == 'prior':
    return meaning + 'the mesh in the files is this parametric hand'
  return (
    meaning + 'the mesh in the files is the refined posterior, not exactly this parametric hand'
  )


def _numbers(array: np.ndarray) -> list:
  return np.asarray(array, np.float64).round(9).tolist()


def output_suffixes(has_colors: bool, is_free_hand: bool) -> tuple[str, ...]:
  """What follows the photo's name in the files of a hand with vertex colours or without."""
  if not has_colors:
    return OUTPUT_SUFFIXES
  return OUTPUT_SUFFIXES + TEXTURE_SUFFIXES + (UV_SUFFIXES if is_free_hand else ())


def check_output_folder(folder: str | os.PathLike) -> None:
  """Checks that results can go to a folder, which may be missing yet.

  Raises:
    NotADirectoryError: a file is in the way.
    PermissionError: this user may not write there.
  """
  folder = pathlib.Path(folder)
  for path in (folder, *folder.parents):
    if path.is_dir():
      if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(
          f'Results cannot go to {folder}: {path} may not be written to. Name another folder.'
        )
      return
    if os.path.lexists(path):
      raise NotADirectoryError(
        f'Results cannot go to {folder}: {path} is a file. Name a folder; it is made when missing.'
      )


def write_reconstruction(
  reconstruction: Reconstruction,
  image: UInt8[np.ndarray, 'height width 3'],
  name: str,
  folder: str | os.PathLike,
  photo: str = '',
) -> list[pathlib.Path]:
  """Writes `NAME_overlay.png`, `.obj`, `.ply`, `.glb`, `.npz`, `.json` and the colours' legend.

  A hand with vertex colours has further files, `NAME_texture...`: views and meshes, and of the free
  hand a texture picture with the OBJ's material. All files are finished under another name before
  the first appears under its own. The NPZ and JSON files lack what the network does not estimate.
  Returns the paths in the order of `output_suffixes`.

  Raises:
    NotADirectoryError: a file is where the folder should be.
  """
  check_output_folder(folder)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=folder) as unfinished:
    partial = pathlib.Path(unfinished)
    contents = _geometry_files(reconstruction, image, photo or name)
    if reconstruction.vertex_colors is not None:
      contents |= _texture_files(reconstruction, image, name)
    np.savez(partial / f'{name}.npz', **_arrays(reconstruction))
    for suffix, content in contents.items():
      (partial / f'{name}{suffix}').write_bytes(content)
    suffixes = output_suffixes(
      reconstruction.vertex_colors is not None, reconstruction.is_free_hand
    )
    paths = [folder / f'{name}{suffix}' for suffix in suffixes]
    for path in paths:
      (partial / path.name).replace(path)
  return paths


def _geometry_files(
  reconstruction: Reconstruction, image: np.ndarray, photo: str
) -> dict[str, bytes]:
  sigma_mm = reconstruction.vertex_sigma_mm
  range_mm = sigma_range_mm(sigma_mm)
  colors = sigma_colors(sigma_mm, range_mm)
  vertices, faces = reconstruction.vertices, reconstruction.faces
  numbers = summary(reconstruction, photo, (image.shape[1], image.shape[0]))
  return {
    '_overlay.png': png_bytes(overlay_image(reconstruction, image)),
    '_legend.png': png_bytes(legend_image(range_mm, 512)),
    '.obj': obj_text(vertices, faces).encode(),
    '.ply': ply_bytes(vertices, faces, colors, sigma_mm),
    '.glb': glb_bytes(vertices, faces, colors, sigma_mm),
    '.json': (json.dumps(numbers, indent=2, allow_nan=False) + '\n').encode(),
  }


def _texture_files(
  reconstruction: Reconstruction, image: np.ndarray, name: str
) -> dict[str, bytes]:
  vertices, faces = reconstruction.vertices, reconstruction.faces
  colors, sigma_mm = reconstruction.vertex_colors, reconstruction.vertex_sigma_mm
  contents = {
    '_texture_views.png': png_bytes(texture_image(reconstruction, image)),
    '_textured.ply': ply_bytes(vertices, faces, colors, sigma_mm),
    '_textured.glb': glb_bytes(vertices, faces, colors, sigma_mm, unlit=True),
  }
  if not reconstruction.is_free_hand:
    return contents | {'_textured.obj': obj_text(vertices, faces, colors).encode()}
  obj = textured_obj_text(vertices, faces, colors, f'{name}_textured.mtl', reconstruction.is_left)
  return contents | {
    '_textured.obj': obj.encode(),
    '_textured.mtl': material_text(f'{name}_texture.png').encode(),
    '_texture.png': png_bytes(free_hand_texture(colors)),
  }


def _arrays(reconstruction: Reconstruction) -> dict[str, np.ndarray]:
  fields = {
    field.name: getattr(reconstruction, field.name)
    for field in dataclasses.fields(reconstruction)
    if field.name not in ('parameters', 'detection')
  }
  if reconstruction.parameters is not None:
    fields |= reconstruction.parameters._asdict()
  return {name: np.asarray(value) for name, value in fields.items() if value is not None}
