"""Builds the HTML of one photo, and its small picture on the contact sheet."""

import pathlib
from typing import NamedTuple

import numpy as np

from hand_jax.report.content import ReportHand, ReportPhoto
from hand_jax.report.hand_section import file_links, hand_section
from hand_jax.report.mesh_blocks import FaceList, face_list, mesh_block
from hand_jax.report.text import counted, escaped, image_element, percent

_LARGEST_PHOTO = 1400
_THUMBNAIL_SIDE = 220


class PhotoSection(NamedTuple):
  """A photo's HTML, the triangles that its page must hold, and its entry of the contact sheet."""

  html: str
  face_lists: dict[str, FaceList]
  thumbnail: str
  name: str
  hands: int
  failed: bool


def photo_section(photo: ReportPhoto, number: int) -> PhotoSection:
  """Builds everything that the page shows of a photo.

  Args:
    photo: the photo and its hands.
    number: the photo's number in the report, from 1.

  Raises:
    ValueError: a hand's arrays do not fit one another. The message names the hand.
  """
  anchor = f'photo-{number}'
  name = pathlib.PurePath(photo.photo).name or photo.photo
  face_lists, blocks, hands = {}, '', ''
  for index, hand in enumerate(photo.hands, start=1):
    faces = face_list(hand)
    face_lists[faces.id] = faces
    place = f'{anchor}-hand-{index}'
    content = mesh_block(hand, faces.id)
    blocks += f'<script type="application/json" id="{place}-mesh">{content}</script>\n'
    hands += hand_section(hand, index, place, f'{place}-mesh')
  html = (
    f'<section class="photo" id="{anchor}" aria-labelledby="{anchor}-title">\n'
    f'<header><h2 id="{anchor}-title" class="name">{escaped(name)}</h2>'
    f'<p class="meta">{_meta(photo, name)}</p></header>\n'
    f'{_error(photo)}'
    f'<div class="overview">{_picture(photo, name)}{_hand_list(photo, anchor)}</div>\n'
    f'{hands}{blocks}</section>\n'
  )
  thumbnail = _thumbnail(photo, anchor, name)
  return PhotoSection(html, face_lists, thumbnail, name, len(photo.hands), photo.error is not None)


def _meta(photo: ReportPhoto, name: str) -> str:
  parts = [_outcome(photo)]
  if photo.seconds is not None:
    parts.append(f'{photo.seconds:.1f} s')
  if photo.photo != name:
    parts.append(f'<span class="name">{escaped(photo.photo)}</span>')
  return ' &middot; '.join(parts)


def _outcome(photo: ReportPhoto) -> str:
  if photo.error is not None and not photo.hands:
    return 'error'
  return counted(len(photo.hands), 'hand')


def _error(photo: ReportPhoto) -> str:
  if photo.error is None:
    return ''
  return f'<p class="error" role="note"><strong>Error.</strong> {escaped(photo.error)}</p>\n'


def _picture(photo: ReportPhoto, name: str) -> str:
  if photo.picture is None:
    return ''
  alt = f'The photo {name}' + (', each hand in a numbered box' if photo.hands else '')
  return f'<div class="picture">{image_element(photo.picture, alt, _LARGEST_PHOTO)}</div>'


def _hand_list(photo: ReportPhoto, anchor: str) -> str:
  if not photo.hands:
    if photo.error is not None:
      return ''
    return '<p class="none">No hand was found in this photo.</p>'
  items = ''.join(
    f'<li><a href="#{anchor}-hand-{index}"><span class="number">{index}</span>'
    f'<span><strong>{escaped(hand.side.capitalize())} hand</strong><br>'
    f'<small>{_in_short(hand)}</small></span></a></li>\n'
    for index, hand in enumerate(photo.hands, start=1)
  )
  files = file_links(photo.files, 'All hands together')
  return f'<div class="summary"><ol class="hands">\n{items}</ol>\n{files}</div>'


def _in_short(hand: ReportHand) -> str:
  sigma = f'sigma {np.mean(np.asarray(hand.vertex_sigma_mm)):.1f} mm'
  return sigma if hand.score is None else f'{percent(hand.score)} sure of a hand, {sigma}'


def _thumbnail(photo: ReportPhoto, anchor: str, name: str) -> str:
  image = (
    '<span class="blank">no picture</span>'
    if photo.picture is None
    else image_element(photo.picture, f'Small picture of {name}', _THUMBNAIL_SIDE)
  )
  look = ' class="failed"' if photo.error is not None else ''
  return (
    f'<li><a href="#{anchor}">{image}<span class="name">{escaped(name)}</span>'
    f'<small{look}>{_outcome(photo)}</small></a></li>\n'
  )
