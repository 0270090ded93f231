"""Measures one row in a separate process and writes the result as JSON.

  python -m benchmarks.one_row NAME RESULT.json [quick]

`python -m benchmarks` calls this.
"""

import importlib
import json
import os
import pathlib
import sys
from typing import Any

import jax

from benchmarks.contest import Contest, Timing, timed
from benchmarks.machine import describe, measure_limits, other_load
from benchmarks.table import ROWS, Row
from hand_jax.files.cpu_products import set_product_flag

_THREADS = 2
# If results differ by more than this share, the two sides compute different functions.
MOST_DIFFERENCE = 1e-3


def measure(name: str, quick: bool = False) -> dict[str, Any]:
  """Measures a row, or only tries it.

  Raises:
    ValueError: the results of both sides differ.
  """
  load = other_load()
  set_product_flag()  # as the project's commands do
  row = ROWS[name]
  module, function = row.maker.split(':')
  make = getattr(importlib.import_module(f'benchmarks.rows.{module}'), function)
  versions = {'jax': jax.__version__}
  # Rows that do without PyTorch need not wait for its import.
  torch = sys.modules.get('torch')
  if torch is not None:
    # Threads that wait for each other take very long on a busy machine.
    torch.set_num_threads(1 if quick else _THREADS)
    versions['torch'] = torch.__version__
  contest = make(*row.arguments)
  difference = contest.difference
  if difference is not None and not difference <= MOST_DIFFERENCE:
    raise ValueError(f'{name}: the results differ by {difference:.1e} of the largest value.')
  limits = measure_limits()
  timing = timed(contest, quick)
  return {
    **_figures(name, row, contest, timing, limits),
    'load_before': round(load, 2),
    'machine': describe(),
    'versions': versions,
  }


def _figures(
  name: str, row: Row, contest: Contest, timing: Timing, limits: dict[str, float]
) -> dict[str, Any]:
  ours_ms, peer_ms = timing.best()
  figures = {
    'row': name,
    'ours_ms': round(ours_ms, 4),
    'peer': timing.peer or None,
    'peer_ms': peer_ms and round(peer_ms, 4),
    'ratio': peer_ms and round(ours_ms / peer_ms, 3),
    'bar': row.bar,
    'rounds_ms': [[round(x, 4) for x in r] for r in (timing.ours_ms, timing.peer_ms)],
    'repeats': list(timing.repeats),
    'difference': contest.difference,
  }
  flops, moved = contest.work, contest.moved
  if contest.compiled is not None:
    memory = contest.compiled.memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    figures['memory_mib'] = round((total - memory.alias_size_in_bytes) / 2**20, 2)
    if flops is None:
      flops = (contest.compiled.cost_analysis() or {}).get('flops')
  if flops:
    figures['gflop'] = round(flops / 1e9, 4)
    rate = flops / ours_ms / 1e6
    figures['share_of_gemm'] = round(rate / limits['gemm_gflops'], 3)
  if moved:
    figures['share_of_copy'] = round(moved / ours_ms / 1e6 / limits['copy_gb_per_s'], 3)
  return {**figures, 'limits': {key: round(value, 1) for key, value in limits.items()}}


def main() -> None:
  """Measures the row that the command line names."""
  name, path, *quick = sys.argv[1:]
  pathlib.Path(path).write_text(json.dumps(measure(name, bool(quick))))
  # Threads of some libraries keep a process from ending.
  os._exit(0)


if __name__ == '__main__':
  main()
