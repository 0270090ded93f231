"""Compiled programs go from one process of pytest to another, and only whole ones."""

import os

import pytest

from tests.shared_programs import KEPT_DAYS, SharedPrograms


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_new_programs_reach_the_other_process(tmp_path):
  first, second = (SharedPrograms(tmp_path, name) for name in ('gw0', 'gw1'))
  (first.folder / 'step-cache').write_bytes(b'program')
  second.exchange()
  assert names(second.folder) == []
  first.exchange()
  second.exchange()
  assert (second.folder / 'step-cache').read_bytes() == b'program'
  assert names(SharedPrograms(tmp_path, 'gw2').folder) == ['step-cache']
  # Both made the same program at once.
  for process in (first, second):
    (process.folder / 'loss-cache').write_bytes(process.folder.name.encode())
  for process in (first, second):
    process.exchange()
  assert (second.folder / 'loss-cache').read_bytes() == b'gw1'


def test_what_a_killed_process_left_is_not_shared(tmp_path):
  (tmp_path / 'gw0').mkdir()
  (tmp_path / 'gw0' / 'half-cache').write_bytes(b'pro')
  SharedPrograms(tmp_path, 'gw0').exchange()
  assert names(tmp_path / 'shared') == []


@pytest.mark.parametrize('days, kept', [(KEPT_DAYS - 1, ['step-cache']), (KEPT_DAYS + 1, [])])
def test_old_programs_are_dropped(tmp_path, days, kept):
  process = SharedPrograms(tmp_path, 'gw0')
  path = process.folder / 'step-cache'
  path.write_bytes(b'program')
  then = path.stat().st_mtime - days * 24 * 3600
  os.utime(path, (then, then))
  process.exchange()
  assert names(SharedPrograms(tmp_path, 'gw0').folder) == kept
