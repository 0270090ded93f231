"""Reads and checks MANO's own model files, corrects the left hand, and converts to `.npz`.

The files come from https://mano.is.tue.mpg.de under their own licence and are never shipped here.
"""

import os
import pathlib
import zipfile
from typing import Any

import numpy as np
from absl import logging

from hand_jax.files.safe_pickle import load_pickle
from hand_jax.files.writing import unfinished_path
from hand_jax.mano.joints import FINGERTIP_VERTICES, MANO_PARENTS

OFFICIAL_NAMES = {'right': 'MANO_RIGHT', 'left': 'MANO_LEFT'}
# Each official key maps to our name and the shape.
_OFFICIAL_KEYS = {
  'v_template': ('v_template', (778, 3)),
  'shapedirs': ('shapedirs', (778, 3, 10)),
  'posedirs': ('posedirs', (778, 3, 135)),
  'J_regressor': ('joint_regressor', (16, 778)),
  'weights': ('lbs_weights', (778, 16)),
  'f': ('faces', (1538, 3)),
  'hands_mean': ('hands_mean', (45,)),
  'hands_components': ('hands_components', (45, 45)),
}
_CONVERTED_SHAPES = {**dict(_OFFICIAL_KEYS.values()), 'fingertip_vertices': (5,)}
_INTEGER_ARRAYS = ('faces', 'fingertip_vertices')
# Plausible lengths of a hand from wrist to fingertips, with much room either way.
_LENGTHS_M = (0.05, 0.5)
# A converted model holds some 3 MB of numbers, but a hostile compressed file could unfold to much
# more.
MAX_CONVERTED_BYTES = 64 * 1024 * 1024


def find_mano_file(directory: str | os.PathLike, side: str) -> pathlib.Path:
  """Finds the model of one side in a folder or in its subfolder `models`.

  The name is MANO_RIGHT or MANO_LEFT, or the same in lower case. An `.npz` is preferred to a
  `.pkl`.

  Raises:
    FileNotFoundError: the folder has no such file.
  """
  directory = pathlib.Path(directory)
  name = OFFICIAL_NAMES[side]
  for folder in (directory, directory / 'models'):
    for file_name in (
      f'{stem}{suffix}' for suffix in ('.npz', '.pkl') for stem in (name, name.lower())
    ):
      if (folder / file_name).is_file():
        return folder / file_name
  raise FileNotFoundError(
    f'{directory}: no {name}.pkl or {name}.npz in it. Download the MANO models from'
    ' https://mano.is.tue.mpg.de, or leave the folder out to use the free hand.'
  )


def read_official_mano(path: str | os.PathLike, side: str) -> dict[str, np.ndarray]:
  """Reads the arrays of an official `.pkl`, named as in `ManoModel`, in float32, int32 and metres.

  MANO_LEFT was published with the wrong sign of x in its shape components. This function corrects
  them, unless MANO_RIGHT lies beside the file, in any form, and shows that they
  already mirror the right hand's. If MANO_RIGHT is missing, a warning states the assumption.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not a MANO file, is damaged or hostile, or is of the other side.
  """
  path = pathlib.Path(path)
  arrays = _read_checked(path, side)
  if side == 'left' and _needs_mending(path, arrays['shapedirs']):
    arrays['shapedirs'] = arrays['shapedirs'] * np.asarray([-1, 1, 1], np.float32)[None, :, None]
  return arrays


def read_converted_mano(path: str | os.PathLike, side: str) -> dict[str, np.ndarray]:
  """Reads the arrays of a file that `write_converted_mano` or `experiments.convert_mano` wrote.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not a converted model, is damaged, or is of the other side.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(member.file_size for member in archive.infolist())
    if size > MAX_CONVERTED_BYTES:
      raise ValueError(f'it unfolds to {size} bytes')
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except Exception as error:  # zipfile, zlib and NumPy have a dozen ways to say "damaged".
    raise ValueError(f'{path}: not a readable .npz file ({error})') from None
  missing = [name for name in (*_CONVERTED_SHAPES, 'side') if name not in arrays]
  if missing:
    raise ValueError(f'{path}: lacks {missing[0]!r}, not a converted MANO model')
  file_side = str(arrays.pop('side'))
  arrays = {name: arrays[name] for name in _CONVERTED_SHAPES}
  for name, shape in _CONVERTED_SHAPES.items():
    _check_array(path, name, arrays[name], shape)
  if file_side != side:
    raise ValueError(f'{path}: a {file_side} hand, expected a {side} one')
  _check_content(path, arrays, side)
  return _as_model_types(arrays)


def write_converted_mano(path: str | os.PathLike, arrays: dict[str, np.ndarray], side: str) -> None:
  """Writes a model as a plain `.npz`, which gets its final name only when it is complete.

  Args:
    path: the file to write. Its name has to end in `.npz`.
    arrays: the arrays of the model, named as in `ManoModel`.
    side: 'right' or 'left', stored with the arrays.

  Raises:
    ValueError: the name does not end in `.npz`.
  """
  path = pathlib.Path(path)
  if path.suffix != '.npz':
    raise ValueError(f'{path}: the name of a converted model has to end in .npz')
  with unfinished_path(path) as unfinished, unfinished.open('wb') as file:
    contents: dict[str, Any] = {'side': np.asarray(side), **arrays}
    np.savez_compressed(file, **contents)


def side_of_template(template: np.ndarray, joint_regressor: np.ndarray) -> str:
  """Finds the side of a template hand in MANO's axes.

  Returns 'right' where the fingers point along -x from the wrist, and 'left' where they point
  along +x.
  """
  joints = joint_regressor @ template
  return 'right' if joints[4, 0] < joints[0, 0] else 'left'


def _read_checked(path: pathlib.Path, side: str) -> dict[str, np.ndarray]:
  content = load_pickle(path)
  if not isinstance(content, dict):
    raise ValueError(f'{path}: holds a {type(content).__name__}, expected a MANO model (a dict)')
  missing = [key for key in (*_OFFICIAL_KEYS, 'kintree_table') if key not in content]
  if missing:
    raise ValueError(f'{path}: lacks {missing[0]!r}, not a MANO model')
  arrays = {}
  for key, (name, shape) in _OFFICIAL_KEYS.items():
    arrays[name] = _check_array(path, key, content[key], shape)
  parents = _check_array(path, 'kintree_table', content['kintree_table'], (2, 16))[0]
  # The root's parent is -1, stored as the largest unsigned number.
  if parents[1:].astype(np.int64).tolist() != list(MANO_PARENTS[1:]):
    raise ValueError(f"{path}: its joints are not connected as MANO's hand is")
  arrays['fingertip_vertices'] = np.asarray(FINGERTIP_VERTICES['freihand'], np.int32)
  _check_content(path, arrays, side)
  return _as_model_types(arrays)


def _check_array(path: pathlib.Path, name: str, value: object, shape: tuple) -> np.ndarray:
  if not isinstance(value, np.ndarray) or value.dtype.kind not in 'iuf':
    raise ValueError(f'{path}: {name} is not an array of numbers')
  if value.shape != shape:
    raise ValueError(f'{path}: {name} has shape {value.shape}, expected {shape}')
  if not np.all(np.isfinite(value)):
    raise ValueError(f'{path}: {name} holds a value that is not finite')
  return value


def _check_content(path: pathlib.Path, arrays: dict[str, np.ndarray], side: str) -> None:
  vertices = arrays['v_template'].shape[0]
  for name in _INTEGER_ARRAYS:
    if arrays[name].dtype.kind == 'f':
      raise ValueError(f'{path}: {name} holds {arrays[name].dtype} numbers, expected whole ones')
    if arrays[name].min() < 0 or arrays[name].max() >= vertices:
      raise ValueError(f'{path}: {name} names a vertex outside 0..{vertices - 1}')
  for name in ('lbs_weights', 'joint_regressor'):
    if np.abs(arrays[name].sum(axis=1) - 1).max() > 1e-3:
      raise ValueError(f'{path}: the rows of {name} do not sum to one')
  length = float(np.ptp(arrays['v_template'], axis=0).max())
  if not _LENGTHS_M[0] <= length <= _LENGTHS_M[1]:
    raise ValueError(
      f'{path}: its hand is {length:.3g} m long, expected metres and a length from '
      f'{_LENGTHS_M[0]} to {_LENGTHS_M[1]}; are its lengths in mm or cm?'
    )
  found = side_of_template(arrays['v_template'], arrays['joint_regressor'])
  if found != side:
    raise ValueError(f'{path}: a {found} hand, expected a {side} one')


def _as_model_types(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {
    name: value.astype(np.int32 if name in _INTEGER_ARRAYS else np.float32)
    for name, value in arrays.items()
  }


def _needs_mending(path: pathlib.Path, shapedirs: np.ndarray) -> bool:
  """Returns whether a left hand's shape components have the published sign error."""
  try:
    right_path = find_mano_file(path.parent, 'right')
  except FileNotFoundError:
    logging.warning(
      '%s: took it for the published file and mended the sign of x in its shape components. '
      'If yours is mended already, put MANO_RIGHT beside it, which tells.',
      path,
    )
    return True
  read = read_converted_mano if right_path.suffix == '.npz' else _read_checked
  right_x = read(right_path, 'right')['shapedirs'][:, 0]
  # A mirrored component has the opposite x, and a faulty one has the same x.
  faulty = np.abs(shapedirs[:, 0] - right_x).sum() < np.abs(shapedirs[:, 0] + right_x).sum()
  verdict = 'mended the sign of x in' if faulty else 'left as they are, mirroring the right hand:'
  logging.info('%s: %s its shape components', path, verdict)
  return bool(faulty)
