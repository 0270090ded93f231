"""Writes the files of reconstructions: meshes, pictures, numbers. All of them appear, or none."""

import io
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hand_jax.files.outputs import OutputFolderError, check_output_folder
from hand_jax.reconstruction.axes import Axes
from hand_jax.reconstruction.folder_lock import UNFINISHED_PREFIX
from hand_jax.reconstruction.hand_data import HandData
from hand_jax.reconstruction.meshes import (
  MeshPart,
  glb_bytes,
  legend_image,
  obj_text,
  ply_bytes,
  png_bytes,
  sigma_colors,
  sigma_range_mm,
)
from hand_jax.reconstruction.numbers import json_content, npz_content
from hand_jax.reconstruction.texture_picture import (
  free_hand_texture,
  material_text,
  textured_obj_text,
)
from hand_jax.reconstruction.views import hands_image, overlay_image, texture_image

OUTPUT_SUFFIXES = (
  '_overlay.png',
  '_legend.png',
  '.obj',
  '.ply',
  '.glb',
  '.npz',
  '.json',
)
# Suffixes for a hand with vertex colours, and for a hand that also has texture coordinates.
TEXTURE_SUFFIXES = ('_texture_views.png', '_textured.obj', '_textured.ply', '_textured.glb')
UV_SUFFIXES = ('_textured.mtl', '_texture.png')
# Suffixes for a photo with any number of hands.
PHOTO_SUFFIXES = ('_hands.jpg', '_scene.glb')


def output_suffixes(has_colors: bool, is_free_hand: bool) -> tuple[str, ...]:
  """Lists the suffixes of a hand's files, with vertex colours or without."""
  if not has_colors:
    return OUTPUT_SUFFIXES
  return OUTPUT_SUFFIXES + TEXTURE_SUFFIXES + (UV_SUFFIXES if is_free_hand else ())


def check_free(paths: Iterable[pathlib.Path]) -> None:
  """Checks that none of the files exists.

  Raises:
    FileExistsError: one exists. The message names it.
  """
  for path in paths:
    if os.path.lexists(path):
      raise FileExistsError(
        f'{path} exists: it stays as it is. Name another folder or name, or pass overwrite=True.'
      )


def write_reconstruction(
  reconstruction: HandData,
  name: str,
  folder: str | os.PathLike,
  axes: Axes = 'y_up',
) -> list[pathlib.Path]:
  """Writes `NAME_overlay.png`, `.obj`, `.ply`, `.glb`, `.npz`, `.json` and a legend of the colours.

  A hand with vertex colours has further files, `NAME_texture...`, with views and meshes. The free
  hand also has a texture picture with the OBJ's material. Files of these names are replaced. The
  NPZ and JSON files leave out values that the network does not estimate.

  Args:
    reconstruction: the hand.
    name: the beginning of the files' names.
    folder: the folder of the files. It is made if it is missing.
    axes: the axes of OBJ and PLY, see `in_axes`.

  Returns:
    The paths in the order of `output_suffixes`.

  Raises:
    NotADirectoryError: a file is where the folder should be.
  """
  return write_together(folder, hand_files(reconstruction, name, axes, {}))


def write_together(folder: str | os.PathLike, contents: Mapping[str, bytes]) -> list[pathlib.Path]:
  """Writes all files under temporary names, and renames them when all are finished.

  Args:
    folder: the folder of the files. It is made if it is missing.
    contents: the content of each file by its name.

  Raises:
    NotADirectoryError: a file is where the folder should be.
    OSError: a file cannot be written. Then none of them appears.
  """
  check_output_folder(folder)
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise OutputFolderError.of(folder, error) from None
  paths = [folder / name for name in contents]
  for path in paths:
    if path.is_dir():
      raise IsADirectoryError(f'{path} is a folder where a file should go. Name another --output.')
  with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=folder) as unfinished:
    partial = pathlib.Path(unfinished)
    for name, content in contents.items():
      (partial / name).write_bytes(content)
    for path in paths:
      (partial / path.name).replace(path)
  return paths


def hand_files(
  reconstruction: HandData, name: str, axes: Axes, record: dict[str, Any]
) -> dict[str, bytes]:
  """Makes the contents of one hand's files by their names, in the order of `output_suffixes`.

  Args:
    reconstruction: the hand.
    name: the beginning of the files' names.
    axes: the axes of OBJ and PLY, see `in_axes`.
    record: further entries of the JSON file, such as the settings.
  """
  sigma_mm = reconstruction.vertex_sigma_mm
  range_mm = sigma_range_mm(sigma_mm)
  colors = sigma_colors(sigma_mm, range_mm)
  vertices, faces = reconstruction.vertices, reconstruction.faces
  numbers = json_content(reconstruction, record)
  part = MeshPart('hand', vertices, faces, colors, sigma_mm)
  contents = {
    '_overlay.png': png_bytes(overlay_image(reconstruction)),
    '_legend.png': png_bytes(legend_image(range_mm, 512)),
    '.obj': obj_text(vertices, faces, axes=axes).encode(),
    '.ply': ply_bytes(vertices, faces, colors, sigma_mm, axes),
    '.glb': glb_bytes([part]),
    '.npz': _npz_bytes(npz_content(reconstruction)),
    '.json': (json.dumps(numbers, indent=2, allow_nan=False) + '\n').encode(),
  }
  if reconstruction.vertex_colors is not None:
    contents |= _texture_files(reconstruction, name, axes)
  return {f'{name}{suffix}': content for suffix, content in contents.items()}


def photo_files(hands: Sequence[HandData], stem: str) -> dict[str, bytes]:
  """Makes the files that show all hands of one photo: a picture, and a scene in metres.

  Args:
    hands: the hands of one photo, at least one.
    stem: the beginning of the files' names.
  """
  range_mm = sigma_range_mm(np.concatenate([hand.vertex_sigma_mm for hand in hands]))
  parts = [
    MeshPart(
      f'{number}_{hand.side}',
      hand.vertices_camera,
      hand.faces,
      sigma_colors(hand.vertex_sigma_mm, range_mm),
      hand.vertex_sigma_mm,
    )
    for number, hand in enumerate(hands, start=1)
  ]
  return {f'{stem}_hands.jpg': hands_image(hands), f'{stem}_scene.glb': glb_bytes(parts)}


def _texture_files(reconstruction: HandData, name: str, axes: Axes) -> dict[str, bytes]:
  vertices, faces = reconstruction.vertices, reconstruction.faces
  colors, sigma_mm = reconstruction.vertex_colors, reconstruction.vertex_sigma_mm
  assert colors is not None
  part = MeshPart('hand', vertices, faces, colors, sigma_mm)
  contents = {
    '_texture_views.png': png_bytes(texture_image(reconstruction)),
    '_textured.obj': obj_text(vertices, faces, colors, axes).encode(),
    '_textured.ply': ply_bytes(vertices, faces, colors, sigma_mm, axes),
    '_textured.glb': glb_bytes([part], unlit=True),
  }
  if not reconstruction.is_free_hand:
    return contents
  obj = textured_obj_text(
    vertices, faces, colors, f'{name}_textured.mtl', reconstruction.is_left, axes
  )
  return contents | {
    '_textured.obj': obj.encode(),
    '_textured.mtl': material_text(f'{name}_texture.png').encode(),
    '_texture.png': png_bytes(free_hand_texture(colors)),
  }


def _npz_bytes(arrays: dict[str, Any]) -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()
