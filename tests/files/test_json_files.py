"""JSON files with and without a byte order mark, and what is none."""

import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import config_to_json
from hand_jax.evaluation.official.scoreboard import read_scores
from hand_jax.files.json_files import read_json
from hand_jax.readers.ho3d_folder import read_frame_list
from hand_jax.runs.checkpoints import check_workdir

MARK = b'\xef\xbb\xbf'


def test_a_byte_order_mark_is_left_out(tmp_path):
  path = tmp_path / 'a.json'
  path.write_bytes(MARK + '{"name": "Hände"}'.encode())
  assert read_json(path) == {'name': 'Hände'}


@pytest.mark.parametrize('content', [b'', MARK, b'{"a": ', '{"a": 1}'.encode('utf-16')])
def test_what_is_no_json_is_named(tmp_path, content):
  (tmp_path / 'a.json').write_bytes(content)
  with pytest.raises(ValueError, match=r'^\S+/a\.json is not valid JSON: [^\n]+$'):
    read_json(tmp_path / 'a.json')


def test_files_that_people_edit_may_begin_with_the_mark(tmp_path):
  """Where the mark were read as text, each of these would be refused."""
  config = get_config('toy')
  (tmp_path / 'config.json').write_bytes(MARK + config_to_json(config).encode())
  assert check_workdir(str(tmp_path), config)
  (tmp_path / 'train.txt').write_bytes(MARK + b'ABF10/0000\n')
  assert read_frame_list(tmp_path, 'train') == ['ABF10/0000']
  (tmp_path / 'scores.json').write_bytes(MARK + b'{"dataset": "coco"}')
  with pytest.raises(ValueError, match="found 'coco'"):
    read_scores(tmp_path / 'scores.json')
