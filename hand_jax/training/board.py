"""Writes a run's TensorBoard files, into a folder or a bucket."""

import pathlib
import tempfile

import numpy as np
import tensorboardX
from jaxtyping import UInt8

from hand_jax.files.buckets import AnyPath, upload

_PART_BYTES = 8 << 20


class Board:
  """TensorBoard files, which are written where they lie, or as whole objects of a bucket.

  In a bucket a file is written anew by each `flush`, and a new one begins when it is large.

  Args:
    folder: where the files lie.
    purge_step: TensorBoard forgets what it has of this step and later ones.
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
    """Makes what was added readable by others.

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
    # Names hold the second in which a file begins, and must differ within it too.
    suffix = f'.part{self._parts}'
    folder = str(self._part_folder())
    return tensorboardX.SummaryWriter(folder, purge_step=purge_step, filename_suffix=suffix)
