"""Reads, checks and writes the prediction files of FreiHAND and HO3D: pred.json and pred.zip.

pred.json is [[joints of every sample], [vertices of every sample]]: 21 x 3 and 778 x 3 numbers in
metres. They are absolute camera coordinates in the benchmark's own joint order and axes. Files are
read and written sample by sample, because HO3D's hold fifty million numbers.
"""

import contextlib
import io
import itertools
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.official.rules import Benchmark
from hand_jax.files.json_lists import JsonListReader
from hand_jax.files.writing import unfinished_path

JOINTS = 21
VERTICES = 778  # of MANO's mesh, which the servers ask for
ENTRY = 'pred.json'
BATCH = 64  # samples measured at a time
DECIMALS = 8  # rounds to a hundredth of a micrometre, which halves the file
WIDEST_HAND_M = 2.0
NARROWEST_HAND_M = 0.01


class Samples(NamedTuple):
  """Some samples of predictions and of the ground truth, metres, in a benchmark's convention."""

  joints: Float[np.ndarray, 'samples 21 3']
  vertices: Float[np.ndarray, 'samples predicted_vertices 3']
  true_joints: Float[np.ndarray, 'samples 21 3']
  true_vertices: Float[np.ndarray, 'samples vertices 3']


@contextlib.contextmanager
def open_prediction_text(path: str | os.PathLike) -> Iterator[io.TextIOBase]:
  """Opens the text of a pred.json, or of the one in a pred.zip, as the file's content decides.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a zip file is damaged or holds no pred.json.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file; expected predictions, a pred.json or pred.zip.')
  with open(path, 'rb') as file:
    is_zip = file.read(2) == b'PK'
    file.seek(0)
    if not is_zip:
      yield io.TextIOWrapper(file, encoding='utf-8-sig')
      return
    try:
      archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
      raise ValueError(f'{path}: the zip file is damaged ({error}).') from None
    with archive:
      if ENTRY not in archive.namelist():
        held = ', '.join(archive.namelist()[:5]) or 'nothing'
        raise ValueError(
          f'{path}: expected {ENTRY} at the top of the zip file, found {held}. Make it with '
          f'zip -j pred.zip {ENTRY}.'
        )
      try:
        entry = archive.open(ENTRY)
      except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # also: encrypted
        raise ValueError(f'{path}: {ENTRY} cannot be unpacked ({error}).') from None
      with entry:
        yield io.TextIOWrapper(entry, encoding='utf-8-sig')


def as_points(value: Any, count: int | None, where: str) -> Float[np.ndarray, 'points 3']:
  """Turns nested JSON lists into one sample's points.

  Args:
    value: the content of the file for the sample.
    count: the expected number of points, or None for any number.
    where: names file, kind and sample in error messages.

  Raises:
    ValueError: the lists are not `count` x 3 finite numbers.
  """
  expected = f'expected {"N" if count is None else count} x 3 numbers'
  try:
    points = np.asarray(value)
  except ValueError:
    raise ValueError(f'{where}: {expected}, found lists of unequal length.') from None
  if points.dtype.kind not in 'iuf':
    raise ValueError(
      f'{where}: {expected}, found text, null, true, false or a number too large for any float.'
    )
  points = points.astype(np.float64)
  if points.ndim != 2 or points.shape[1] != 3 or len(points) != (count or len(points) or 1):
    shape = ' x '.join(str(size) for size in points.shape) or 'a single value'
    raise ValueError(f'{where}: {expected}, found {shape}.')
  if not np.isfinite(points).all():
    point = int(np.argmin(np.isfinite(points).all(axis=1)))
    raise ValueError(
      f'{where}: expected finite numbers, found {points[point].tolist()} at point {point}.'
    )
  return points


def read_points(
  reader: JsonListReader, kind: str, count: int | None, path: str | os.PathLike
) -> Iterator[Float[np.ndarray, 'points 3']]:
  """Reads the point sets of a list that was entered, one per sample and all of one size.

  Args:
    reader: the reader, which has entered the list.
    kind: the name of the points in error messages.
    count: the number of points of each sample, or None to take that of the first sample.
    path: the name of the file in error messages.
  """
  for number, value in enumerate(reader.elements(f'{kind} of sample')):
    points = as_points(value, count, f'{path}: {kind} of sample {number} (from 0)')
    count = len(points)
    yield points


def read_truth(
  ground_truth: str | os.PathLike, kind: str, count: int | None
) -> Iterator[Float[np.ndarray, 'points 3']]:
  """Reads the genuine evaluation_xyz.json or evaluation_verts.json sample by sample.

  Args:
    ground_truth: folder of both files.
    kind: `xyz` or `verts`.
    count: how many points each sample has, or None for as many as the first has.

  Raises:
    FileNotFoundError: the folder does not hold the file.
    ValueError: the file is damaged.
  """
  path = pathlib.Path(ground_truth) / f'evaluation_{kind}.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path}: no such file; --ground_truth should be the folder with evaluation_xyz.json and '
      'evaluation_verts.json, as the data set has them.'
    )
  with open(path, encoding='utf-8-sig') as file:
    reader = JsonListReader(file, str(path))
    reader.enter('a list of samples')
    yield from read_points(reader, {'xyz': 'joints', 'verts': 'vertices'}[kind], count, path)
    reader.end_of_file()


class PredictionReader:
  """Reads an open prediction file: its joints at once, then its vertices sample by sample.

  A file may hold joints alone: `[[...]]`, or `[[...], []]`. Then it has no vertices to read.

  Raises:
    ValueError: the file is not as expected. The error names the sample and what was expected.
  """

  def __init__(self, file: io.TextIOBase, path: str | os.PathLike):
    self._path = path
    self._reader = JsonListReader(file, str(path))
    self._reader.enter('a list of two lists (joints and vertices)')
    self._reader.enter('the list of joints')
    joints = list(read_points(self._reader, 'joints', JOINTS, path))
    self.joints = np.stack(joints) if joints else np.zeros((0, JOINTS, 3))
    self.has_vertices = self._find_vertices()

  def _find_vertices(self) -> bool:
    """Goes to the first mesh, or to the end of a file without any."""
    reader = self._reader
    if not reader.is_at(']'):
      reader.comma('the list of vertices')
      reader.enter('the list of vertices')
      if not reader.is_at(']'):
        return True
      reader.leave()
    reader.leave()
    reader.end_of_file()
    return False

  def vertices(self) -> Iterator[Float[np.ndarray, 'vertices 3']]:
    """Reads the vertices of every sample. Those of a file with joints alone are empty."""
    if not self.has_vertices:
      yield from (np.zeros((0, 3)) for _ in self.joints)
      return
    points = read_points(self._reader, 'vertices', None, self._path)
    yield from _exactly(len(self.joints), points, self._path)
    self._reader.leave()
    self._reader.end_of_file()


def _exactly(
  count: int, points: Iterator[np.ndarray], path: str | os.PathLike
) -> Iterator[np.ndarray]:
  """Passes on `count` sets of points, and raises an error at the end if there are more or fewer."""
  found = 0
  for found, item in enumerate(points, start=1):
    if found <= count:
      yield item
  if found != count:
    raise ValueError(
      f'{path}: expected vertices of {count} samples, as many as there are joints of, '
      f'found {found}.'
    )


def check_plausible(
  points: Float[np.ndarray, 'samples points 3'],
  benchmark: Benchmark,
  where: str,
  every_sample: bool = False,
) -> None:
  """Refuses points that seem to be in another unit or other axes than the benchmark's.

  Args:
    points: the points of some samples.
    benchmark: the benchmark that they are for.
    where: names the points in errors.
    every_sample: whether a single sample in wrong axes is refused, as by HO3D's own script before
      it writes. Otherwise most samples must be. The unit is always judged by the samples' median.

  Raises:
    ValueError: the points are implausible. The error names the unit or axes that they seem to have.
  """
  if not points.size:
    return
  widths = np.ptp(points, axis=1).max(axis=1)
  width = float(np.median(widths))
  if width > WIDEST_HAND_M:
    unit = 'millimetres' if width > 50 else 'centimetres'
    raise ValueError(
      f'{where}: expected metres; half the hands are wider than {width:.0f} m, so that the values '
      f'look like {unit}. Divide them by {1000 if unit == "millimetres" else 100}.'
    )
  if 0 < width < NARROWEST_HAND_M:  # all zero means that nothing was predicted
    raise ValueError(
      f'{where}: expected metres; half the hands are narrower than {1000 * width:.2g} mm, so that '
      'the values look like another unit, or like hands scaled to one size.'
    )
  z = points[..., 2]
  wrong = np.all(z > 0 if benchmark.is_opengl else z < 0, axis=1)
  if not (wrong.any() if every_sample else wrong.mean() > 0.5):
    return
  side, axes = (('z < 0', 'OpenGL'), ('z > 0', 'OpenCV'))[not benchmark.is_opengl]
  raise ValueError(
    f'{where}: expected {axes} axes, in which hands lie at {side}; '
    f'{int(wrong.sum())} of {len(wrong)} samples lie behind the camera, first sample '
    f'{int(np.argmax(wrong))} (from 0). Multiply y and z by -1 if the axes are the other ones.'
  )


def read_pairs(
  predictions: str | os.PathLike,
  ground_truth: str | os.PathLike,
  benchmark: Benchmark,
  allow_implausible: bool = False,
) -> Iterator[Samples]:
  """Reads predictions beside the ground truth, `BATCH` samples at a time and every sample once.

  Args:
    predictions: a pred.json or pred.zip. If it holds joints alone, its meshes have no vertices.
    ground_truth: folder with evaluation_xyz.json and evaluation_verts.json.
    benchmark: the benchmark that they are for.
    allow_implausible: whether to also read points that `check_plausible` refuses.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is not as expected. The error names it, the sample and what was expected.
  """
  true_joints = list(read_truth(ground_truth, 'xyz', JOINTS))
  true_vertices = read_truth(ground_truth, 'verts', None)
  with open_prediction_text(predictions) as file:
    reader = PredictionReader(file, predictions)
    joints = reader.joints
    if len(joints) != len(true_joints):
      raise ValueError(
        f'{predictions}: expected {len(true_joints)} samples, as many as {ground_truth} has '
        f'(the genuine {benchmark.title} has {benchmark.samples}), found {len(joints)}.'
      )
    if not allow_implausible:
      check_plausible(np.stack(true_joints), benchmark, f'{ground_truth}: evaluation_xyz.json')
      check_plausible(joints, benchmark, f'{predictions}: joints')
    vertices = reader.vertices()
    true_vertices = _exactly(len(true_joints), true_vertices, ground_truth)
    for start in range(0, len(joints), BATCH):
      rows = slice(start, min(start + BATCH, len(joints)))
      taken = [
        np.stack(list(itertools.islice(points, rows.stop - start)))
        for points in (vertices, true_vertices)
      ]
      if not (start or allow_implausible):
        check_plausible(taken[1], benchmark, f'{ground_truth}: evaluation_verts.json')
        check_plausible(taken[0], benchmark, f'{predictions}: vertices')
      yield Samples(joints[rows], taken[0], np.stack(true_joints[rows]), taken[1])
    for points in (vertices, true_vertices):
      next(points, None)  # finds out whether the file holds more than it should


def write_submission(
  path: str | os.PathLike,
  joints: Float[np.ndarray, 'samples joints 3'],
  vertices: Float[np.ndarray, 'meshes vertices 3'],
  benchmark: Benchmark,
  samples: int,
) -> None:
  """Writes predictions in the form that a server accepts.

  Args:
    path: a name that ends in .json, or in .zip for a zip file with a pred.json. The file gets this
      name after it was read back and checked.
    joints: the predicted joints, metres, in the benchmark's own axes and joint order.
    vertices: the predicted meshes, metres, in the benchmark's own axes.
    benchmark: the benchmark.
    samples: the number of samples in its evaluation split. The predictions have the order of that
      split.

  Raises:
    ValueError: the predictions are no valid submission. No file of this name is written.
    FileNotFoundError: the folder is missing.
  """
  path = check_submission_path(path)
  if vertices.shape[1:] != (VERTICES, 3):
    raise ValueError(
      f"{path}: expected meshes of {VERTICES} vertices, MANO's, found {vertices.shape[1]}. "
      f'{benchmark.title} takes no others.'
    )
  with unfinished_path(path) as unfinished:
    with _open_to_write(unfinished, is_zip=path.suffix == '.zip') as file:
      _write_lists(file, (joints, vertices))
    check_submission(unfinished, benchmark, samples, name=path)


def check_submission_path(path: str | os.PathLike) -> pathlib.Path:
  """Checks that a submission can be written to the path, and returns it.

  Raises:
    ValueError: the name ends neither in .json nor in .zip.
    FileNotFoundError: there is no such folder.
  """
  path = pathlib.Path(path)
  if path.suffix not in ('.json', '.zip'):
    raise ValueError(f'{path}: expected a name that ends in .json or .zip for a submission.')
  if not path.parent.is_dir():
    raise FileNotFoundError(f'{path}: there is no folder {path.parent} to write a submission into.')
  return path


@contextlib.contextmanager
def _open_to_write(path: pathlib.Path, is_zip: bool) -> Iterator[IO[bytes]]:
  if not is_zip:
    with open(path, 'wb') as file:
      yield file
    return
  with (
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open(ENTRY, 'w', force_zip64=True) as file,
  ):
    yield file


def _write_lists(file: io.BufferedIOBase | IO[bytes], lists: Iterable[np.ndarray]) -> None:
  for opening, points in zip((b'[[', b', ['), lists, strict=True):
    file.write(opening)
    for number, sample in enumerate(points):
      text = json.dumps(np.round(sample.astype(np.float64), DECIMALS).tolist())
      file.write((', ' * (number > 0) + text).encode())
    file.write(b']')
  file.write(b']')


def check_submission(
  path: str | os.PathLike,
  benchmark: Benchmark,
  samples: int,
  name: str | os.PathLike | None = None,
) -> None:
  """Reads a file as its server would, and checks all of it.

  Args:
    path: the file.
    benchmark: the benchmark that it is for.
    samples: how many samples are expected.
    name: the name of the file in error messages, if it is not the path.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is no submission. The error names the sample and what was expected.
  """
  name = name or path
  with open_prediction_text(path) as file:
    reader = PredictionReader(file, name)
    if len(reader.joints) != samples:
      raise ValueError(f'{name}: expected {samples} samples, found {len(reader.joints)}.')
    if not reader.has_vertices:
      raise ValueError(f'{name}: expected joints and vertices, found joints alone.')
    check_plausible(reader.joints, benchmark, f'{name}: joints', every_sample=benchmark.is_opengl)
    vertices = reader.vertices()
    for start in range(0, samples, BATCH):
      taken = np.stack(list(itertools.islice(vertices, min(BATCH, samples - start))))
      if taken.shape[1] != VERTICES:
        raise ValueError(
          f'{name}: vertices of sample {start} (from 0): expected {VERTICES} x 3 numbers, found '
          f'{taken.shape[1]} x 3.'
        )
      where = f'{name}: vertices of samples {start} to {start + len(taken) - 1}'
      check_plausible(taken, benchmark, where, every_sample=benchmark.is_opengl)
    next(vertices, None)
