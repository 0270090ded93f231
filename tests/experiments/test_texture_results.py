"""The published texture figures: the file has what it promises, the document says the same."""

import json
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
COLUMNS = ('learned', 'mean_color', 'projection')


@pytest.fixture(scope='module')
def results():
  return json.loads((DOCS / 'results' / 'texture.json').read_text())


def test_the_file_has_every_figure_with_command_and_commit(results):
  names = {'psnr_visible_db', 'ssim_visible', 'l1_visible', 'l1_occluded_vertices'}
  for column in COLUMNS:
    assert names <= set(results[column])
    assert set(results['without_masks'][column]) == set(results[column])
  assert results['split'] == 'test' and results['examples'] >= 500
  assert re.fullmatch('[0-9a-f]{7,}', results['commit'])
  assert 'experiments.evaluate_texture' in results['command']
  assert f'--output={"docs/results/texture.json"}' in results['command']


@pytest.mark.parametrize('mark', ['texture', 'texture without masks'])
def test_the_document_prints_these_figures(mark, results):
  text = (DOCS / 'results.md').read_text().partition(f'<!-- {mark} -->')[2]
  rows = re.findall(r'^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', text, re.MULTILINE)
  figures = results if mark == 'texture' else results['without_masks']
  assert {name for name, *_ in rows[:5]} == set(figures['learned'])
  for name, *cells in rows[:5]:
    for column, cell in zip(COLUMNS, cells, strict=True):
      digits = len(cell.partition('.')[2])
      assert cell == f'{figures[column][name]:.{digits}f}', f'{name} {column}'


def test_what_the_document_claims_about_them_holds(results):
  occluded = 'l1_occluded_vertices'
  for figures in (results, results['without_masks']):
    learned, mean, projection = (figures[column] for column in COLUMNS)
    for other in (mean, projection):
      assert 0.07 < 1 - learned[occluded] / other[occluded] < 0.095
    assert learned['psnr_visible_db'] - mean['psnr_visible_db'] > 8.5
