"""A reader of long JSON lists, one element at a time.

It reads files of a gigabyte in a few megabytes of memory.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

CHUNK = 1 << 22  # characters
# An error this near the end of the buffer may only mean that the rest of the element is not read
# yet. A number that ends there may go on too: 12 may be the start of 123 or 12e4.
_TAIL = 64


class JsonListReader:
  """Walks through nested JSON lists: call `enter` at a list, iterate over `elements`, and go on.

  All methods raise a ValueError, which names the file and what was expected, where the text is
  different.
  """

  def __init__(self, file: io.TextIOBase, name: str):
    self._file, self._name = file, name
    self._buffer, self._place = '', 0
    self._passed = 0  # counts the characters of the file before the buffer
    self._decoder = json.JSONDecoder()

  def enter(self, what: str) -> None:
    """Steps into the list that comes next, which errors call `what`."""
    if self._next_character() != '[':
      self._refuse(f'expected {what}, found {self._excerpt()}')
    self._place += 1

  def comma(self, what: str) -> None:
    """Steps over the comma before `what`."""
    if self._next_character() != ',':
      self._refuse(f'expected a comma and then {what}, found {self._excerpt()}')
    self._place += 1

  def is_at(self, character: str) -> bool:
    """Returns whether that character comes next."""
    return self._next_character() == character

  def elements(self, what: str) -> Iterator[Any]:
    """Yields the values of the list that was entered. Errors call each value `what`."""
    number = 0
    while (following := self._next_character()) != ']':
      if number:
        self.comma(f'the next {what}')
        following = self._next_character()
      if not following:
        self._refuse(f'the file ends after {what} {number - 1}, before its lists do (truncated?)')
      yield self._decode(f'{what} {number}')
      number += 1
      if not self._next_character():
        self._refuse(f'the file ends after {what} {number - 1}, before its lists do (truncated?)')
    self._place += 1

  def leave(self) -> None:
    """Steps out of a list whose elements are all read."""
    if self._next_character() != ']':
      self._refuse(f"expected ']', the end of the list, found {self._excerpt()}")
    self._place += 1

  def end_of_file(self) -> None:
    """Checks that nothing follows."""
    if self._next_character():
      self._refuse(f'expected the end of the file, found {self._excerpt()}')

  def _decode(self, what: str) -> Any:
    while True:
      try:
        value, end = self._decoder.raw_decode(self._buffer, self._place)
        if end >= len(self._buffer) - _TAIL and self._read_more():
          continue
        self._place = end
        return value
      except json.JSONDecodeError as error:
        # An unterminated string is reported where it begins.
        near_end = error.pos >= len(self._buffer) - _TAIL or error.msg.startswith('Unterminated')
        if near_end and self._read_more():
          continue
        if near_end and ']' not in self._buffer[error.pos :]:
          self._refuse(f'the file ends inside {what} (truncated?)')
        self._refuse(f'{what} is not valid JSON ({error.msg})')
      except RecursionError:
        self._refuse(f'{what} is nested too deeply')

  def _next_character(self) -> str:
    """Gives the next character after white space without stepping over it, '' at the end."""
    while True:
      rest = len(self._buffer)
      while self._place < rest and self._buffer[self._place] in ' \t\r\n':
        self._place += 1
      if self._place < rest:
        return self._buffer[self._place]
      if not self._read_more():
        return ''

  def _read_more(self) -> bool:
    """Appends the file's next piece to the buffer. At the file's end it returns False."""
    try:
      chunk = self._file.read(CHUNK)
    except UnicodeDecodeError:
      self._refuse('expected JSON text in UTF-8, found other bytes')
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
      self._refuse(f'the zip file is damaged ({error})')
    if chunk:
      self._passed += self._place
      self._buffer, self._place = self._buffer[self._place :] + chunk, 0
    return bool(chunk)

  def _excerpt(self) -> str:
    text = self._buffer[self._place : self._place + 20]
    return repr(text) if text else 'the end of the file (truncated?)'

  def _refuse(self, problem: str) -> NoReturn:
    raise ValueError(f'{self._name}: {problem}; at character {self._passed + self._place}.')
