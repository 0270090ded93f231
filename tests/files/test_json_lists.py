"""Long JSON lists in pieces: the values of `json.loads` wherever pieces end, and clear refusals."""

import io
import json

import pytest

from hand_jax.files import json_lists
from hand_jax.files.json_lists import JsonListReader

VALUES = {
  'numbers': [12, -3e-05, 1.5e10, 0, -7, 123456789, 0.25],
  'lists': [[[1.5, 2], [3, 4]], [], [[5, 6], [7, -8.25]]],
  'others': ['a, b] and more', None, True, {'key': [1]}, 'x' * 200],
  'nothing': [],
}


def read(text, what='a list'):
  reader = JsonListReader(io.StringIO(text), 'a.json')
  reader.enter(what)
  values = list(reader.elements('item'))
  reader.end_of_file()
  return values


@pytest.mark.parametrize('indent', [None, 1])
@pytest.mark.parametrize('chunk', [1, 2, 7, 1000])
@pytest.mark.parametrize('name', VALUES)
def test_pieces_may_end_anywhere(name, chunk, indent, monkeypatch):
  """Inside numbers too, whose first digits are numbers themselves."""
  monkeypatch.setattr(json_lists, 'CHUNK', chunk)
  assert read(f' {json.dumps(VALUES[name], indent=indent)}\n') == VALUES[name]


@pytest.mark.parametrize('chunk', [3, 1000])
def test_a_cut_file_is_refused_wherever_it_is_cut(chunk, monkeypatch):
  monkeypatch.setattr(json_lists, 'CHUNK', chunk)
  text = json.dumps(VALUES['numbers'] + VALUES['lists'])
  for length in range(len(text)):
    with pytest.raises(ValueError, match=r'^a\.json: .*; at character \d+\.$'):
      read(text[:length])


def test_not_finite_numbers_are_read():
  """Whoever takes them says which sample holds them."""
  assert str(read('[[NaN, -Infinity], [1]]')) == '[[nan, -inf], [1]]'


@pytest.mark.parametrize(
  'text, message',
  [
    ('{}', "expected a list, found '{}'; at character 0"),
    ('[1 2]', "expected a comma and then the next item, found '2]'; at character 3"),
    ('[1, 2] 3', "expected the end of the file, found '3'; at character 7"),
    ('[1, [2, x]]', r'item 1 is not valid JSON \(Expecting value\); at character 4'),
    ('[1, [2, 3', r'the file ends inside item 1 \(truncated\?\); at character 4'),
    ('[1, 2', 'the file ends after item 1, before its lists do'),
  ],
)
@pytest.mark.parametrize('chunk', [2, 1000])
def test_refusals_say_what_and_where(text, message, chunk, monkeypatch):
  monkeypatch.setattr(json_lists, 'CHUNK', chunk)
  with pytest.raises(ValueError, match=message):
    read(text)
