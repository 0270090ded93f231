"""Readers of JSON files that people may have edited by hand."""

import json
import os
import pathlib
from typing import Any

from hand_jax.files.paths import is_address


def read_json_text(path: str | os.PathLike) -> str:
  """Reads a file as UTF-8 text, without the byte order mark that some editors put at its start.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not UTF-8.
  """
  try:
    return _read_bytes(path).decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is not valid JSON: expected UTF-8 text ({error}).') from None


def read_json(path: str | os.PathLike) -> Any:
  """Reads the content of a JSON file.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not JSON. The text names the file.
  """
  text = read_json_text(path)
  if not text.strip():
    raise ValueError(f'{path} is not valid JSON: the file is empty.')
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not valid JSON: {error}.') from None


def _read_bytes(path: str | os.PathLike) -> bytes:
  if not is_address(path):
    return pathlib.Path(path).read_bytes()
  from hand_jax.files.buckets import open_path  # loads packages that other files do not need

  return open_path(path).read_bytes()
