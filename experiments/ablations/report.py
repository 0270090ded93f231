"""Reads and checks the rows of the ablations, writes them, and shows them as Markdown tables."""

import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.ablations.grid import ENTRIES, KEPT_TABLES, SPLITS, TABLES
from hand_jax.evaluation.evaluate import ERROR_NAMES
from hand_jax.evaluation.hand_errors import JOINTS_2D, SILHOUETTE_IOU
from hand_jax.files.json_files import read_json
from hand_jax.files.outputs import Output, check_outputs, is_text_beginning
from hand_jax.files.writing import write_json, write_whole

Row = dict[str, Any]
KEY = ('table', 'setting', 'supervision', 'seed', 'branch', 'split')
# The tables need these of a row. `result_row` in experiments/ablations/running.py fills them.
REQUIRED = (*KEY, 'hands', *ERROR_NAMES, 'mean_hand_pa_mpjpe_mm', 'steps', 'commit', 'command')
REQUIRED += ('batch_size', 'train_examples', 'test_examples', 'seconds')
SECTION = ('<!-- ablations -->', '<!-- /ablations -->')


class Column(NamedTuple):
  """A figure of a table: its heading, the function that takes it from a row, and its digits.

  The function gives None where a row does not have the figure.
  """

  title: str
  value: Callable[[Row], float | None]
  digits: int


def _metric(title: str, name: str) -> Column:
  return Column(title, lambda row: row.get(name), 2 if name.endswith(('_mm', '_px')) else 3)


def below_mean_hand(row: Row) -> float:
  """Returns by how many percent the PA-MPJPE is below that of the mean hand."""
  return 100 * (1 - row['pa_mpjpe_mm'] / row['mean_hand_pa_mpjpe_mm'])


_ALIGNED = (
  _metric('PA AUC joints', 'pa_auc_joints'),
  _metric('PA-MPJPE', 'pa_mpjpe_mm'),
  _metric('PA AUC vertices', 'pa_auc_vertices'),
  _metric('PA-MPVPE', 'pa_mpvpe_mm'),
  _metric('PA F@5', 'pa_f_score_5mm'),
  _metric('PA F@15', 'pa_f_score_15mm'),
)
_UNALIGNED = (
  _metric('MPJPE', 'mpjpe_mm'),
  _metric('MPVPE', 'mpvpe_mm'),
  _metric('F@5', 'f_score_5mm'),
  _metric('F@15', 'f_score_15mm'),
)
_BOTH = (
  _metric('MPJPE', 'mpjpe_mm'),
  _metric('PA-MPJPE', 'pa_mpjpe_mm'),
  _metric('MPVPE', 'mpvpe_mm'),
  _metric('PA-MPVPE', 'pa_mpvpe_mm'),
)
_GAIN = Column('PA-MPJPE below the mean hand, %', below_mean_hand, 1)
_IN_PICTURE = _metric('2D error, px of 224', JOINTS_2D)
# Each table has a heading and columns. Where the paper prints the table, the columns are the same.
LAYOUTS: dict[str, tuple[str, tuple[Column, ...]]] = {
  '3': ('Table 3: Bayesian against L2, after Procrustes', _ALIGNED),
  '4': ('Table 4: one loss after the other, before Procrustes', _UNALIGNED),
  '5': ('Table 5: prior, posterior and L2, before Procrustes', _UNALIGNED),
  'branches': ('The branches: prior-net alone, prior and posterior', _BOTH),
  'weak_start': (
    'Algorithm 2 and what it starts from',
    (_metric('PA-MPJPE', 'pa_mpjpe_mm'), _metric('MPJPE', 'mpjpe_mm'), _IN_PICTURE),
  ),
  'convention': ("The paper's letter against the exact form", _BOTH),
  'unit': ('The length unit, in which the prior has a deviation of one', _BOTH),
  'silhouette': (
    'The soft silhouette in the loss',
    (_metric('silhouette IoU', SILHOUETTE_IOU), *_BOTH, _IN_PICTURE),
  ),
  'weak': ('The longer run with 2D joints alone', (*_BOTH, _GAIN)),
}
FULL_TABLES = ('3', '4', '5')
"""The rows of these tables need all metrics. The others need errors alone, which take less time."""
# The differences that a table shows, where its rows have any.
_DIFFERENCES = {
  'pa_mpjpe_mm': 'PA-MPJPE',
  'mpjpe_mm': 'MPJPE',
  'pa_mpvpe_mm': 'PA-MPVPE',
  'mpvpe_mm': 'MPVPE',
  JOINTS_2D: '2D error',
  SILHOUETTE_IOU: 'silhouette IoU',
}
_TOLD = {
  '3': ('pa_mpjpe_mm', 'mpjpe_mm'),
  '4': ('mpvpe_mm', 'pa_mpvpe_mm'),
  '5': ('pa_mpvpe_mm', 'mpvpe_mm'),
  'branches': ('pa_mpvpe_mm',),
  'weak_start': ('pa_mpjpe_mm', JOINTS_2D),
  'silhouette': (SILHOUETTE_IOU, 'pa_mpjpe_mm', JOINTS_2D),
}
_SHOWN = (*TABLES, *KEPT_TABLES)
_NO_RUN = 'No run has finished yet.\n'
_NAMES = ('setting', 'supervision', 'branch', 'split')
_MISSING = '-'


def format_markdown(rows: Sequence[Row]) -> str:
  """Writes the rows as Markdown, with a section for each table and the commands behind them.

  A table without rows is left out. A setting with several seeds shows mean ± sample standard
  deviation, and its seeds one by one below.
  """
  parts = [_table_section(table, chosen) for table in _SHOWN if (chosen := _of(rows, table))]
  if not parts:
    return _NO_RUN
  return '\n'.join([*parts, _format_commands(rows)])


def _of(rows: Sequence[Row], table: str) -> list[Row]:
  return [row for row in in_order(rows) if row['table'] == table]


def in_order(rows: Sequence[Row]) -> list[Row]:
  """Lists rows in the order of tables, splits, the grid's entries and seeds.

  The order of measurement only matters for rows of one seed that the grid does not contain.
  """
  entries = [(entry.table, entry.setting, entry.supervision, entry.branch) for entry in ENTRIES]
  numbers = {names: number for number, names in reversed(list(enumerate(entries)))}

  def place(row: Row) -> tuple:
    split = list(SPLITS).index(row['split']) if row['split'] in SPLITS else len(SPLITS)
    names = tuple(row[name] for name in ('table', 'setting', 'supervision', 'branch'))
    table = _SHOWN.index(row['table']) if row['table'] in _SHOWN else len(_SHOWN)
    return (table, split, row['split'], numbers.get(names, len(entries)), row['seed'])

  return sorted(rows, key=place)


def _names(row: Row) -> tuple[str, ...]:
  return tuple(row[name] for name in _NAMES)


def _table_section(table: str, rows: list[Row]) -> str:
  title, columns = LAYOUTS[table]
  groups: dict[tuple[str, ...], list[Row]] = {}
  for row in rows:
    groups.setdefault(_names(row), []).append(row)
  header = [*_NAMES, 'seeds', *(column.title for column in columns)]
  header += ['steps', 'images seen', 'seconds']
  lines = [f'### {title}', '', *_table_lines(header, [_cells(g, columns) for g in groups.values()])]
  if compared := [group[-1] for group in groups.values() if group[-1].get('interval')]:
    lines += ['', *_difference_lines(table, compared)]
  lines += ['', _remarks(rows), '']
  if any(len(group) > 1 for group in groups.values()):
    each = _table_lines([*header, 'commit'], [[*_cells([r], columns), r['commit']] for r in rows])
    lines += ['<details><summary>Seed by seed</summary>', '', *each, '', '</details>', '']
  return '\n'.join(lines)


def _difference_lines(table: str, rows: Sequence[Row]) -> list[str]:
  """Writes a table of the rows' differences, with their 95 % intervals over seeds and hands."""
  told = _TOLD.get(table, ('pa_mpvpe_mm',))
  header = [*_NAMES, 'minus', 'seeds', *(f'{_DIFFERENCES[name]} [95 %]' for name in told)]
  lines = []
  for row in rows:
    found = [row['differences'].get(name) for name in told]
    cells = [
      _difference(name, each) if each else _MISSING for name, each in zip(told, found, strict=True)
    ]
    lines.append([*_names(row), row['against'], ', '.join(map(str, row['interval_seeds'])), *cells])
  return _table_lines(header, lines)


def _difference(name: str, values: Sequence[float]) -> str:
  digits = 4 if name == SILHOUETTE_IOU else 2
  mean, low, high = (f'{value:+.{digits}f}' for value in values)
  return f'{mean} [{low}, {high}]'


def _cells(group: list[Row], columns: Sequence[Column]) -> list[str]:
  """Writes one line of a table from the rows of one setting, which differ by their seeds."""
  cells = [*_names(group[0]), ', '.join(str(row['seed']) for row in group)]
  for column in columns:
    found = [value for row in group if (value := column.value(row)) is not None]
    if not found:
      cells.append(_MISSING)
      continue
    values = np.array(found, np.float64)
    text = f'{values.mean():.{column.digits}f}'
    if len(values) > 1:
      text += f' ± {values.std(ddof=1):.{column.digits}f}'
    cells.append(text)
  seconds = [row['seconds'] for row in group if row['seconds'] is not None]
  cells += [_distinct(map(_steps, group)), _distinct(map(_images, group))]
  return [*cells, f'{np.mean(seconds):.0f}' if seconds else _MISSING]


def _steps(row: Row) -> str:
  before = row.get('steps_before', 0)
  return f'{row["steps"]:,}' + (f' after {before:,}' if before else '')


def _images(row: Row) -> str:
  return f'{row["steps"] * row["batch_size"]:,}'


def _remarks(rows: list[Row]) -> str:
  known = [row['mean_hand_pa_mpjpe_mm'] for row in rows if row['mean_hand_pa_mpjpe_mm'] is not None]
  baseline = _distinct(f'{value:.2f}' for value in known)
  available = _distinct(f'{row["train_examples"]:,} {row["hands"]}' for row in rows)
  commits = _distinct(f'`{row["commit"]}`' for row in rows)
  mean_hand = f'; the mean hand has a PA-MPJPE of {baseline} mm' if known else ''
  return (
    f'Errors in mm, over {_distinct(row["test_examples"] for row in rows)} hands of a '
    f'split{mean_hand}. Batches of {_distinct(row["batch_size"] for row in rows)} from {available} '
    f'training hands; seconds are of training and evaluation. Commit {commits}.'
  )


def _format_commands(rows: Sequence[Row]) -> str:
  """Lists every step of the rows' commands once, in an order in which they can be run.

  Of steps that differ by their seed alone the first is listed.
  """
  steps: dict[str, str] = {}
  for row in in_order(rows):
    for step in row['command'].split(' && '):
      steps.setdefault(re.sub(r'seed(s?=|)\d+', 'seed', step), step)
  lines = ['<details><summary>The commands of these runs</summary>', '']
  if len(steps) < len({step for row in rows for step in row['command'].split(' && ')}):
    lines += ['Other seeds have their number in the place of this one.', '']
  return '\n'.join([*lines, *(f'    {step}' for step in steps.values()), '', '</details>', ''])


def _distinct(values: Iterable[Any]) -> str:
  """Joins the distinct values. There are several if runs of different sizes are listed."""
  return ' / '.join(dict.fromkeys(map(str, values)))


def _table_lines(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
  return ['| ' + ' | '.join(cells) + ' |' for cells in (header, ['---'] * len(header), *lines)]


def load_rows(path: pathlib.Path) -> list[Row]:
  """Reads the rows of an output file. There are none when there is no file.

  Raises:
    ValueError: the file is not a list of rows, or it has a row twice.
  """
  if not path.exists():
    return []
  expected = 'expected a list of rows as this command writes it; move it away or repair it.'
  try:
    rows = read_json(path)
  except ValueError as error:
    raise ValueError(f'{str(error).rstrip(".")}; {expected}') from None
  if not isinstance(rows, list):
    raise ValueError(f'{path} holds {type(rows).__name__}: {expected}')
  for number, row in enumerate(rows):
    if not isinstance(row, dict):
      raise ValueError(f'{path}: row {number} is {row!r}; {expected}')
    if missing := [name for name in REQUIRED if name not in row]:
      raise ValueError(f'{path}: row {number} lacks {", ".join(missing)}; {expected}')
  keys = [row_key(row) for row in rows]
  if unknown := [row['table'] for row in rows if row['table'] not in _SHOWN]:
    raise ValueError(f'{path} has the unknown table {unknown[0]!r}; {expected}')
  if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
    raise ValueError(f'{path} holds the row {repeated[0]} more than once; {expected}')
  return rows


def row_key(row: Row) -> tuple:
  """Returns the values of `KEY`, which distinguish a row from all others."""
  return tuple(row[name] for name in KEY)


def update_section(path: pathlib.Path, text: str) -> None:
  """Replaces the lines between the two marker lines of a document by a text.

  Raises:
    ValueError: a marker is missing, occurs twice, or the two are in the wrong order.
  """
  content = path.read_text()
  start, end = SECTION
  if [content.count(marker) for marker in SECTION] != [1, 1] or (
    content.index(start) > content.index(end)
  ):
    raise ValueError(
      f'{path} should hold the line {start} and after it the line {end}, once each: the '
      'tables go between them.'
    )
  before, _, rest = content.partition(start)
  _, _, after = rest.partition(end)
  write_whole(path, f'{before}{start}\n\n{text.strip()}\n\n{end}{after}')


def check_output(output: pathlib.Path) -> None:
  """Checks, before any run, that `publish` replaces no file but its own (see `load_rows`).

  Raises:
    OSError, ValueError: see `check_outputs`.
  """
  beginnings = (_NO_RUN, *(f'### {title}\n' for title, _ in LAYOUTS.values()))
  tables = Output('--output', output.with_suffix('.md'), is_text_beginning(*beginnings))
  # `load_rows` checks the content of the file of rows, so any file passes here.
  check_outputs([Output('--output', output, lambda path: True), tables], overwrite=None)


def publish(output: pathlib.Path, rows: list[Row]) -> None:
  """Writes the rows in order, their Markdown, and their section of `../results.md` if it exists."""
  rows = in_order(rows)
  text = format_markdown(rows)
  output.parent.mkdir(parents=True, exist_ok=True)
  document = output.parent.parent / 'results.md'
  if document.exists():
    update_section(document, text)
  write_whole(output.with_suffix('.md'), text)
  write_json(output, rows)
