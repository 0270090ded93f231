"""Shows results as lines and as the table of docs/performance.md."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.table import ROWS


class Marks(NamedTuple):
  """The lines of a page between which a command writes a table."""

  start: str
  end: str


ROWS_MARKS = Marks('<!-- table: written by make bench -->', '<!-- end of the table -->')
# With more running programs than this before a row, the row shared the machine with others.
QUIET_LOAD = 1.0
_HEAD = (
  '| row | what | ours, ms | peer, ms | peer | ratio | bar | share of peak | memory, MiB |',
  '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
)


def describe_row(found: dict[str, Any]) -> str:
  """Describes a result in one line."""
  name, _, ours, theirs, peer, ratio, bar, share, _ = _cells(found)
  line = f'{name}: ours {ours} ms'
  if found['peer'] is not None:
    line += f', {peer} {theirs} ms, ratio {ratio}' + (f' (bar {bar})' if bar else '')
  return line + (f', {share}' if share else '')


def markdown_table(results: Sequence[dict[str, Any]]) -> str:
  """Returns a table of results."""
  rows = ['| ' + ' | '.join(_cells(found)) + ' |' for found in results]
  return '\n'.join((*_HEAD, *rows))


def replace_table(page: str, table: str, marks: Marks = ROWS_MARKS) -> str:
  """Puts a table between the marks of a page.

  Raises:
    ValueError: the page lacks the marks.
  """
  start, end = marks
  if start not in page or end not in page:
    raise ValueError(f'the page lacks the lines {start!r} and {end!r} around its table.')
  before, rest = page.split(start, 1)
  return f'{before}{start}\n{table}\n{end}{rest.split(end, 1)[1]}'


def _cells(found: dict[str, Any]) -> list[str]:
  row = ROWS[found['row']]
  busy = ' *' if found['load_before'] > QUIET_LOAD else ''
  shares = (('share_of_gemm', 'of products'), ('share_of_copy', 'of copying'))
  share = next((f'{found[key]:.0%} {of}' for key, of in shares if key in found), '')
  memory = found.get('memory_mib')
  has_peer = found['peer'] is not None
  return [
    f'`{found["row"]}`{busy}',
    row.words,
    three_digits(found['ours_ms']),
    three_digits(found['peer_ms']) if has_peer else '',
    found['peer'] or 'none',
    f'{found["ratio"]:.2f}' if has_peer else '',
    '' if row.bar is None else f'{row.bar:g}',
    share,
    '' if memory is None else three_digits(memory),
  ]


def three_digits(value: float) -> str:
  """Writes a number with three digits, or more if it is 1000 or larger."""
  return f'{value:.3g}' if value < 1000 else f'{value:.0f}'
