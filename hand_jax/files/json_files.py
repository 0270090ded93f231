"""JSON files as people and their editors leave them."""

import json
import os
import pathlib
from typing import Any


def read_json_text(path: str | os.PathLike) -> str:
  """Reads a file as UTF-8 text without the byte order mark that some editors begin it with.

  Raises:
    FileNotFoundError: no such file. ValueError: other bytes than UTF-8; names the file.
  """
  try:
    return pathlib.Path(path).read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is not valid JSON: expected UTF-8 text ({error}).') from None


def read_json(path: str | os.PathLike) -> Any:
  """Reads what a JSON file holds.

  Raises:
    FileNotFoundError: no such file. ValueError: not JSON; names the file.
  """
  text = read_json_text(path)
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not valid JSON: {error}.') from None
