"""The command that draws figures: one line for mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.figures import parse_examples


def test_numbers_of_examples():
  assert parse_examples(['0', ' 12']) == [0, 12]
  with pytest.raises(ValueError, match="'-1' is no number"):
    parse_examples(['0', '-1'])


@pytest.mark.slow
def test_mistakes_are_one_line():
  run = subprocess.run(
    [sys.executable, '-m', 'experiments.figures', '--workdir=nowhere', '--output=out'],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  lines = [line for line in run.stderr.splitlines() if 'xla' not in line.lower()]
  assert run.returncode == 2 and len(lines) == 1 and lines[0].startswith('Error: nowhere')
