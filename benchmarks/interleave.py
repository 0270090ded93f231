"""Times competitors in turn, because on a shared machine only ratios of one run are reliable."""

import statistics
import time
from collections.abc import Callable, Mapping


def compare(callables: Mapping[str, Callable[[], object]], repeats: int = 20) -> dict[str, float]:
  """Measures the median seconds of each callable, in turn, so that noise affects all of them alike.

  Medians are printed with their ratios to the first callable's median. Two rounds before the
  measurement compile and warm up.

  Args:
    callables: functions by name, which do their whole work and return when it is done (including
      `block_until_ready`).
    repeats: how often each callable is timed.
  """
  for function in callables.values():
    function()
    function()
  seconds: dict[str, list[float]] = {name: [] for name in callables}
  for _ in range(repeats):
    for name, function in callables.items():
      start = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - start)
  medians = {name: statistics.median(values) for name, values in seconds.items()}
  first = next(iter(medians.values()))
  for name, median in medians.items():
    fastest = min(seconds[name])
    print(
      f'{name:32s} median {1e3 * median:9.3f} ms  fastest {1e3 * fastest:9.3f} ms'
      f'  x{median / first:.2f}'
    )
  return medians
