"""Shows results as lines and as the table of docs/performance.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks.table import ROWS

START, END = '<!-- table: written by make bench -->', '<!-- end of the table -->'
# More running programs than this before a row say that it had the machine not to itself.
QUIET_LOAD = 1.0
_HEAD = (
  '| row | what | ours, ms | peer, ms | peer | ratio | bar | share of peak | memory, MiB |',
  '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
)


def describe_row(found: dict[str, Any]) -> str:
  """Returns one line about a result."""
  cells = _cells(found)
  if found['peer'] is None:
    return f'{cells[0]}: {cells[2]} ms, share of peak {cells[7]}'
  return (
    f'{cells[0]}: ours {cells[2]} ms, {cells[4]} {cells[3]} ms, ratio {cells[5]}'
    f' (bar {cells[6]}), share of peak {cells[7]}'
  )


def markdown_table(results: Sequence[dict[str, Any]]) -> str:
  """Returns a table of results."""
  rows = ['| ' + ' | '.join(_cells(found)) + ' |' for found in results]
  return '\n'.join((*_HEAD, *rows))


def replace_table(page: str, table: str) -> str:
  """Puts a table between the marks of a page.

  Raises:
    ValueError: the page lacks the marks.
  """
  if START not in page or END not in page:
    raise ValueError(f'the page lacks the lines {START!r} and {END!r} around its table.')
  before, rest = page.split(START, 1)
  return f'{before}{START}\n{table}\n{END}{rest.split(END, 1)[1]}'


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
    _number(found['ours_ms']),
    _number(found['peer_ms']) if has_peer else '',
    found['peer'] or 'none',
    f'{found["ratio"]:.2f}' if has_peer else '',
    '' if row.bar is None else f'{row.bar:g}',
    share,
    '' if memory is None else _number(memory),
  ]


def _number(value: float) -> str:
  """Writes three digits."""
  return f'{value:.3g}' if value < 1000 else f'{value:.0f}'
