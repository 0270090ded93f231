"""Writes a run's TensorBoard files, into a folder or a bucket."""

import pathlib
import tempfile

import numpy as np
import tensorboardX
from jaxtyping import UInt8

from hand_jax.files.buckets import AnyPath, upload

_PART_BYTES = 8 << 20


class Board:
  """The TensorBoard files of a run. They are written in place, or as whole objects of a bucket.

  In a bucket each `flush` writes the file again as a whole. A new file begins when it is large.

  Args:
    folder: the folder of the files.
    purge_step: TensorBoard drops its data from this step on.
  """

  def __init__(self, folder: AnyPath, purge_step: int):
    self._folder, self._parts = folder, 0
    is_local = isinstance(folder, pathlib.Path)
    self._temporary = None if is_local else tempfile.TemporaryDirectory()
    self._writer = self._open(purge_step)

  def add_scalar(self, name: str, value: float | int, step: int) -> None:
    """Adds a figure of a step."""
    self._writer.add_scalar(name, value, step)

  def add_image(self, name: str, image: UInt8[np.ndarray, 'height width 3'], step: int) -> None:
    """Adds a picture of a step, in RGB."""
    self._writer.add_image(name, image, step, dataformats='HWC')

  def flush(self) -> None:
    """Writes all added figures and pictures, so that others can read them.

    Raises:
      OSError: the bucket cannot be written to.
    """
    self._writer.flush()
    if self._temporary is None:
      return
    part = self._part_folder()
    upload(part, self._folder)
    if sum(file.stat().st_size for file in part.iterdir()) > _PART_BYTES:
      self._writer.close()
      self._parts += 1
      self._writer = self._open(None)

  def close(self) -> None:
    """Closes the files."""
    if self._temporary is None:
      self._writer.close()
      return
    self.flush()
    self._writer.close()
    self._temporary.cleanup()

  def _part_folder(self) -> pathlib.Path:
    assert self._temporary is not None
    return pathlib.Path(self._temporary.name) / str(self._parts)

  def _open(self, purge_step: int | None) -> tensorboardX.SummaryWriter:
    if self._temporary is None:
      return tensorboardX.SummaryWriter(str(self._folder), purge_step=purge_step)
    # Names contain the second in which a file begins. Files of the same second must differ too.
    suffix = f'.part{self._parts}'
    folder = str(self._part_folder())
    return tensorboardX.SummaryWriter(folder, purge_step=purge_step, filename_suffix=suffix)
