"""The command that draws figures: one line for mistakes."""

import pytest

from experiments.figures import parse_examples


def test_numbers_of_examples():
  assert parse_examples(['0', ' 12']) == [0, 12]
  with pytest.raises(ValueError, match="'-1' is no number"):
    parse_examples(['0', '-1'])


@pytest.mark.slow
def test_mistakes_are_one_line(run_command):
  run = run_command('experiments.figures', '--workdir=nowhere', '--output=out')
  lines = [line for line in run.stderr.splitlines() if 'xla' not in line.lower()]
  assert run.returncode == 2 and len(lines) == 1 and lines[0].startswith('Error: nowhere')
