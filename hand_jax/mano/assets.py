"""Hand models from files: the free hand shipped with the package, or MANO's own files."""

import functools
import os
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hand_jax.files.paths import expand_path
from hand_jax.mano.joints import FINGERTIP_VERTICES
from hand_jax.mano.mano_files import find_mano_file, read_converted_mano, read_official_mano
from hand_jax.types import ManoModel

_ASSETS = pathlib.Path(__file__).parent.parent / 'assets'

FREE_HAND_VERSION = 3
"""Version of the free hand that comes with the package.

Files and runs name it, for example as `free hand 3`.
"""


class HandAppearance(NamedTuple):
  """The appearance of a hand, which rendering needs besides the shape.

  The free hand has these arrays, and MANO's files do not.
  """

  uv: Float[Array, 'vertices 2']
  """Texture coordinates."""
  nail: Float[Array, 'vertices']
  """Share of nail at each vertex, from 0 to 1 on the nail."""
  palm: Float[Array, 'vertices']
  """Share of palm at each vertex, from 0 to 1 on the palmar side."""
  forearm_vertices: Float[Array, 'forearm 3']
  """Vertices in metres. They join the wrist's boundary and move rigidly with the wrist joint."""
  forearm_faces: Int[Array, 'forearm_faces 3']
  """Indices into the hand vertices followed by the forearm vertices."""


def load_mano_model(path: str | os.PathLike | None = None, side: str = 'right') -> ManoModel:
  """Loads a hand model as float32 arrays.

  Args:
    path: an official MANO `.pkl`, a converted `.npz`, or a directory that holds `MANO_RIGHT` or
      `MANO_LEFT` in either form. None gives the free hand.
    side: 'right' or 'left'.

  Raises:
    FileNotFoundError: there is no such file, or no model in the directory.
    ValueError: `side` is unknown, or the file is not a hand model of that side.
  """
  _check_side(side)
  arrays = _free_hand(side)
  if path is not None:
    arrays = _mano_arrays(pathlib.Path(os.path.expanduser(path)), side)
  return ManoModel(**{name: jnp.asarray(arrays[name]) for name in ManoModel._fields})


def resolve_mano_dir(flag_value: str | None) -> str | None:
  """Returns the folder of MANO's files: the flag's, else $MANO_DIR's, else None for the free hand.

  Raises:
    FileNotFoundError: the named folder does not exist. The message names the flag or variable.
  """
  origin, directory = '--mano_dir', flag_value
  if not directory:
    # A shell expands ~, but a file that sets the variable does not.
    origin, directory = '$MANO_DIR', expand_path(os.environ.get('MANO_DIR', ''))
  if not directory:
    return None
  if not os.path.exists(directory):
    raise FileNotFoundError(
      f'{directory}: no such folder (from {origin}). Name the one that holds MANO_RIGHT.pkl or '
      f'MANO_RIGHT.npz, or leave {origin} out to use the free hand.'
    )
  return directory


def with_fingertips(model: ManoModel, name: str) -> ManoModel:
  """Replaces the fingertip vertices of a MANO model by those of a data set.

  `name` is a key of `FINGERTIP_VERTICES`.

  Raises:
    ValueError: `name` is not such a key.
  """
  if name not in FINGERTIP_VERTICES:
    raise ValueError(f'fingertips {name!r} are not known, expected one of {[*FINGERTIP_VERTICES]}')
  return model._replace(fingertip_vertices=jnp.asarray(FINGERTIP_VERTICES[name], jnp.int32))


def load_hand_appearance(side: str = 'right') -> HandAppearance:
  """Loads texture coordinates, nail and palm masks and the forearm of the free hand.

  Raises:
    ValueError: `side` is neither 'right' nor 'left'.
  """
  _check_side(side)
  arrays = _free_hand(side)
  return HandAppearance(*(jnp.asarray(arrays[name]) for name in HandAppearance._fields))


def is_free_hand(model: ManoModel) -> bool:
  """Returns whether the model is the right hand that comes with the package.

  That hand has texture coordinates, which MANO's files do not.
  """
  free = _free_hand('right')
  return all(np.array_equal(getattr(model, name), free[name]) for name in ('faces', 'v_template'))


def hand_model_name(model: ManoModel) -> str:
  """Returns the name of a hand model that files use.

  The name is `free hand 3` for the free right hand, and `MANO` for any other model of MANO's
  structure.
  """
  return f'free hand {FREE_HAND_VERSION}' if is_free_hand(model) else 'MANO'


def _check_side(side: str) -> None:
  if side not in ('right', 'left'):
    raise ValueError(f"side is {side!r}, expected 'right' or 'left'")


def _mano_arrays(path: pathlib.Path, side: str) -> dict[str, np.ndarray]:
  if path.is_dir():
    path = find_mano_file(path, side)
  if path.suffix == '.npz':
    return read_converted_mano(path, side)
  return read_official_mano(path, side)


@functools.cache
def _free_hand(side: str) -> dict[str, np.ndarray]:
  with np.load(_ASSETS / f'free_hand_{side}.npz', allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  vertices = arrays['v_template'].shape[0]
  arrays.setdefault('posedirs', np.zeros((vertices, 3, 135), np.float32))
  return {
    name: value.astype(np.int32) if value.dtype.kind in 'iu' else value.astype(np.float32)
    for name, value in arrays.items()
    if value.dtype.kind in 'iuf'
  }
