"""Saves a reconstructed hand, and shows it in notebooks."""

import base64
import html
import os
import pathlib
from typing import get_args

from hand_jax.files.outputs import same_file
from hand_jax.reconstruction.axes import Axes
from hand_jax.reconstruction.files import check_free, output_suffixes, write_reconstruction
from hand_jax.reconstruction.hand_data import HandData
from hand_jax.reconstruction.meshes import png_bytes
from hand_jax.reconstruction.views import overlay_image


class Reconstruction(HandData):
  """A hand of a photo: its data, see `HandData`, with `save` and a view in notebooks."""

  def save(
    self,
    folder: str | os.PathLike,
    name: str | None = None,
    axes: Axes = 'y_up',
    overwrite: bool = False,
  ) -> list[pathlib.Path]:
    """Writes the hand's meshes, pictures and numbers, and returns their paths.

    Args:
      folder: the folder of the files. It is made if it is missing. `~` is expanded.
      name: the beginning of the files' names. None takes the photo's name without its suffix, with
        number and side if the photo has several hands.
      axes: the axes of OBJ and PLY, either 'y_up' like GLB, or 'camera'.
      overwrite: whether to replace files of these names.

    Raises:
      FileExistsError: a file of such a name exists, or one of them is the photo itself, which is
        never replaced.
      ValueError: the axes are unknown, or the name is not a valid file name.
      NotADirectoryError, PermissionError: nothing can be written to the folder.
    """
    folder = os.path.expanduser(folder)
    name = self.file_stem if name is None else name
    if not name or pathlib.PurePath(name).name != name:
      raise ValueError(f'name is {name!r}, expected the beginning of a file name, without folders.')
    if axes not in get_args(Axes):
      raise ValueError(f'axes is {axes!r}, expected one of {", ".join(get_args(Axes))}.')
    suffixes = output_suffixes(self.vertex_colors is not None, self.is_free_hand)
    paths = [pathlib.Path(folder) / f'{name}{suffix}' for suffix in suffixes]
    if not overwrite:
      check_free(paths)
    for path in paths:
      if same_file(path, self.photo_name):
        raise FileExistsError(f'{path} is the photo itself: name another folder, or another name.')
    return write_reconstruction(self, name, folder, axes)

  def _repr_html_(self) -> str:
    """Shows the hand over its photo with its main figures, for notebooks."""
    picture = base64.b64encode(png_bytes(overlay_image(self))).decode()
    sigma, distance = self.vertex_sigma_mm, float(self.wrist_camera[2])
    rows = {
      'hand': f'{self.side} ({self.hand_model}, {len(self.vertices)} vertices)',
      'sigma of the vertices': f'{sigma.mean():.1f} mm on average, '
      f'{sigma.min():.1f} to {sigma.max():.1f}',
      'distance of the wrist': f'{distance:.2f} m, give or take {self.depth_sigma_m:.2f}',
      'focal length': f'{self.camera.focal_length_px:.0f} pixels, {self.camera.source_text}',
    }
    cells = ''.join(
      f'<tr><th style="text-align:left">{html.escape(key)}</th>'
      f'<td style="text-align:left">{html.escape(value)}</td></tr>'
      for key, value in rows.items()
    )
    alternative = html.escape(f'The {self.side} hand of {self.photo_name} and its mesh', quote=True)
    return (
      f'<img alt="{alternative}" style="max-width:100%" src="data:image/png;base64,{picture}">'
      f'<table>{cells}</table>'
    )
