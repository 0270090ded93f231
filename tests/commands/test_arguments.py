"""What the commands share: how output ends whose reader has gone."""

import os
import pathlib
import subprocess
import sys

import pytest

from hand_jax.commands.arguments import ending_quietly

ROOT = pathlib.Path(__file__).parents[2]


def test_the_command_is_quiet_where_its_reader_has_gone():
  reading, writing = os.pipe()
  os.close(reading)
  with os.fdopen(writing, 'wb') as output:
    done = subprocess.run(
      [sys.executable, '-m', 'hand_jax', '--version'],
      cwd=ROOT,
      env={name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
      stdout=output,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  assert (done.stderr, done.returncode) == ('', 141)


def test_a_pipe_other_than_the_output_raises():
  with pytest.raises(BrokenPipeError), ending_quietly():
    raise BrokenPipeError(32, 'a worker died')
