"""Checks the folder of HO3D v2 or v3 as it is downloaded, and reads its lists and splits."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.readers.annotation_files import (
  files_digest,
  listed,
  missing_paths,
  read_json_entries,
)

PHOTO_SUFFIX = {'v2': '.png', 'v3': '.jpg'}
SPLITS = ('train', 'evaluation')
NUM_VERTICES = 778

Truth = tuple[np.ndarray, np.ndarray] | str | None
"""A frame's published joints and vertices, in the files' order and axes.

It is None where they were not published, and a text where they cannot be used.
"""


def check_folder(folder: str | os.PathLike, version: str) -> list[str]:
  """Lists the halves (train, evaluation) that a folder holds, and checks every sequence.

  Raises:
    FileNotFoundError: there is no half, or one lacks its list, a sequence, or a sequence's photos
      or annotations. The message names them.
    ValueError: the photos are those of the other version.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(
      f'Folder {folder} does not exist; expected the unpacked HO3D_{version}, with train/, '
      'evaluation/, train.txt and evaluation.txt in it.'
    )
  found, incomplete = [], []
  for split in SPLITS:
    missing = missing_paths(folder, [f'{split}/', f'{split}.txt'])
    if not missing:
      sequences = sorted({frame.split('/')[0] for frame in read_frame_list(folder, split)})
      wanted = [f'{split}/{name}/{part}/' for name in sequences for part in ('rgb', 'meta')]
      missing = missing_paths(folder, wanted)
      found.append(split)
      if not missing:
        _check_version(folder / split, sequences, version)
    elif len(missing) == 2:
      continue
    incomplete += missing
  if incomplete:
    raise FileNotFoundError(f'{folder} lacks {listed(incomplete, 20)}.')
  if not found:
    raise FileNotFoundError(
      f'{folder} holds neither train/ with train.txt nor evaluation/ with evaluation.txt; expected '
      f'the unpacked HO3D_{version}.'
    )
  return found


def _check_version(folder: pathlib.Path, sequences: Sequence[str], version: str) -> None:
  other = next(name for name in PHOTO_SUFFIX if name != version)
  photos = folder / sequences[0] / 'rgb'
  suffixes = {path.suffix for path in photos.iterdir()}
  if PHOTO_SUFFIX[version] not in suffixes and PHOTO_SUFFIX[other] in suffixes:
    raise ValueError(
      f'{photos} holds {PHOTO_SUFFIX[other]} photos, which is HO3D {other}; HO3D {version} has '
      f'{PHOTO_SUFFIX[version]} ones.'
    )


def read_frame_list(folder: str | os.PathLike, split: str) -> list[str]:
  """Reads the frames `SEQUENCE/FRAME` of a split, in the order of its file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line holds something else (the message names it), a frame is named twice, or there
      is none. The message names the file.
  """
  path = pathlib.Path(folder) / f'{split}.txt'
  frames = []
  for number, line in enumerate(
    path.read_text('utf-8-sig', errors='replace').splitlines(), start=1
  ):
    frame = line.strip()
    parts = frame.split('/')
    if not frame:
      continue
    if len(parts) != 2 or not all(part.isalnum() for part in parts):
      raise ValueError(f'{path}, line {number}: expected SEQUENCE/FRAME, got {line[:60]!r}.')
    frames.append(frame)
  if not frames:
    raise ValueError(f'{path} names no frame.')
  if len(set(frames)) < len(frames):
    raise ValueError(f'{path} names a frame twice.')
  return frames


def annotations_digest(folder: str | os.PathLike) -> str:
  """Computes a SHA-256 over the lists of frames and the labels of the evaluation split."""
  return files_digest(
    pathlib.Path(folder),
    ['train.txt', 'evaluation.txt', 'evaluation_xyz.json', 'evaluation_verts.json'],
  )


def split_frames(frames: Sequence[str], validation_fraction: float | int) -> dict[str, list[str]]:
  """Splits the frames into `train` and `validation`, each in the order given.

  Whole sequences are held out, because the frames of a sequence are too much alike to be on both
  sides. The last sequences by name are taken until they make up the fraction. A fraction of 0
  leaves `validation` out.

  Raises:
    ValueError: the fraction is not in [0, 1), or leaves nothing to train on.
  """
  if not 0 <= validation_fraction < 1:
    raise ValueError(f'validation_fraction should be from 0 to below 1, got {validation_fraction}.')
  counts: dict[str, int] = {}
  for frame in frames:
    sequence = frame.split('/')[0]
    counts[sequence] = counts.get(sequence, 0) + 1
  held: set[str] = set()
  for sequence in sorted(counts, reverse=True):
    if sum(counts[name] for name in held) < validation_fraction * len(frames):
      held.add(sequence)
  parts = {
    'train': [frame for frame in frames if frame.split('/')[0] not in held],
    'validation': [frame for frame in frames if frame.split('/')[0] in held],
  }
  if not parts['train']:
    raise ValueError(
      f'validation_fraction {validation_fraction:g} of {len(counts)} sequences leaves none to '
      'train on; choose a smaller one, or 0 for no validation split.'
    )
  return {name: part for name, part in parts.items() if part}


def read_evaluation_truths(folder: str | os.PathLike, count: int) -> list[Truth]:
  """Reads joints and vertices of each evaluation frame, in the files' order and axes.

  `evaluation_xyz.json` and `evaluation_verts.json` were published after the challenges. Without
  these files every entry is None. An entry that cannot be used is a text with the reason.

  Raises:
    FileNotFoundError: one of the two files is missing.
    ValueError: a file is damaged, or does not have `count` entries.
  """
  folder = pathlib.Path(folder)
  names = ('evaluation_xyz.json', 'evaluation_verts.json')
  missing = missing_paths(folder, names)
  if len(missing) == 2:
    return [None] * count
  if missing:
    raise FileNotFoundError(
      f'{folder} lacks {missing[0]}: expected evaluation_xyz.json and evaluation_verts.json, or '
      'neither of them.'
    )
  joints = read_json_entries(folder / names[0], (len(JOINT_NAMES), 3))
  vertices = read_json_entries(folder / names[1], (NUM_VERTICES, 3))
  for name, entries in zip(names, (joints, vertices), strict=True):
    if len(entries.values) != count:
      raise ValueError(
        f'{folder / name} has {len(entries.values)} entries, but evaluation.txt names {count}.'
      )
  problems = vertices.problems | joints.problems
  pairs = zip(joints.values, vertices.values, strict=True)
  return [problems.get(number, pair) for number, pair in enumerate(pairs)]
