"""Writes the report as one page, or as several pages where one would be too large."""

import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from hand_jax.files.writing import write_whole
from hand_jax.report.content import ReportPhoto
from hand_jax.report.page import PageLink, Totals, block_element, page_frame
from hand_jax.report.photo_section import PhotoSection, photo_section

PAGE_LIMIT_BYTES = 60_000_000
"""A page that would be larger is split between its photos. A single photo is never split."""
# This much room is kept for the links between pages, whose number is known only at the end.
_LINKS_BYTES = 20_000


class _Page(NamedTuple):
  """Where a page's sections lie in the spooled file, and what else the page needs."""

  start: int
  end: int
  thumbnails: tuple[str, ...]
  link: PageLink


def page_name(number: int) -> str:
  """Returns the file name of a page, counted from 1, such as `report.html` or `report_2.html`."""
  return 'report.html' if number == 1 else f'report_{number}.html'


def write_report(
  folder: str | os.PathLike,
  photos: Iterable[ReportPhoto],
  page_limit_bytes: int = PAGE_LIMIT_BYTES,
) -> list[pathlib.Path]:
  """Writes `report.html`, and `report_2.html` and so on where one page would be too large.

  Photos are taken one after the other, and their HTML waits in a temporary file. So memory holds
  one photo, or one page while that is written. The first page is written last, so that every page
  it links to exists before it does.

  Args:
    folder: where the pages go. It is made where it is missing, and links to files are relative to
      it.
    photos: the photos in the order of the report.
    page_limit_bytes: the largest size of a page, unless one photo alone is larger.

  Returns:
    The pages' paths, the first page first.

  Raises:
    ValueError: a hand's arrays do not fit one another.
    OSError: a page cannot be written.
  """
  folder = pathlib.Path(folder)
  with tempfile.TemporaryFile() as spool:
    pages, totals = _spool_sections(spool, photos, page_limit_bytes)
    links = tuple(page.link for page in pages)
    for number in reversed(range(1, len(pages) + 1)):
      page = pages[number - 1]
      before, after = page_frame(links, number, totals, page.thumbnails)
      spool.seek(page.start)
      sections = spool.read(page.end - page.start)
      write_whole(folder / page_name(number), b''.join([before.encode(), sections, after.encode()]))
  return [folder / page_name(number) for number in range(1, len(pages) + 1)]


def _spool_sections(
  spool: IO[bytes], photos: Iterable[ReportPhoto], limit: int
) -> tuple[list[_Page], Totals]:
  """Writes the sections of all photos one after the other, and says where pages begin and end."""
  pages, filling, totals = [], None, Totals(0, 0, 0)
  for number, section in _sections(photos):
    totals = Totals(totals.photos + 1, totals.hands + section.hands, totals.errors + section.failed)
    if filling is None or not filling.takes(section, limit):
      if filling is not None:
        pages.append(filling.finished())
      filling = _Filling(spool, len(pages) + 1, number)
    filling.add(section, number)
  pages.append((filling or _Filling(spool, 1, 1)).finished())
  return pages, totals


def _sections(photos: Iterable[ReportPhoto]) -> Iterator[tuple[int, PhotoSection]]:
  for number, photo in enumerate(photos, start=1):
    yield number, photo_section(photo, number)


class _Filling:
  """The page that is being filled."""

  def __init__(self, spool: IO[bytes], page_number: int, first_photo: int):
    self._spool = spool
    self._start = spool.tell()
    self._page_number = page_number
    self._first = self._last = first_photo
    self._faces: set[str] = set()
    self._thumbnails: list[str] = []
    before, after = page_frame((), page_number, Totals(0, 0, 0), ())
    self._size = len(before.encode()) + len(after.encode()) + _LINKS_BYTES

  def takes(self, section: PhotoSection, limit: int) -> bool:
    """Returns whether the page stays within the limit with one more photo."""
    data = self._new_data(section)
    return self._size + len(data) + len(section.thumbnail.encode()) <= limit

  def add(self, section: PhotoSection, number: int) -> None:
    data = self._new_data(section)
    self._spool.write(data)
    self._size += len(data) + len(section.thumbnail.encode())
    self._faces |= section.face_lists.keys()
    self._thumbnails.append(section.thumbnail)
    self._last = number

  def _new_data(self, section: PhotoSection) -> bytes:
    """Builds the section, after the triangles that the page does not hold yet."""
    faces = (block for block in section.face_lists.values() if block.id not in self._faces)
    return (''.join(block_element(*block) for block in faces) + section.html).encode()

  def finished(self) -> _Page:
    link = PageLink(page_name(self._page_number), self._first, self._last)
    return _Page(self._start, self._spool.tell(), tuple(self._thumbnails), link)
