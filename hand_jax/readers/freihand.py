"""Reads FreiHAND as it is downloaded, and converts its samples to our conventions.

Zimmermann et al., "FreiHAND: A Dataset for Markerless Capture of Hand Pose and Shape from Single
RGB Images", ICCV 2019. The layout is described in datasets/freihand/README.md. The joints are
already in the standard order and the axes are ours. But the pixels of `K` count from pixel centres,
and the 45 pose numbers of `mano` count from MANO's mean pose.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hand_jax.examples import HandExample, Skip, encode_with_photo
from hand_jax.geometry.cameras import perspective_from_intrinsics, project_perspective
from hand_jax.mano.joints import DATASET_TO_STANDARD, JOINT_NAMES
from hand_jax.mano.model import mano_forward
from hand_jax.readers.annotation_files import (
  BadExampleError,
  JsonEntries,
  as_numbers,
  check_in_front,
  files_digest,
  listed,
  missing_paths,
  read_encoded_photo,
  read_json_entries,
  read_mask_image,
  shift_to_continuous,
)
from hand_jax.readers.plausible import (
  check_camera,
  check_distance,
  check_extent,
  check_extents,
)
from hand_jax.types import HandParameters, ManoModel

IMAGE_SIZE = (224, 224)
VERSIONS = ('green screen', 'harmonized', 'colorized sample', 'colorized automatically')
"""Photo number i + k n shows sample i of n in version k.

The versions of a sample have different backgrounds and the same hand.
"""
NUM_VERTICES = 778
CHUNK = 32  # a worker reads this many photos at a time
# Twice this box is the whole photo, which is already cut around the hand.
NOMINAL_BOX = np.array([56, 56, 112, 112], np.float32)
# `mano` holds 48 rotations, 10 betas, the root's u and v in pixels, and focal length over depth.
_MANO_SIZE = 61
# The translation refers to this joint.
_ROOT = JOINT_NAMES.index('middle_mcp')
# If a larger share of the annotated photos is missing, the download is not complete.
MAX_MISSING = 0.2

_SHAPES = {
  'K': (3, 3),
  'xyz': (len(JOINT_NAMES), 3),
  'verts': (NUM_VERTICES, 3),
  'mano': (1, _MANO_SIZE),
}
_REQUIRED = {'training': tuple(_SHAPES), 'evaluation': ('K',)}
_VERSION_COUNT = {'training': len(VERSIONS), 'evaluation': 1}


class FreihandSplit(NamedTuple):
  """One half of the data set, checked: the annotations of its samples, and where its photos are.

  `verts` and `xyz` in `labels` are metres in camera axes. `problems` holds, by the sample's number,
  the reason why a sample cannot be used.
  """

  folder: pathlib.Path
  name: str  # training or evaluation
  samples: int
  versions: int
  labels: dict[str, Float[np.ndarray, 'samples *shape']]
  problems: dict[int, str]


class FreihandJob(NamedTuple):
  """Some photos of a split with the labels of their samples, which is all that a worker needs."""

  folder: pathlib.Path
  name: str
  samples: int
  image_ids: tuple[int, ...]
  labels: tuple[dict[str, np.ndarray] | str, ...]  # a text is the reason why a sample is unusable


def check_folder(folder: str | os.PathLike) -> list[str]:
  """Lists the halves (training, evaluation) that a folder holds, without reading a file.

  Raises:
    FileNotFoundError: there is no half, or one lacks some of its files. The message names them.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(
      f'Folder {folder} does not exist; expected the unpacked FreiHAND_pub_v2, with training/rgb/, '
      'training_K.json and so on in it.'
    )
  found, incomplete = [], []
  for name, required in _REQUIRED.items():
    wanted = [f'{name}/rgb/', *(f'{name}_{label}.json' for label in required)]
    missing = missing_paths(folder, wanted)
    if not missing:
      found.append(name)
    elif len(missing) < len(wanted):
      incomplete += missing
  if incomplete:
    raise FileNotFoundError(f'{folder} lacks {listed(incomplete, 20)}.')
  if not found:
    raise FileNotFoundError(
      f'{folder} holds neither training/rgb/ with training_K.json, training_xyz.json, '
      'training_verts.json and training_mano.json, nor evaluation/rgb/ with evaluation_K.json; '
      'expected the unpacked FreiHAND_pub_v2.'
    )
  return found


def annotations_digest(folder: str | os.PathLike) -> str:
  """Computes a SHA-256 over all annotation files that are read."""
  names = [f'{name}_{label}.json' for name in _REQUIRED for label in _SHAPES]
  return files_digest(pathlib.Path(folder), names)


def read_split(folder: str | os.PathLike, name: str) -> FreihandSplit:
  """Reads the annotations of `training` or `evaluation` and checks that they belong together.

  The evaluation half only needs `K`. Its `xyz`, `verts` and `mano` are read where they exist.

  Raises:
    FileNotFoundError: there is no such file, or too few photos.
    ValueError: a file is damaged, files have different lengths, a photo belongs to no annotation,
      or lengths are not in metres. All messages name the file.
  """
  folder = pathlib.Path(folder)
  entries: dict[str, JsonEntries] = {}
  for label, shape in _SHAPES.items():
    path = folder / f'{name}_{label}.json'
    if label in _REQUIRED[name] or path.is_file():
      entries[label] = read_json_entries(path, shape)
  lengths = {f'{name}_{label}.json': len(entry.values) for label, entry in entries.items()}
  if len(set(lengths.values())) > 1:
    counts = ', '.join(f'{file} has {length}' for file, length in lengths.items())
    raise ValueError(f'{folder}: the annotations do not belong together: {counts} entries.')
  samples = lengths[f'{name}_K.json']
  if not samples:
    raise ValueError(f'{folder / f"{name}_K.json"} is an empty list.')
  _check_photos(folder / name / 'rgb', samples, _VERSION_COUNT[name])
  problems: dict[int, str] = {}
  for entry in entries.values():
    for sample, problem in entry.problems.items():
      problems.setdefault(sample, problem)
  labels = {label: entry.values for label, entry in entries.items()}
  usable = [sample for sample in range(samples) if sample not in problems]
  if usable:
    _check_units(folder, name, {label: values[usable] for label, values in labels.items()})
  return FreihandSplit(folder, name, samples, _VERSION_COUNT[name], labels, problems)


def _check_units(folder: pathlib.Path, name: str, labels: dict[str, np.ndarray]) -> None:
  """Refuses a whole file whose typical sample is in another unit, instead of each sample later."""

  def where(label: str) -> str:
    return str(folder / f'{name}_{label}.json')

  for label in ('xyz', 'verts'):
    if label in labels:
      check_extents(labels[label], where(label))
      check_distance(float(np.median(np.abs(labels[label][:, 0, 2]))), where(label))
  check_camera(np.median(labels['K'], axis=0), IMAGE_SIZE, where('K'))
  if 'mano' in labels:
    check_distance(float(np.median(_mano_depth(labels['mano'], labels['K']))), where('mano'))


def _mano_depth(mano: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
  """Computes the root's depth from the last number of `mano`, which is focal length over depth."""
  focal = (intrinsics[..., 0, 0] + intrinsics[..., 1, 1]) / 2
  scale = np.abs(mano[..., 0, 60])
  return np.asarray(focal / np.maximum(scale, 1e-9))


def _check_photos(folder: pathlib.Path, samples: int, versions: int) -> None:
  """Checks that the photos are those that were annotated. A few may be missing."""
  count = samples * versions
  ids = {int(path.stem) for path in folder.glob('*.jpg') if path.stem.isdigit()}
  beyond = [f'{number:08d}.jpg' for number in sorted(ids) if number >= count]
  if beyond:
    raise ValueError(
      f'{folder} holds photos that no annotation belongs to: {listed(beyond)}. With {samples} '
      f'annotated samples in {versions} version(s) the last is {count - 1:08d}.jpg; annotations '
      'and photos are not of the same data set, or an annotation file is not complete.'
    )
  if count - len(ids) > MAX_MISSING * count:
    missing = [f'{number:08d}.jpg' for number in range(count) if number not in ids]
    raise FileNotFoundError(
      f'{folder} lacks {len(missing)} of {count} photos: {listed(missing)}. The download is not '
      'complete, or the annotations are of another data set.'
    )


def split_samples(samples: int, validation_fraction: float | int) -> dict[str, range]:
  """Splits the samples into `train` and `validation`, which gets the last ones.

  `validation` gets round(fraction x samples), but at least one, and is left out if the fraction is
  0. All four versions of a sample stay together.

  Raises:
    ValueError: the fraction is not in [0, 1), or leaves nothing to train on.
  """
  if not 0 <= validation_fraction < 1:
    raise ValueError(f'validation_fraction should be from 0 to below 1, got {validation_fraction}.')
  held = max(1, round(validation_fraction * samples)) if validation_fraction else 0
  if held >= samples:
    raise ValueError(f'validation_fraction {validation_fraction:g} of {samples} leaves none.')
  parts = {'train': range(samples - held), 'validation': range(samples - held, samples)}
  return {name: part for name, part in parts.items() if part}


def image_ids(split: FreihandSplit, part: Sequence[int]) -> list[int]:
  """Lists the photos of some samples, first all in version 0, then all in version 1, and so on."""
  return [sample + split.samples * version for version in range(split.versions) for sample in part]


def make_jobs(split: FreihandSplit, ids: Sequence[int]) -> Iterator[FreihandJob]:
  """Divides photos into jobs of at most CHUNK, each with the labels of its own photos."""
  for start in range(0, len(ids), CHUNK):
    part = tuple(ids[start : start + CHUNK])
    labels = []
    for number in part:
      sample = number % split.samples
      values = {name: array[sample] for name, array in split.labels.items()}
      labels.append(split.problems.get(sample, values))
    yield FreihandJob(split.folder, split.name, split.samples, part, tuple(labels))


def load_records(job: FreihandJob) -> list[dict[str, Any] | Skip]:
  """Reads a job's photos as records of the prepared data set.

  A photo that cannot be used gives a `Skip`. Worker processes run this.
  """
  records: list[dict[str, Any] | Skip] = []
  for number, labels in zip(job.image_ids, job.labels, strict=True):
    example_id = f'{job.name}/{number:08d}'
    try:
      if isinstance(labels, str):
        raise BadExampleError(labels)
      path = job.folder / job.name / 'rgb' / f'{number:08d}.jpg'
      photo = read_encoded_photo(path, IMAGE_SIZE)
      mask = _read_mask(job, number)
      example = make_example(example_id, photo.pixels, labels, mask)
      records.append(encode_with_photo(example, photo.data))
    except ValueError as error:
      records.append(Skip(example_id, str(error).rstrip('.')))
  return records


def _read_mask(job: FreihandJob, number: int) -> np.ndarray | None:
  """Reads the mask of the photo's sample, which all versions share."""
  folder = job.folder / job.name / 'mask'
  path = folder / f'{number % job.samples:08d}.jpg'
  # The evaluation half has no masks. Where there is a folder of masks, a missing one is a mistake.
  return read_mask_image(path, IMAGE_SIZE) if path.is_file() or folder.is_dir() else None


def make_example(
  example_id: str,
  pixels: np.ndarray,
  labels: dict[str, np.ndarray],
  hand_mask: np.ndarray | None,
) -> HandExample:
  """Makes an example of a photo and its labels.

  Args:
    example_id: name of the example.
    pixels: the photo in RGB.
    labels: `K` and, where they are known, `xyz`, `verts` and `mano`, not converted yet. Without
      `xyz` every joint has confidence 0.
    hand_mask: the pixels that show the hand, or None where this is unknown.

  Raises:
    ValueError: labels cannot be right, for example lengths that are not in metres.
  """
  intrinsics = shift_to_continuous(labels['K'])
  xyz, verts, mano = labels.get('xyz'), labels.get('verts'), labels.get('mano')
  joints_image = np.zeros((len(JOINT_NAMES), 2))
  check_camera(labels['K'], IMAGE_SIZE, 'K')
  if verts is not None:
    check_extent(verts, 'verts')
  if mano is not None:
    check_distance(float(_mano_depth(mano, labels['K'])), 'mano')
  if xyz is not None:
    xyz = xyz[list(DATASET_TO_STANDARD['freihand'])]
    check_in_front(xyz, 'xyz')
    check_extent(xyz, 'xyz')
    check_distance(float(xyz[0, 2]), 'xyz')
    camera = perspective_from_intrinsics(intrinsics)
    joints_image = np.asarray(project_perspective(camera, xyz.astype(np.float64)))
  return HandExample(
    example_id=example_id,
    image=pixels,
    side='right',
    box_xywh=NOMINAL_BOX,
    joints_image=joints_image.astype(np.float32),
    joint_confidence=np.full(len(JOINT_NAMES), xyz is not None, np.float32),
    intrinsics=intrinsics.astype(np.float32),
    vertices_camera=verts,
    joints_camera=xyz,
    global_orient=None if mano is None else mano.reshape(_MANO_SIZE)[:3],
    hand_mask=hand_mask,
  )


def freihand_parameters(
  mano: Float[np.ndarray, '61'], intrinsics: Float[np.ndarray, '3 3'], model: ManoModel
) -> HandParameters:
  """Converts a sample's `mano` to parameters of `model`, which place its mesh in camera axes.

  FreiHAND leaves the mean pose out, so it is added here, once. The chain joint at the root of the
  middle finger projects to the root's place in `mano`.

  Args:
    mano: the sample's numbers from the file, not converted.
    intrinsics: `K` from the file, not converted. Like the root's place in `mano`, it counts from
      pixel centres.
    model: MANO's right hand, with FreiHAND's fingertips where joints matter.

  Raises:
    BadExampleError: a number is not finite.
  """
  mano = as_numbers(mano, (_MANO_SIZE,)).astype(np.float64)
  intrinsics = intrinsics.astype(np.float64)
  uv_root, scale = mano[58:60], mano[60]
  focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
  root = np.array([*(uv_root - intrinsics[:2, 2]), focal]) / scale
  parameters = HandParameters(
    global_orient=jnp.asarray(mano[:3], jnp.float32),
    hand_pose=jnp.asarray(mano[3:48], jnp.float32) + model.hands_mean,
    betas=jnp.asarray(mano[48:58], jnp.float32),
    transl=jnp.zeros(3),
  )
  posed_root = np.asarray(mano_forward(model, parameters).joints[_ROOT], np.float64)
  return parameters._replace(transl=jnp.asarray(root - posed_root, jnp.float32))
