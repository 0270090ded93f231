"""Runs commands as processes that do not import JAX and TFDS again, which takes seconds each time.

`python -m tests.forked_commands` imports what the commands share. Then it forks for every line of
its input, which is a JSON object, and the child runs the command as `python -m` would. JAX computes
nothing before a fork, so it has no threads yet. Tests about what a command imports need a process
of their own.
"""

import contextlib
import gc
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).parents[1]

RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def forked_commands() -> Iterator[RunCommand]:
  """Gives a function of a module's name and its arguments, which returns the ended process."""
  with (
    tempfile.TemporaryDirectory() as folder,
    subprocess.Popen(
      [sys.executable, '-m', 'tests.forked_commands', folder],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    ) as server,
  ):

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
      print(json.dumps([module, *arguments]), file=server.stdin, flush=True)
      code = int(server.stdout.readline())
      printed = [pathlib.Path(folder, name).read_text() for name in ('stdout', 'stderr')]
      return subprocess.CompletedProcess([module, *arguments], code, *printed)

    yield run


def wait_for_command(folder: str) -> list[str]:
  """Returns in a child alone, once for each line of the input, and ends the parent after them."""
  for line in sys.stdin:
    child = os.fork()
    if child == 0:
      for number, name in ((1, 'stdout'), (2, 'stderr')):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(os.path.join(folder, name), flags), number)
      os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
      return json.loads(line)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
  sys.exit()


if __name__ == '__main__':
  import jax.numpy  # noqa: F401
  import tensorflow_datasets  # noqa: F401

  import hand_jax.commands.reconstruct_photos
  import hand_jax.preparing.data_sets
  import hand_jax.training.loop  # noqa: F401
  from tests.parameter_shapes import remember_parameter_shapes

  remember_parameter_shapes()
  gc.freeze()  # a child that searches for cycles would copy all of the memory
  sys.argv = wait_for_command(sys.argv[1])
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
