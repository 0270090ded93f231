"""The table of runs side by side, its files and the figure of their curves."""

import csv
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.scoreboard import make_board
from hand_jax.evaluation.official import pck, scoreboard
from hand_jax.evaluation.official.rules import BENCHMARKS, THRESHOLDS_M, OfficialScores
from hand_jax.evaluation.official.score_files import scores_record


def measured(dataset, seed, noise, vertices=20, **origin):
  rng = np.random.default_rng(seed)
  joints, mesh = (rng.normal(size=(6, points, 3)) * 0.05 for points in (21, 20))
  predicted = [points + noise * rng.normal(size=points.shape) for points in (joints, mesh)]
  scores = OfficialScores(BENCHMARKS[dataset])
  scores.add(predicted[0], predicted[1][:, :vertices], joints, mesh)
  return scores_record(dataset, scores, **origin)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('scores')
  records = {
    'good': measured('freihand', 0, 0.004),
    'poor': measured('freihand', 0, 0.02, test_time_augmentation='5 turns, averaged'),
    'coarse': measured('freihand', 0, 0.01, vertices=12),
    'ho3d': measured('ho3d_v3', 1, 0.01),
  }
  for name, record in records.items():
    (folder / f'{name}.json').write_text(json.dumps(record))
  return folder


def paths(folder, *names):
  return [str(folder / f'{name}.json') for name in names]


def cells(text):
  """A Markdown table's cells by the name of their row."""
  rows = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ')]
  return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if row[0] != '---'}


def test_the_table_names_units_and_the_best(files):
  text = make_board(paths(files, 'poor', 'good'), [])
  table = cells(text)
  good = json.loads((files / 'good.json').read_text())
  poor = json.loads((files / 'poor.json').read_text())
  assert text.startswith('## FreiHAND\n')
  assert f'**{good["xyz_al_mean3d"]:.2f}**' == table['xyz_al_mean3d [cm]'][1]
  assert f'{poor["xyz_al_mean3d"]:.2f}' == table['xyz_al_mean3d [cm]'][0]
  assert f'**{good["mesh_auc3d"]:.3f}**' == table['mesh_auc3d'][1]
  assert table['f_score_5'][1].startswith('**') and not table['f_score_5'][0].startswith('**')
  assert table['samples'] == ['6', '6']
  assert table['test-time augmentation'] == ['5 turns, averaged', 'none']
  first = text.splitlines()[2].strip('| ').split(' | ')
  assert [name.strip() for name in first] == ['poor', 'good']


def test_what_was_not_measured_is_never_the_best(files):
  table = cells(make_board(paths(files, 'coarse', 'good', 'poor'), []))
  assert table['mesh_mean3d [cm]'][0] == 'not measured'
  assert table['mesh_mean3d [cm]'][1].startswith('**')
  # One that is compared with nothing is not the best.
  assert '**' not in ''.join(cells(make_board(paths(files, 'good'), []))['xyz_mean3d [cm]'])


def test_benchmarks_are_never_in_one_table(files):
  text = make_board(paths(files, 'ho3d', 'good'), ['run A', 'run B'])
  freihand, ho3d = text.split('## HO3D v3')
  assert 'run B' in freihand and 'run A' not in freihand
  assert 'run A' in ho3d and 'run B' not in ho3d
  assert 'xyz_scale_trans_al_mean3d [cm]' in ho3d and 'xyz_al_mean3d' not in ho3d


def test_the_csv_holds_six_decimals(files, tmp_path):
  output = tmp_path / 'new' / 'board.csv'
  make_board(paths(files, 'poor', 'ho3d'), ['a, "b"', 'c'], str(output))
  with open(output, newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['run'] for row in rows] == ['a, "b"', 'c']
  poor = json.loads((files / 'poor.json').read_text())
  assert rows[0]['xyz_al_mean3d'] == f'{poor["xyz_al_mean3d"]:.6f}'
  assert rows[0]['xyz_scale_trans_al_mean3d'] == '' and rows[1]['xyz_al_mean3d'] == ''
  assert [row['test_time_augmentation'] for row in rows] == ['5 turns, averaged', 'none']
  assert [item.name for item in output.parent.iterdir()] == ['board.csv']


def test_the_markdown_file_is_what_is_printed(files, tmp_path):
  output = tmp_path / 'board.md'
  assert make_board(paths(files, 'good'), [], str(output)) == output.read_text()


def test_scores_without_a_word_on_augmentation_have_none(files, tmp_path):
  record = json.loads((files / 'good.json').read_text())
  del record['test_time_augmentation']
  (tmp_path / 'old.json').write_text(json.dumps(record))
  assert cells(make_board(paths(tmp_path, 'old'), []))['test-time augmentation'] == ['none']


def test_names_come_from_files_and_their_folders_where_needed(tmp_path):
  assert scoreboard.default_names(['x/a.json', 'y/b.json']) == ['a', 'b']
  assert scoreboard.default_names(['x/scores.json', 'y/scores.json']) == ['x/scores', 'y/scores']


@pytest.mark.parametrize(
  'scores, names, output, figure, message',
  [
    ([], [], None, None, 'one file for each run'),
    (['good', 'poor'], ['one'], None, None, 'a name for each of the 2 score files, found 1: one'),
    (['good', 'poor'], ['x', 'x'], None, None, "'x' names two runs"),
    (['good', 'good'], [], None, None, 'names two runs; give each its own with --names'),
    (['nothing'], [], None, None, r'nothing\.json: no such file'),
    (['good'], [], 'board.txt', None, r'--output=board\.txt: expected .* \.md or \.csv'),
    (['good'], [], None, 'board.pdf', r'--pck=board\.pdf: expected a name that ends in \.png'),
  ],
)
def test_what_cannot_be_compared_is_named(files, scores, names, output, figure, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    make_board(paths(files, *scores), names, output, figure)


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda record: record.pop('dataset'),
      "'dataset' one of freihand, ho3d_v2, ho3d_v3, found None",
    ),
    (lambda record: record.update(dataset='coco'), "found 'coco'"),
    (lambda record: record.pop('f_score_5'), "a finite number for 'f_score_5', found None"),
    (lambda record: record.update(xyz_mean3d='1.0'), "for 'xyz_mean3d', found '1.0'"),
    (lambda record: record.update(mesh_auc3d=float('nan')), "for 'mesh_auc3d', found nan"),
    (lambda record: record['pck'].update(xyz=[0.5]), "100 shares in the PCK curve 'xyz', found 1"),
    (lambda record: record['pck'].update(xyz=0.5), r"100 shares in .* 'xyz', found 0\.5"),
    (lambda record: record.update(pck=[[0.5]]), r"PCK curves by name under 'pck', found \[\[0\.5"),
  ],
)
def test_a_damaged_scores_file_is_named(change, message, files, tmp_path):
  record = json.loads((files / 'good.json').read_text())
  change(record)
  (tmp_path / 'bad.json').write_text(json.dumps(record))
  with pytest.raises(ValueError, match=message) as error:
    make_board(paths(tmp_path, 'bad'), [])
  assert str(tmp_path / 'bad.json') in str(error.value)
  (tmp_path / 'bad.json').write_text(json.dumps(record)[:-9])
  with pytest.raises(ValueError, match=r'bad\.json is not valid JSON'):
    make_board(paths(tmp_path, 'bad'), [])


def test_the_panels_hold_every_run_that_has_the_curve(files):
  runs = scoreboard.read_runs(paths(files, 'good', 'coarse', 'poor', 'ho3d'))
  panels = scoreboard.board_panels(runs)
  titles = [panel.title for panel in panels]
  assert titles[:4] == [
    *('FreiHAND, Joints', 'FreiHAND, Joints, aligned', 'FreiHAND, Mesh', 'FreiHAND, Mesh, aligned'),
  ]
  assert len(titles) == 9 and all(title.startswith('HO3D v3') for title in titles[4:])
  augmented = 'poor (test-time augmentation: 5 turns, averaged)'
  assert list(panels[0].curves) == ['good', 'coarse', augmented]
  assert list(panels[2].curves) == ['good', augmented]
  del runs[0].scores['pck']
  with pytest.raises(ValueError, match="'good' hold no PCK curves"):
    scoreboard.board_panels(runs)


@pytest.mark.slow
def test_the_figure_is_written_whole(files, tmp_path):
  figure = tmp_path / 'pck.png'
  make_board(paths(files, 'good', 'poor'), [], pck=str(figure))
  picture = cv2.imread(str(figure))
  assert picture.shape[2] == 3 and [item.name for item in tmp_path.iterdir()] == ['pck.png']


def test_a_curve_is_drawn_where_its_shares_are():
  """A step from 0 to 1 between two thresholds, in the first colour, over white."""
  curve = [0.25] * 50 + [0.75] * 50
  figure = pck.draw_pck([pck.Panel('A', {'a': curve})])
  figure.savefig(file := io.BytesIO(), format='png')
  picture = np.asarray(Image.open(file).convert('RGB')).astype(int)
  blue = np.abs(picture - (0, 114, 178)).sum(-1) < 60
  to_pixels = figure.axes[0].transData.transform
  for mm, share in ((10, 0.25), (40, 0.75)):
    x, y = to_pixels((mm, share))
    column = blue[:, round(x)].nonzero()[0]
    assert len(column) and abs(picture.shape[0] - column.mean() - y) < 2
  (left, low), (right, high) = to_pixels([(0, 0), (50, 1)])
  assert 0 < left < right < picture.shape[1] and 0 < low < high < picture.shape[0]


def test_names_stand_as_they_are_beside_their_curve_and_its_area():
  """Neither as mathematics nor left out, whatever they begin with."""
  curve = np.linspace(0, 1, 100).tolist()
  figure = pck.draw_pck([pck.Panel('$A$', {'_a $x$': curve, 'b': [0.5] * 100})])
  (axes,) = figure.axes
  assert axes.get_title(loc='left') == '$A$: share within threshold'
  texts = axes.get_legend().get_texts()
  assert [text.get_text() for text in texts] == ['_a $x$: AUC 0.500', 'b: AUC 0.500']
  assert not any(text.get_parse_math() for text in (*texts, axes._left_title))
  shown = [line.get_color() for line in axes.get_legend().get_lines()]
  assert shown == [line.get_color() for line in axes.lines] and len(set(shown)) == 2
  np.testing.assert_allclose(axes.lines[0].get_xydata(), np.c_[1000 * THRESHOLDS_M, curve])


def test_panels_are_in_rows_and_more_curves_than_colours_are_refused():
  curve = np.linspace(0, 1, 100).tolist()
  one, four, five = (pck.draw_pck([pck.Panel('A', {'a': curve})] * n) for n in (1, 4, 5))
  width, height = one.get_size_inches()
  np.testing.assert_allclose(four.get_size_inches(), (2 * width, 2 * height))
  np.testing.assert_allclose(five.get_size_inches(), (3 * width, 2 * height))
  # All plots have one size, at one place of their panels.
  where = np.array([axes.get_window_extent().bounds for axes in five.axes])
  np.testing.assert_allclose(where[:, 2:], np.tile(where[:1, 2:], (5, 1)))
  panel = five.dpi * np.array([width, height])
  steps = [(0, 0), (1, 0), (2, 0), (0, -1), (1, -1)]
  np.testing.assert_allclose(where[:, :2] - where[:1, :2], steps * panel)
  with pytest.raises(ValueError, match="7 colours, for as many curves to a panel; 'A' has 8"):
    pck.draw_pck([pck.Panel('A', {str(number): curve for number in range(8)})])


def test_the_table_of_curves_is_the_curves():
  curves = {'xyz': np.linspace(0, 1, 100).tolist(), 'mesh': [0.5] * 100}
  lines = pck.pck_csv(curves).splitlines()
  assert lines[0] == 'threshold_mm,xyz,mesh' and len(lines) == 101
  rows = np.array([[float(cell) for cell in line.split(',')] for line in lines[1:]])
  np.testing.assert_allclose(rows[:, 0], 1000 * THRESHOLDS_M, atol=1e-6)
  np.testing.assert_allclose(rows[:, 1], curves['xyz'], atol=1e-6)
  assert pck.area(curves['mesh']) == pytest.approx(0.5)
