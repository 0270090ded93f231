"""Reads a report's page back: elements, texts and blocks of data."""

import base64
import json
import pathlib
import zlib
from html.parser import HTMLParser

import numpy as np

VOID = {'meta', 'link', 'img', 'input', 'br', 'stop'}


class Page(HTMLParser):
  """The elements of a page as (tag, attributes, text inside it), in the order of their ends."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.source = path.read_text(encoding='utf-8')
    self.elements: list[tuple[str, dict, str]] = []
    self._open: list[tuple[str, dict, list[str]]] = []
    self.feed(self.source)
    self.close()
    assert not self._open, f'{self._open[-1][0]} is not closed'

  def handle_starttag(self, tag, attributes):
    if tag in VOID:
      self.elements.append((tag, dict(attributes), ''))
    else:
      self._open.append((tag, dict(attributes), []))

  def handle_startendtag(self, tag, attributes):
    self.elements.append((tag, dict(attributes), ''))

  def handle_endtag(self, tag):
    opened, attributes, texts = self._open.pop()
    assert opened == tag, f'<{opened}> is closed by </{tag}>'
    self.elements.append((tag, attributes, ''.join(texts)))

  def handle_data(self, data):
    for _, _, texts in self._open:
      texts.append(data)

  def all(self, tag: str, **attributes: str) -> list[tuple[str, dict, str]]:
    """Elements of this tag with these attributes; `class_` means `class`."""
    wanted = {name.rstrip('_'): value for name, value in attributes.items()}
    return [
      element
      for element in self.elements
      if element[0] == tag and wanted.items() <= element[1].items()
    ]

  def block(self, element_id: str) -> dict:
    """A block of data."""
    ((_, _, text),) = self.all('script', id=element_id)
    return json.loads(text)


def unpacked(text: str, dtype: str) -> np.ndarray:
  """The numbers of a block's `data`."""
  return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)
