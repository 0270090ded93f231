"""Trains as `experiments.train` again and again, each time until a signal strikes the process.

python -m tests.faults.struck_train SIGNAL@MOMENT,SIGNAL@MOMENT... FLAGS...

Each time is a process of its own, forked when everything is imported and JAX has computed nothing.
The exit codes and the newest checkpoint's step after each are printed as JSON.

A moment is `step:N`, when N steps were taken since the start; `file:N`, before the Nth time that
Python opens for writing, makes, renames or removes a file of the workdir; `row:N`, when half of the
Nth row is written; or `saved:N`, when the Nth save has begun.
"""

import itertools
import json
import os
import signal
import sys
import threading

from absl import flags

from experiments import train
from experiments.launching import launch
from hand_jax.runs.sources import latest_step
from hand_jax.training import loop

_FILE_EVENTS = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'shutil.rmtree')


def strike(number: int) -> None:
  """Sends the signal; SIGKILL does not return."""
  os.kill(os.getpid(), number)


def after(function, count: int, action):
  """`function`, which is followed by an action when it was called `count` times."""
  calls = itertools.count(1)

  def wrapped(*args, **kwargs):
    result = function(*args, **kwargs)
    if next(calls) == count:
      action()
    return result

  return wrapped


def strike_at_file(number: int, count: int, folder: str) -> None:
  """Strikes at a file's event. Threads save, so that the count is guarded."""
  lock, calls = threading.Lock(), itertools.count(1)

  def audit(event: str, args: tuple) -> None:
    if event not in _FILE_EVENTS or not str(args[0]).startswith(folder):
      return
    if event == 'open' and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
      return
    with lock:
      if next(calls) == count:
        strike(number)

  sys.addaudithook(audit)


def halve_row(number: int, count: int) -> None:
  """Strikes when half of a row is written."""
  write, calls = loop.RunLog.write, itertools.count(1)

  def halved(log, row):
    if next(calls) == count:
      text = json.dumps(row)
      with log._path.open('a') as file:
        file.write(text[: len(text) // 2])
      strike(number)
    write(log, row)

  loop.RunLog.write = halved


def main(argv: list[str]) -> None:
  """Arms the moment and trains."""
  workdir = flags.FLAGS.workdir
  name, moment = STRIKE.split('@')
  number, (kind, count) = getattr(signal, name), moment.split(':')
  if kind == 'step':
    loop.Progress.add = after(loop.Progress.add, int(count), lambda: strike(number))
  elif kind == 'saved':
    loop.Checkpoints.save = after(loop.Checkpoints.save, int(count), lambda: strike(number))
  elif kind == 'row':
    halve_row(number, int(count))
  else:
    strike_at_file(number, int(count), workdir)
  train.main(argv)


if __name__ == '__main__':
  strikes, workdir = sys.argv.pop(1).split(','), sys.argv[1].removeprefix('--workdir=')
  endings = []
  for STRIKE in strikes:
    if (child := os.fork()) == 0:
      break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    endings.append([STRIKE, code, latest_step(workdir)])
  else:
    print(json.dumps(endings))
    sys.exit()
  launch(main, failures=[FloatingPointError])
