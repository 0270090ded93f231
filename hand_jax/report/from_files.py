"""Reads the content of a report back from the files of an output folder."""

import io
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from hand_jax.data.photos import read_photo_scaled
from hand_jax.reconstruction.records import Entry, OutputRecord
from hand_jax.report.content import ReportHand, ReportPhoto, ReportPicture
from hand_jax.report.page import GENERATOR
from hand_jax.report.writing import write_report

_PAGE_NAME = re.compile(r'report(_[2-9]|_[1-9][0-9]+)?\.html')

# A photo without hands is shown with at most so many pixels.
_SHOWN_PIXELS = 1_000_000
# The panels that follow the photo in NAME_overlay.png, see `overlay_panels`.
_PANELS = ('mesh over the photo', 'uncertainty', 'uncertainty, from the side')
_TEXTURE_PANELS = ('texture', 'texture, from the left', 'texture, from the right')


def report_photos(record: OutputRecord) -> Iterator[ReportPhoto]:
  """Yields the photos of a record, and reads the files of each only when it is asked for.

  A photo whose files are gone or damaged is yielded with an error that says so.

  Args:
    record: the record of the output folder.
  """
  return (_photo_or_why_not(record.folder, entry) for entry in record.entries.values())


def write_folder_report(record: OutputRecord) -> pathlib.Path:
  """Writes the report of everything in an output folder, and returns the path of its first page.

  Pages that an earlier, longer report left are removed.

  Raises:
    OSError: a page cannot be written.
  """
  pages = write_report(record.folder, report_photos(record))
  for page in _own_pages(record.folder):
    if page not in pages:
      page.unlink()
  return pages[0]


def check_report_name(folder: str | os.PathLike, overwrite: bool) -> None:
  """Checks that no page of the report would replace a page of the user's.

  Raises:
    FileExistsError: a file with the name of a page was not written by this program, and `overwrite`
      is False.
  """
  folder = pathlib.Path(folder)
  own = set(_own_pages(folder))
  for page in _pages(folder):
    if page not in own and not overwrite:
      raise FileExistsError(
        f'{page} is in the way of the report, and this program did not write it: it stays as it '
        'is. Name another --output, or replace it by --overwrite.'
      )


def _pages(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the files that are named like pages of a report."""
  numbers = (_PAGE_NAME.fullmatch(path.name) for path in sorted(folder.glob('report*.html')))
  return [folder / match.group() for match in numbers if match]


def _own_pages(folder: pathlib.Path) -> list[pathlib.Path]:
  return [page for page in _pages(folder) if GENERATOR in page.read_text(errors='replace')[:20_000]]


def _photo_or_why_not(folder: pathlib.Path, entry: Entry) -> ReportPhoto:
  try:
    return _photo(folder, entry)
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    reason = f'{type(error).__name__}: {error}'
    line = f'Its files in {folder} are gone or damaged ({reason}). Do it again with --overwrite.'
    return ReportPhoto(str(entry['photo']), None, (), None, line)


def _photo(folder: pathlib.Path, entry: Entry) -> ReportPhoto:
  of_hands = {name for hand in entry['hands'] for name in hand['files']}
  shared = tuple(name for name in entry['files'] if name not in of_hands)
  pictures = [name for name in shared if name.endswith('_hands.jpg')]
  seconds = [hand['seconds'] for hand in entry['hands']]
  return ReportPhoto(
    photo=entry['photo'],
    picture=_picture(folder / pictures[0]) if pictures else _plain_photo(entry),
    hands=tuple(_hand(folder, hand) for hand in entry['hands']),
    seconds=sum(seconds) if seconds else None,
    error=entry.get('error'),
    files=shared,
  )


def _plain_photo(entry: Entry) -> UInt8[np.ndarray, 'height width 3'] | None:
  """The photo itself, where it can still be read: it shows what was looked at."""
  try:
    return read_photo_scaled(entry['photo'], _SHOWN_PIXELS).image
  except (OSError, ValueError):
    return None


def _hand(folder: pathlib.Path, hand: dict[str, Any]) -> ReportHand:
  files = hand['files']
  (arrays_name,) = [name for name in files if name.endswith('.npz')]
  # The bytes are read first, because NumPy leaves a damaged file open.
  content = io.BytesIO((folder / arrays_name).read_bytes())
  with np.load(content, allow_pickle=False) as file:
    arrays = dict(file)
  return ReportHand(
    name=arrays_name.removesuffix('.npz'),
    side=hand['side'],
    score=hand['score'],
    side_score=hand.get('side_score'),
    box_xywh=np.asarray(hand['box_xywh'], np.float64),
    vertices=arrays['vertices'],
    joints=arrays['joints'],
    faces=arrays['faces'],
    vertex_sigma_mm=arrays['vertex_sigma_mm'],
    joint_sigma_mm=arrays['joint_sigma_mm'],
    vertex_visible=arrays['vertex_visible'],
    vertex_colors=arrays.get('vertex_colors'),
    wrist_camera=arrays['wrist_camera'],
    depth_sigma_m=float(arrays['depth_sigma_m']),
    focal_length_px=float(arrays['focal_length_px']),
    focal_source=str(arrays['focal_length_source']),
    hand_model=str(arrays['hand_model']),
    pictures=tuple(_pictures(folder, files)),
    files=tuple(files),
  )


def _pictures(folder: pathlib.Path, files: list[str]) -> Iterator[ReportPicture]:
  """Yields the panels of the overlay and of the texture views.

  The panels of a file are squares side by side. The first, which is the photo, is left out.
  """
  for suffix, captions in (('_overlay.png', _PANELS), ('_texture_views.png', _TEXTURE_PANELS)):
    for name in files:
      if name.endswith(suffix):
        panels = _picture(folder / name)
        side = panels.shape[0]
        for number, caption in enumerate(captions, start=1):
          yield ReportPicture(caption, panels[:, number * side : (number + 1) * side])


def _picture(path: str | os.PathLike) -> UInt8[np.ndarray, 'height width 3']:
  image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
  if image is None:
    raise ValueError(f'{path} is damaged: it is no picture.')
  return np.ascontiguousarray(image[..., ::-1])
