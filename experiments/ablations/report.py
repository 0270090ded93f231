"""Reads and checks the rows of the ablations, writes them, and shows them as Markdown tables."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.ablations.grid import ENTRIES, TABLES
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.files.json_files import read_json
from hand_jax.files.outputs import Output, check_outputs, is_text_beginning
from hand_jax.files.writing import write_json, write_whole

Row = dict[str, Any]
KEY = ('table', 'setting', 'supervision', 'seed', 'branch')
# The tables need these of a row. `result_row` in experiments/ablations/running.py fills them.
REQUIRED = (*KEY, *METRIC_NAMES, 'mean_hand_pa_mpjpe_mm', 'steps', 'commit', 'command')
REQUIRED += ('batch_size', 'train_examples', 'test_examples', 'seconds')
SECTION = ('<!-- ablations -->', '<!-- /ablations -->')


class Column(NamedTuple):
  """A figure of a table: its heading, the function that takes it from a row, and its digits."""

  title: str
  value: Callable[[Row], float]
  digits: int


def _metric(title: str, name: str) -> Column:
  return Column(title, lambda row: row[name], 2 if name.endswith('_mm') else 3)


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
# Each table has a heading and columns. Where the paper prints the table, the columns are the same.
LAYOUTS: dict[str, tuple[str, tuple[Column, ...]]] = {
  '3': ('Table 3: Bayesian against L2, after Procrustes', _ALIGNED),
  '4': ('Table 4: one loss after the other, before Procrustes', _UNALIGNED),
  '5': ('Table 5: prior, posterior and L2, before Procrustes', _UNALIGNED),
  'convention': ("The paper's letter against the exact form", _BOTH),
  'unit': ('The length unit, in which the prior has a deviation of one', _BOTH),
  'weak': ('The longer run with 2D joints alone', (*_BOTH, _GAIN)),
}
_NO_RUN = 'No run has finished yet.\n'
_NAMES = ('setting', 'supervision', 'branch')


def format_markdown(rows: Sequence[Row]) -> str:
  """Writes the rows as Markdown, with a section for each table and the commands behind them.

  A table without rows is left out. A setting with several seeds shows mean ± sample standard
  deviation, and its seeds one by one below.
  """
  parts = [_table_section(table, chosen) for table in TABLES if (chosen := _of(rows, table))]
  if not parts:
    return _NO_RUN
  return '\n'.join([*parts, _format_commands(rows)])


def _of(rows: Sequence[Row], table: str) -> list[Row]:
  """Lists the table's rows in the grid's order and by seed, not in the order of measurement."""
  order = {
    (entry.setting, entry.supervision, entry.branch): number
    for number, entry in enumerate(ENTRIES)
    if entry.table == table
  }
  chosen = [row for row in rows if row['table'] == table]
  return sorted(chosen, key=lambda row: (order.get(_names(row), len(ENTRIES)), row['seed']))


def _names(row: Row) -> tuple[str, str, str]:
  return tuple(row[name] for name in _NAMES)


def _table_section(table: str, rows: list[Row]) -> str:
  title, columns = LAYOUTS[table]
  groups: dict[tuple[str, str, str], list[Row]] = {}
  for row in rows:
    groups.setdefault(_names(row), []).append(row)
  header = [*_NAMES, 'seeds', *(column.title for column in columns)]
  header += ['steps', 'images seen', 'seconds']
  lines = [f'### {title}', '', *_table_lines(header, [_cells(g, columns) for g in groups.values()])]
  lines += ['', _remarks(rows), '']
  if any(len(group) > 1 for group in groups.values()):
    each = _table_lines([*header, 'commit'], [[*_cells([r], columns), r['commit']] for r in rows])
    lines += ['<details><summary>Seed by seed</summary>', '', *each, '', '</details>', '']
  return '\n'.join(lines)


def _cells(group: list[Row], columns: Sequence[Column]) -> list[str]:
  """Writes one line of a table from the rows of one setting, which differ by their seeds."""
  cells = [*_names(group[0]), ', '.join(str(row['seed']) for row in group)]
  for column in columns:
    values = np.array([column.value(row) for row in group], np.float64)
    text = f'{values.mean():.{column.digits}f}'
    if len(values) > 1:
      text += f' ± {values.std(ddof=1):.{column.digits}f}'
    cells.append(text)
  seconds = [row['seconds'] for row in group if row['seconds'] is not None]
  cells += [_distinct(map(_steps, group)), _distinct(map(_images, group))]
  return [*cells, f'{np.mean(seconds):.0f}' if seconds else '-']


def _steps(row: Row) -> str:
  before = row.get('steps_before', 0)
  return f'{row["steps"]:,}' + (f' after {before:,}' if before else '')


def _images(row: Row) -> str:
  return f'{row["steps"] * row["batch_size"]:,}'


def _remarks(rows: list[Row]) -> str:
  baseline = _distinct(f'{row["mean_hand_pa_mpjpe_mm"]:.2f}' for row in rows)
  available = _distinct(f'{row["train_examples"]:,}' for row in rows)
  commits = _distinct(f'`{row["commit"]}`' for row in rows)
  return (
    f'Errors in mm, over {_distinct(row["test_examples"] for row in rows)} test hands; the mean '
    f'hand has a PA-MPJPE of {baseline} mm. Batches of '
    f'{_distinct(row["batch_size"] for row in rows)} from {available} training hands; seconds are '
    f'of training and evaluation. Commit {commits}.'
  )


def _format_commands(rows: Sequence[Row]) -> str:
  """Lists every step of the rows' commands once, in an order in which they can be run."""
  steps = dict.fromkeys(step for row in rows for step in row['command'].split(' && '))
  lines = ['<details><summary>The commands of these runs</summary>', '']
  return '\n'.join([*lines, *(f'    {step}' for step in steps), '', '</details>', ''])


def _distinct(values: Iterable[Any]) -> str:
  """Joins the distinct values. There are several where runs of different sizes meet."""
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
  expected = 'expected a list of rows as this command writes it; move it away or mend it.'
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
  if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
    raise ValueError(f'{path} holds the row {repeated[0]} more than once; {expected}')
  return rows


def row_key(row: Row) -> tuple:
  """Returns the values of `KEY`, which distinguish a row from all others."""
  return tuple(row[name] for name in KEY)


def update_section(path: pathlib.Path, text: str) -> None:
  """Replaces what stands between the two marker lines of a document by a text.

  Raises:
    ValueError: the markers are not there once each, in their order.
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
  """Writes the rows, their Markdown, and their section of `../results.md` if that exists."""
  text = format_markdown(rows)
  output.parent.mkdir(parents=True, exist_ok=True)
  document = output.parent.parent / 'results.md'
  if document.exists():
    update_section(document, text)
  write_whole(output.with_suffix('.md'), text)
  write_json(output, rows)
