"""Builds what surrounds the photos of a page: head, styles, explanations, links and the viewer.

The page is sealed. Its Content-Security-Policy allows no connection. It allows pictures only from
within the page, and only those scripts and styles whose hashes it names.
"""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hand_jax.reconstruction.meshes import color_of_fraction
from hand_jax.rendering.overlay import to_bytes
from hand_jax.report.mesh_blocks import settings_block
from hand_jax.report.text import counted

_ASSETS = pathlib.Path(__file__).parent.parent / 'assets' / 'report'
_FEW_PHOTOS = 4
_GRADIENT_STOPS = 16
_SIGMA = (
  'Every point of a hand comes with its sigma in millimetres: along any one direction, the '
  'estimate is expected to lie within one sigma of the truth in about two cases of three. This '
  'holds for the default program, whose sigma is calibrated. The sigma of a network without the '
  'fit is not, and was too small on the photos that were measured.'
)


class Totals(NamedTuple):
  """The numbers of photos, of hands and of photos with an error in the whole report."""

  photos: int
  hands: int
  errors: int


GENERATOR = '<meta name="generator" content="hand_jax">'
"""Distinguishes the pages that this program wrote from other files of the same name."""


class PageLink(NamedTuple):
  """The file name of a page, with the numbers of its first and last photo."""

  name: str
  first: int
  last: int


def page_frame(
  links: Sequence[PageLink], number: int, totals: Totals, thumbnails: Sequence[str]
) -> tuple[str, str]:
  """Builds the HTML that surrounds the photos of a page.

  Args:
    links: all pages of the report.
    number: this page's number, from 1.
    totals: the totals of the whole report.
    thumbnails: this page's entries of the contact sheet, which a page with a few photos leaves out.

  Returns:
    The HTML before the photos and the HTML after them.
  """
  style, script = _asset('report.css'), _asset('viewer.js')
  pages = _page_links(links, number)
  title = 'Hands in 3D' if len(links) < 2 else f'Hands in 3D, page {number} of {len(links)}'
  before = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="referrer" content="no-referrer">\n'
    '<meta name="color-scheme" content="light dark">\n'
    f'{GENERATOR}\n'
    '<link rel="icon" href="data:,">\n'
    f'<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{_gradient()}'
    f'<header class="top"><h1>Hands in 3D</h1>\n<p class="totals">{_totals_text(totals)}</p>\n'
    f'<p>{_SIGMA}</p>\n{pages}</header>\n<main>\n{_contact_sheet(thumbnails)}'
  )
  after = (
    f'</main>\n<footer>{pages}<p>Made by hand_jax. The 3D view uses three.js (MIT licence). '
    'This page works offline and sends nothing.</p></footer>\n'
    f'{block_element("page-settings", settings_block())}<script>{script}</script>\n'
    '</body>\n</html>\n'
  )
  return before, after


def block_element(element_id: str, content: str) -> str:
  """Builds the element that holds a block of data for the viewer."""
  return f'<script type="application/json" id="{element_id}">{content}</script>\n'


@functools.cache
def _asset(name: str) -> str:
  return (_ASSETS / name).read_text(encoding='utf-8')


def _policy(style: str, script: str) -> str:
  hashes = [
    f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    for text in (style, script)
  ]
  return (
    f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]}; "
    "base-uri 'none'; form-action 'none'"
  )


def _totals_text(totals: Totals) -> str:
  words = f'{counted(totals.photos, "photo")}, {counted(totals.hands, "hand")}'
  return words + (f', {counted(totals.errors, "error")}' if totals.errors else '')


def _page_links(links: Sequence[PageLink], number: int) -> str:
  if len(links) < 2:
    return ''
  items = ''
  for index, link in enumerate(links, start=1):
    here = ' aria-current="page"' if index == number else ''
    photos = f'{link.first}' if link.first == link.last else f'{link.first}&ndash;{link.last}'
    items += f'<li><a href="./{link.name}"{here}>Photos {photos}</a></li>\n'
  return f'<nav class="pages" aria-label="Pages of this report"><ol>\n{items}</ol></nav>\n'


def _contact_sheet(thumbnails: Sequence[str]) -> str:
  if len(thumbnails) <= _FEW_PHOTOS:
    return ''
  return (
    f'<nav class="sheet" aria-label="Photos of this page"><ol>\n{"".join(thumbnails)}</ol></nav>\n'
  )


def _gradient() -> str:
  """Defines the colours of uncertainty for the bars of the legends, once for each page."""
  fractions = np.linspace(0, 1, _GRADIENT_STOPS + 1)
  stops = ''.join(
    f'<stop offset="{fraction:.4f}" stop-color="#{bytes(color).hex()}"/>'
    for fraction, color in zip(fractions, to_bytes(color_of_fraction(fractions)), strict=True)
  )
  return (
    '<svg class="definitions" width="0" height="0" aria-hidden="true"><defs>'
    f'<linearGradient id="viridis">{stops}</linearGradient></defs></svg>\n'
  )
