import pathlib

import pytest

from benchmarks import report, table

BENCHMARKS = pathlib.Path(table.__file__).parent
# Others read these names in results.json.
CONTRACT = {
  'resnet50_forward_b8',
  'resnet50_train_b8',
  'efficientnet_b0_forward_b8',
  'efficientnet_b0_train_b8',
  'amvur_head_forward_b8',
  'amvur_head_train_b8',
  'mano_forward_backward_b32',
  'inference_b1',
  'inference_b8',
  'train_step_b8',
  'landmark_network_b1',
  'palm_and_two_landmarks',
  'photo_b1',
  'refinement',
  'rasterizer_8x224_embree',
}


def result(**changes):
  return {
    'row': 'inference_b1',
    'ours_ms': 123.456,
    'peer': 'PyTorch',
    'peer_ms': 200.0,
    'ratio': 0.617,
    'share_of_gemm': 0.456,
    'memory_mib': 1234.5,
    'load_before': 0.1,
    **changes,
  }


def test_the_rows_that_others_read_exist():
  assert set(table.ROWS) >= CONTRACT


@pytest.mark.parametrize('row', table.ROWS.values(), ids=table.ROWS)
def test_every_row_names_a_function(row):
  module, function = row.maker.split(':')
  path = BENCHMARKS / 'rows' / f'{module}.py'
  assert f'\ndef {function}(' in path.read_text()


def test_a_table_row_tells_the_figures():
  assert report.markdown_table([result()]).splitlines()[2] == (
    '| `inference_b1` | whole network, 1 photo | 123 | 200 | PyTorch | 0.62 | 0.8 | 46% of products'
    ' | 1234 |'
  )


def test_a_line_tells_the_figures_that_there_are():
  assert report.describe_row(result()) == (
    '`inference_b1`: ours 123 ms, PyTorch 200 ms, ratio 0.62 (bar 0.8), 46% of products'
  )
  alone = result(row='refinement', peer=None, peer_ms=None, ratio=None)
  del alone['share_of_gemm']
  assert report.describe_row(alone) == '`refinement`: ours 123 ms'


def test_a_busy_machine_is_marked_and_a_missing_peer_is_told():
  cells = report.markdown_table([result(load_before=3.0, peer=None, peer_ms=None, ratio=None)])
  assert '| `inference_b1` * |' in cells
  assert '| none |' in cells


def test_the_table_of_a_page_is_replaced_and_the_rest_kept():
  start, end = report.ROWS_MARKS
  page = f'before\n{start}\nold\n{end}\nafter\n'
  assert report.replace_table(page, 'new') == f'before\n{start}\nnew\n{end}\nafter\n'


def test_a_page_without_marks_is_refused():
  with pytest.raises(ValueError, match='lacks the lines'):
    report.replace_table('no table here', 'new')


def test_the_documentation_has_the_marks():
  page = BENCHMARKS.parent / 'docs' / 'performance.md'
  assert report.replace_table(page.read_text(), '').count(report.ROWS_MARKS.start) == 1
