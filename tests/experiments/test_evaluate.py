"""The evaluation command on a file of predictions."""

import json

import cv2
import pytest

from tests.evaluation.official.test_score_files import write_files
from tests.reference import official as naive


@pytest.mark.slow
def test_the_command_writes_the_official_scores(tmp_path, run_command):
  predictions, ground_truth, *points = write_files(tmp_path)
  output = tmp_path / 'scores.json'
  done = run_command(
    'experiments.evaluate',
    f'--predictions={predictions}',
    '--dataset=freihand',
    f'--ground_truth={ground_truth}',
    f'--output={output}',
    f'--pck={tmp_path / "pck"}',
  )
  assert done.returncode == 0, done.stderr
  scores = json.loads(output.read_text())
  for name, value in naive.evaluate(*points, ho3d=False).items():
    assert scores[name] == pytest.approx(value, abs=1e-9), name
    assert f'{name}: {value:.6f}\n' in done.stdout
  assert scores['dataset'] == 'freihand' and scores['samples'] == 5
  assert scores['test_time_augmentation'] == 'none'
  assert 'The genuine evaluation split of FreiHAND has 3960 samples' in done.stdout
  header, *rows = (tmp_path / 'pck' / 'pck.csv').read_text().splitlines()
  assert header.startswith('threshold_mm,xyz,xyz_al,mesh,mesh_al') and len(rows) == 100
  assert cv2.imread(str(tmp_path / 'pck' / 'pck.png')) is not None
  assert 'unfinished' not in ' '.join(item.name for item in tmp_path.rglob('*'))
