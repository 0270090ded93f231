"""Files that are whole or not there, and JSON that every reader takes."""

import json

import pytest

from hand_jax.files.writing import unfinished_path, write_json


def test_json_is_indented_and_ends_its_last_line(tmp_path):
  path = tmp_path / 'new' / 'rows.json'
  write_json(path, {'a': [1, None]})
  assert json.loads(path.read_text()) == {'a': [1, None]}
  assert path.read_text().startswith('{\n  "a"') and path.read_text().endswith('}\n')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_numbers_that_json_lacks_are_refused_and_the_old_file_stays(tmp_path, value):
  path = tmp_path / 'rows.json'
  write_json(path, [1])
  with pytest.raises(ValueError, match='JSON'):
    write_json(path, [value])
  assert json.loads(path.read_text()) == [1]


def test_a_file_that_fails_half_way_leaves_the_old_one_alone(tmp_path):
  path = tmp_path / 'kept.txt'
  path.write_text('old')
  with pytest.raises(RuntimeError, match='half'), unfinished_path(path) as unfinished:
    unfinished.write_text('ne')
    raise RuntimeError('half way')
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
