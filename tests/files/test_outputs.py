"""No output is an input, nor replaces a file that the command did not write."""

import json

import numpy as np
import pytest

from experiments.ablations.report import check_output
from experiments.scoreboard import make_board
from hand_jax.evaluation.evaluate_run import RunRequest, report_run
from hand_jax.evaluation.official.score_files import report_predictions
from hand_jax.files.outputs import (
  Output,
  OutputFolderError,
  check_output_folder,
  check_outputs,
  is_json_with,
  is_npz_with,
  is_text_beginning,
)
from hand_jax.reconstruction.figures import make_figures
from hand_jax.reconstruction.photo_measuring import check_scores_path
from hand_jax.release.making import make_release, release_plan
from tests.evaluation.official.test_score_files import write_files


def always(path):
  return True


def test_an_input_is_never_replaced_however_it_is_spelled(tmp_path, monkeypatch):
  (tmp_path / 'folder').mkdir()
  path = tmp_path / 'p.json'
  path.write_text('{}')
  (tmp_path / 'link.json').symlink_to(path)
  monkeypatch.chdir(tmp_path)
  for name in ('p.json', './p.json', 'folder/../p.json', 'link.json', path):
    with pytest.raises(ValueError, match=r'replaced, but it is --predictions\. Name another'):
      check_outputs([Output('--output', name, always)], {path: '--predictions'}, overwrite=True)
  check_outputs([Output('--output', 'q.json')], {path: '--predictions'})


def test_an_input_that_is_missing_yet_counts_too(tmp_path):
  with pytest.raises(ValueError, match='would be replaced'):
    check_outputs([Output('--output', tmp_path / 'a')], {tmp_path / 'b' / '..' / 'a': '--input'})


def test_two_outputs_are_two_files(tmp_path):
  outputs = [Output('--output', tmp_path / 'a'), Output('--pck', f'{tmp_path}/./a')]
  with pytest.raises(ValueError, match='--output and --pck would both write'):
    check_outputs(outputs)


def test_what_this_program_did_not_write_stays_without_the_flag(tmp_path):
  path = tmp_path / 'mine.md'
  path.write_text('my notes')
  for outputs in ([Output('--output', path)], [Output('--output', path, is_json_with('a'))]):
    with pytest.raises(FileExistsError, match=r'mine\.md exists .* another --output, or give --ov'):
      check_outputs(outputs)
    check_outputs(outputs, overwrite=True)
  with pytest.raises(FileExistsError, match=r'Name another --output\.$'):
    check_outputs([Output('--output', path)], overwrite=None)
  check_outputs([Output('--output', path, always)])
  path.write_text('')
  check_outputs([Output('--output', path)])


def test_where_no_file_can_be(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(IsADirectoryError, match='is a folder'):
    check_outputs([Output('--output', tmp_path)], overwrite=True)
  with pytest.raises(NotADirectoryError, match='file is a file'):
    check_outputs([Output('--output', tmp_path / 'file' / 'a.json')])
  with pytest.raises(OutputFolderError, match=r': file name too long\. Name a folder with a short'):
    check_output_folder(tmp_path / ('a' * 300) / 'b')
  monkeypatch.setattr('os.access', lambda *_: False)
  with pytest.raises(PermissionError, match='may not be written to'):
    check_outputs([Output('--output', tmp_path / 'missing' / 'a.json')])


def test_own_files_are_known_by_what_is_in_them(tmp_path):
  path = tmp_path / 'a'
  knows_json, knows_text = is_json_with('a', 'b'), is_text_beginning('one', 'three\n')
  for content, expected in {
    '{"a": 1, "b": 2, "c": 3}': (True, False),
    '{"a": 1}': (False, False),
    '[["a", "b"]]': (False, False),
    'one more': (False, True),
    'three\nx': (False, True),
    'three x': (False, False),
  }.items():
    path.write_text(content)
    assert (knows_json(path), knows_text(path)) == expected, content
  path.write_bytes(b'\xff\x00')
  assert not (knows_json(path) or knows_text(path) or is_npz_with('a')(path))
  with path.open('wb') as file:
    np.savez(file, a=1, b=2)
  assert is_npz_with('a')(path) and not is_npz_with('a', 'c')(path)


@pytest.fixture
def files(tmp_path):
  predictions, ground_truth, *_ = write_files(tmp_path)
  (tmp_path / 'notes.json').write_text('{"mine": 1}')
  (tmp_path / 'pck').mkdir()
  (tmp_path / 'pck' / 'pck.csv').write_text('my,table')
  return predictions, ground_truth, tmp_path


def contents(folder):
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
  'output, pck, overwrite, message',
  [
    ('pred.json', None, True, 'it is --predictions'),
    ('evaluation_xyz.json', None, True, 'it is the ground truth'),
    ('notes.json', None, False, r'notes\.json exists and is no result'),
    (None, 'pck', False, r'pck\.csv exists and is no result of this command.* another --pck'),
  ],
)
def test_predictions_and_other_files_stay(files, output, pck, overwrite, message):
  predictions, ground_truth, folder = files
  before = contents(folder)
  output, pck = (name and str(folder / name) for name in (output, pck))
  lines = report_predictions(
    predictions, 'freihand', ground_truth, output=output, pck=pck, overwrite=overwrite
  )
  with pytest.raises((ValueError, FileExistsError), match=message):
    list(lines)
  assert contents(folder) == before


def test_scores_are_replaced_by_scores_and_by_the_flag(files):
  predictions, ground_truth, folder = files
  settings = {'output': str(folder / 'scores.json'), 'pck': str(folder / 'curves')}
  for _ in range(2):
    list(report_predictions(predictions, 'freihand', ground_truth, **settings))
  settings = {'output': str(folder / 'notes.json'), 'pck': str(folder / 'pck'), 'overwrite': True}
  list(report_predictions(predictions, 'freihand', ground_truth, **settings))
  assert json.loads((folder / 'notes.json').read_text())['samples'] == 5
  # A board of them: it replaces boards, not its scores.
  scores = str(folder / 'scores.json')
  for name in ('board.md', 'board.csv'):
    for _ in range(2):
      make_board([scores], [], str(folder / name))
  (folder / 'README.md').write_text('# Mine')
  with pytest.raises(FileExistsError, match=r'README\.md exists'):
    make_board([scores], [], str(folder / 'README.md'))
  (folder / 'scores.csv').write_text((folder / 'scores.json').read_text())
  with pytest.raises(ValueError, match='it is one of --scores'):
    make_board([str(folder / 'scores.csv')], [], str(folder / 'scores.csv'), overwrite=True)


def test_a_run_is_not_even_loaded_where_an_output_would_be_lost(tmp_path):
  """Each of these would measure for long, and write at its end."""
  taken = tmp_path / 'taken.json'
  taken.write_text('{"mine": 1}')
  (tmp_path / 'clear.png').write_text('mine')
  run = RunRequest(str(tmp_path), 'freihand', submission=str(taken))
  for lines in (
    report_run(RunRequest(str(tmp_path), 'freihand'), str(taken)),
    report_run(run),
    make_figures('nowhere', str(tmp_path)),
  ):
    with pytest.raises(FileExistsError, match='exists and is no result of this command'):
      list(lines)
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match='it is the config of the run'):
    list(report_run(run._replace(submission=None), str(tmp_path / 'config.json'), overwrite=True))
  (tmp_path / 'annotations.json').write_text('[]')
  with pytest.raises(ValueError, match='it is the annotations'):
    check_scores_path(tmp_path / 'annotations.json', tmp_path, overwrite=True)


def test_the_ablations_replace_their_own_tables_alone(tmp_path):
  (tmp_path / 'a.md').write_text('### Table 3: Bayesian against L2, after Procrustes\n')
  check_output(tmp_path / 'a.json')
  (tmp_path / 'a.md').write_text('# My notes\n')
  with pytest.raises(FileExistsError, match=r'a\.md exists .* another --output\.$'):
    check_output(tmp_path / 'a.json')
  with pytest.raises(ValueError, match='would both write'):
    check_output(tmp_path / 'b.md')


def test_a_release_replaces_nothing_of_a_folder_without_a_plan(tmp_path):
  (tmp_path / 'release_card.json').write_text('{"mine": 1}')
  with pytest.raises(FileExistsError, match=r'holds release_card\.json, but no plan\.json'):
    make_release(release_plan(1e-3, 1), str(tmp_path), 'unknown', lambda line: None)
  assert contents(tmp_path) == {tmp_path / 'release_card.json': b'{"mine": 1}'}
