"""Gathers the numbers of a reconstruction for the JSON and NPZ files, with their meaning."""

import dataclasses
import json
from typing import Any

import numpy as np

from hand_jax.geometry.cameras import camera_from_vector
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.reconstruction.hand_data import HandData

# The beginning of the names of a left hand's numbers that belong to the mirrored right hand.
MIRRORED = 'mirrored_right_hand_'
_SIGMA_OF_FIT = (
  "; Laplace's approximation of the fit's posterior, brought to the size of errors on rendered "
  'hands (docs/release.md)'
)
_COLORS = (
  'per vertex: display RGB (sRGB) in [0, 1] as the photo shows it, light included; where the photo '
  'shows nothing, what the network makes of the rest'
)
# The NPZ holds these fields in another form, or not at all.
_NOT_IN_NPZ = (
  *(
    'parameters',
    'detection',
    'photo',
    'photo_name',
    'photo_scale',
    'mask_source',
    'whole_size',
    'file_stem',
    'given_box',
    'camera',
    'is_left',
  ),
)
_OF_MIRRORED = ('camera_mean', 'camera_log_variance')


def json_content(reconstruction: HandData, record: dict[str, Any]) -> dict[str, Any]:
  """Gathers the content of the JSON file: plain numbers with units, and small arrays.

  The large arrays are in the NPZ file. Without a texture branch there is no `texture`, and without
  MANO parameters there is no `mano`.

  Args:
    reconstruction: the hand.
    record: further entries, such as the settings.
  """
  width, height = reconstruction.photo_size
  return {
    'photo': reconstruction.photo_name,
    'photo_size': {'width': width, 'height': height},
    **record,
    'hand': reconstruction.side,
    'branch': reconstruction.branch,
    'hand_model': reconstruction.hand_model,
    'box_xywh': _numbers(reconstruction.box_xywh),
    **_detection(reconstruction),
    'units': units(reconstruction),
    'sigma_mm': _sigma(reconstruction),
    'visible_vertices': {
      'seen': int(reconstruction.vertex_visible.sum()),
      'all': len(reconstruction.vertex_visible),
    },
    'joints': _by_joint(reconstruction.joints),
    'joints_camera': _by_joint(reconstruction.joints_camera),
    'joints_image': _by_joint(reconstruction.joints_image),
    'camera': _camera(reconstruction),
    **_mano(reconstruction),
    **_texture(reconstruction),
  }


def npz_content(reconstruction: HandData) -> dict[str, np.ndarray]:
  """Gathers the content of the NPZ file: all arrays, and their meaning as JSON under `units`.

  Arrays of a left hand that belong to the mirrored right hand have `MIRRORED` before their names.
  """
  prefix = MIRRORED if reconstruction.is_left else ''
  fields: dict[str, Any] = {}
  for field in dataclasses.fields(reconstruction):
    if field.name not in _NOT_IN_NPZ:
      name = prefix + field.name if field.name in _OF_MIRRORED else field.name
      fields[name] = getattr(reconstruction, field.name)
  if reconstruction.parameters is not None:
    parameters = reconstruction.parameters._asdict()
    fields |= {f'{prefix}{name}': value for name, value in parameters.items()}
  camera = reconstruction.camera
  fields |= {
    'side': reconstruction.side,
    'photo': reconstruction.photo_name,
    'vertices_camera': reconstruction.vertices_camera,
    'joints_camera': reconstruction.joints_camera,
    'focal_length_px': camera.focal_length_px,
    'focal_length_source': camera.source_text,
    'principal_point': camera.principal_point,
    'depth_sigma_m': reconstruction.depth_sigma_m,
    'units': json.dumps(npz_units(reconstruction)),
  }
  return {name: np.asarray(value) for name, value in fields.items() if value is not None}


def side_score(reconstruction: HandData) -> float | None:
  """Returns the probability that the side is correct, or None where the side was given."""
  found = reconstruction.detection
  return None if found is None or found.side_score == 1 else found.side_score


def npz_units(reconstruction: HandData) -> dict[str, str]:
  """Explains the arrays of the NPZ file."""
  prefix = MIRRORED if reconstruction.is_left else ''
  meaning = {
    **_places(reconstruction),
    'vertices': 'as joints; faces: the three vertices of each triangle',
    'vertices_image, principal_point': 'pixels, as joints_image',
    'crop_affine, crop_side': 'maps pixels of the photo to those of the square crop that pictures '
    'show, of crop_side pixels; for a left hand the crop is mirrored, and a run of upright '
    'crops sees it turned',
    'pixels_per_metre': 'weak perspective: a pixel is this times (x, y) plus that of the wrist',
    'joint_sigma_xyz_mm': 'sigma of the joints along x, y and z',
    'vertex_visible': f'per vertex: {_visible_meaning(reconstruction)}',
  }
  if reconstruction.parameters is not None:
    names = ', '.join(f'{prefix}{name}' for name in reconstruction.parameters._fields)
    meaning[names] = _mano_meaning(reconstruction).replace('mesh_error_mm', 'parameters_error_mm')
  if reconstruction.camera_mean is not None:
    meaning[f'{prefix}camera_mean, {prefix}camera_log_variance'] = (
      'ten numbers as the network stores them, see estimate_meaning in the JSON file'
    )
  if reconstruction.sigma_degrees_of_freedom is not None:
    meaning['sigma_degrees_of_freedom'] = "those of Student's t, which the errors follow"
  if reconstruction.vertex_colors is not None:
    meaning['vertex_colors'] = _COLORS
  return meaning


def _visible_meaning(reconstruction: HandData) -> str:
  source = reconstruction.mask_source
  seen = 'inside the photo and not behind the hand itself'
  if source == 'none':
    return f'{seen}; objects before the hand are not known'
  return f'{seen}, nor behind an object by the {source} mask of the hand'


def _places(reconstruction: HandData) -> dict[str, str]:
  """Explains positions and their uncertainty, which both files hold."""
  return {
    'joints': 'metres; wrist at the origin; x right, y down, z away from the camera',
    'joints_camera, vertices_camera, wrist_camera': 'metres; the camera at the origin; the same '
    'axes; they rest on focal_length_px, and depth_sigma_m is one sigma of the distance',
    'joints_image, box_xywh': 'pixels of the upright photo (EXIF applied); '
    "the first pixel's centre is at (0.5, 0.5)",
    'sigma': 'millimetres; per point the root of the mean of the squares of its three sigmas; '
    '68 % of the errors along an axis are expected within one sigma, 95 % within '
    f'{reconstruction.interval_in_sigmas(0.95):.2f}'
    + _SIGMA_OF_FIT
    * (reconstruction.branch == 'fit'),
  }


def units(reconstruction: HandData) -> dict[str, str]:
  """Explains the numbers of the JSON file."""
  meaning = {
    **_places(reconstruction),
    'photo_to_crop': 'maps pixels of the photo to those of the crop that pictures show',
    'visible_vertices': _visible_meaning(reconstruction),
  }
  if reconstruction.detection is not None:
    meaning['detection'] = (
      'probabilities: that there is a hand, and that the side is right (null where the side was '
      'given)'
    )
  if reconstruction.parameters is not None:
    meaning[f'{_mano_key(reconstruction)}.*'] = _mano_meaning(reconstruction)
  return meaning | _texture_units(reconstruction)


def _sigma(reconstruction: HandData) -> dict[str, Any]:
  sigma = reconstruction.vertex_sigma_mm
  return {
    'mean': float(sigma.mean()),
    'median': float(np.median(sigma)),
    'min': float(sigma.min()),
    'max': float(sigma.max()),
    'joints': _by_joint(reconstruction.joint_sigma_mm),
    'sigmas_of_95_percent': reconstruction.interval_in_sigmas(0.95),
    'degrees_of_freedom': reconstruction.sigma_degrees_of_freedom,
  }


def _detection(reconstruction: HandData) -> dict[str, Any]:
  found = reconstruction.detection
  if found is None:
    return {}
  return {'detection': {'presence': found.presence, 'side_score': side_score(reconstruction)}}


def _camera(reconstruction: HandData) -> dict[str, Any]:
  camera = reconstruction.camera
  return {
    'focal_length_px': camera.focal_length_px,
    'focal_length_source': camera.source_text,
    'principal_point': _numbers(camera.principal_point),
    'wrist_camera': _numbers(reconstruction.wrist_camera),
    'depth_sigma_m': reconstruction.depth_sigma_m,
    'pixels_per_metre': reconstruction.pixels_per_metre,
    'wrist_pixel': _numbers(reconstruction.joints_image[0]),
    'weak_perspective': 'a pixel is about pixels_per_metre * (x, y) + wrist_pixel, with x, y about '
    'the wrist',
    **_estimated_camera(reconstruction),
    'photo_to_crop': _numbers(reconstruction.crop_affine),
  }


def _estimated_camera(reconstruction: HandData) -> dict[str, Any]:
  """Describes the camera that a network estimates. A fit has none."""
  if reconstruction.camera_mean is None:
    return {}
  log_variance = np.asarray(reconstruction.camera_log_variance, np.float64)
  camera = camera_from_vector(np.asarray(reconstruction.camera_mean))
  spread = camera_from_vector(np.exp(0.5 * log_variance))
  prefix = MIRRORED if reconstruction.is_left else ''
  return {
    f'{prefix}estimate': {name: _numbers(value) for name, value in camera._asdict().items()},
    f'{prefix}standard_deviation': {
      name: _numbers(value) for name, value in spread._asdict().items()
    },
    'estimate_meaning': 'stored numbers: first two columns of R (hand to the axes of the crop, row '
    'vectors), translation in normalised crop units (third: metres), scale in normalised crop '
    'units per decimetre',
  }


def _mano_key(reconstruction: HandData) -> str:
  return f'{MIRRORED}mano' if reconstruction.is_left else 'mano'


def _mano(reconstruction: HandData) -> dict[str, Any]:
  if reconstruction.parameters is None:
    return {}
  parameters = {
    name: _numbers(value) for name, value in reconstruction.parameters._asdict().items()
  }
  return {
    _mano_key(reconstruction): {
      'hand_model': reconstruction.hand_model,
      **parameters,
      'mesh_error_mm': reconstruction.parameters_error_mm,
    }
  }


def _mano_meaning(reconstruction: HandData) -> str:
  of_mirrored = ' of the right hand that the mirrored photo shows' if reconstruction.is_left else ''
  exact = reconstruction.parameters_error_mm == 0
  mesh = (
    'the mesh in the files is this parametric hand'
    if exact
    else 'this parametric hand is the nearest to the mesh in the files, mesh_error_mm away from it '
    'on average'
  )
  return (
    f'MANO parameters{of_mirrored}: global_orient and hand_pose in radians, axis-angle from the '
    "flat hand (flat_hand_mean=True) in MANO's joint order (wrist; index, middle, pinky, ring and "
    'thumb with three joints each); transl in metres, which puts the wrist at the origin; '
    f'{mesh}. They pose hand_model and no other: those of the free hand do not animate official '
    'MANO'
  )


def _texture(reconstruction: HandData) -> dict[str, Any]:
  if reconstruction.vertex_colors is None:
    return {}
  if not reconstruction.is_free_hand:
    return {'texture': {'uv': 'none: this hand model has no texture coordinates'}}
  return {'texture': {'uv': "the free hand's, fitted to the picture"}}


def _texture_units(reconstruction: HandData) -> dict[str, str]:
  if reconstruction.vertex_colors is None:
    return {}
  meaning = {
    'vertex_colors': f'in the NPZ file, {_COLORS}',
    '*_textured.obj, *_textured.ply, *_textured.glb': 'the mesh with these colours per vertex '
    '(GLB: linear, as glTF wants them, and marked unlit)',
    '*_texture_views.png': 'crop; the coloured hand over it; the same from 60 degrees to the left '
    'and to the right, larger; no light is added',
  }
  if reconstruction.is_free_hand:
    meaning['*_texture.png'] = (
      "the OBJ's texture (material: *_textured.mtl), made from the colours of the vertices by the "
      "free hand's texture coordinates; faces across a seam have patches at the right"
    )
  return meaning


def _by_joint(values: np.ndarray) -> dict[str, Any]:
  return dict(zip(JOINT_NAMES, _numbers(values), strict=True))


def _numbers(array: Any) -> list:
  return np.asarray(array, np.float64).round(9).tolist()
