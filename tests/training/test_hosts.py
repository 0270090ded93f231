"""Hosts that see different things fail together and by name; two processes stand for them."""

import json
import pathlib

import jax
import numpy as np
import pytest

from hand_jax.training.hosts import (
  check_same_folder,
  check_same_step,
  failing_together,
  join_hosts,
  join_rows,
)
from tests.host_processes import host_processes

# Each process tries everything and prints what came of it, as it must go on after a refusal.
WORKER = """
import json, pathlib, sys
import jax, numpy as np
from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.training.hosts import (
  check_same_folder, check_same_settings, check_same_step, failing_together, join_rows
)

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f'127.0.0.1:{port}', 2, rank)

def fail_if(condition, error):
  with failing_together():
    if condition:
      raise error

def with_settings(*settings):
  return apply_overrides(get_config('toy'), settings)

def told(check, *arguments):
  try:
    check(*arguments)
    return ''
  except Exception as error:
    return f'{type(error).__name__}: {error}'

print(json.dumps({
  'one folder': told(check_same_folder, f'{folder}/shared'),
  'own folders': told(check_same_folder, f'{folder}/own{rank}'),
  'one step': told(check_same_step, folder, 7),
  'none has a step': told(check_same_step, folder, None),
  'own steps': told(check_same_step, folder, 7 if rank == 0 else None),
  'one config': told(check_same_settings, with_settings(f'data.data_dir=disk{rank}')),
  'own configs': told(
    check_same_settings,
    with_settings(f'optimizer.learning_rate=0.{1 + rank}', f'training.seed={rank}'),
  ),
  'no failure': told(fail_if, False, None),
  'one fails': told(fail_if, rank == 1, KeyError('é' * 3000)),
  'both fail': told(fail_if, True, ValueError(f'of {rank}')),
  'rows': join_rows({'a': np.arange(4).reshape(2, 2) + 10 * rank, 'b': np.array([rank == 1])}),
}, default=lambda array: array.tolist()))
"""


@pytest.fixture(scope='module')
def hosts(tmp_path_factory):
  folder = tmp_path_factory.mktemp('hosts')
  arguments = lambda rank, port: ['-c', WORKER, str(rank), str(port), str(folder)]  # noqa: E731
  with host_processes(2, arguments) as processes:
    outputs = [process.communicate(timeout=600) for process in processes]
  for process, (_, errors) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, errors[-3000:]
  # Above it, the transport between the processes tells of its connections.
  return folder, [json.loads(text.splitlines()[-1]) for text, _ in outputs]


def test_hosts_that_agree_go_on(hosts):
  _, found = hosts
  for told in found:
    agreed = ('one folder', 'one step', 'none has a step', 'one config', 'no failure')
    assert [told[name] for name in agreed] == [''] * 5


def test_hosts_with_other_settings_are_named_with_them(hosts):
  for told in hosts[1]:
    assert (
      'optimizer.learning_rate, training.seed of host 1 is not that of host 0'
      in told['own configs']
    )


def test_hosts_that_see_other_folders_or_steps_are_named_on_all(hosts):
  _, (first, second) = hosts
  assert 'own0 is not one folder for all hosts: host 1 does not see' in first['own folders']
  assert 'own1 is not one folder for all hosts: host 1 does not see' in second['own folders']
  for told in (first, second):
    assert 'host 0 step 7, host 1 no checkpoint. Name a folder' in told['own steps']


def test_a_failure_of_one_host_ends_all(hosts):
  _, (first, second) = hosts
  assert first['one fails'].startswith('ValueError: Host 1: ') and 'éééé' in first['one fails']
  assert second['one fails'].startswith('KeyError: ')
  assert [told['both fail'] for told in (first, second)] == ['ValueError: of 0', 'ValueError: of 1']


def test_rows_are_joined_in_the_order_of_the_hosts(hosts):
  for told in hosts[1]:
    assert told['rows'] == {'a': [[0, 1], [2, 3], [10, 11], [12, 13]], 'b': [False, True]}


def test_the_checks_leave_nothing_behind(hosts):
  assert not list(hosts[0].iterdir())


def test_one_process_agrees_with_itself(tmp_path):
  check_same_folder(str(tmp_path / 'run'))
  check_same_step(str(tmp_path / 'run'), 3)
  rows = {'a': np.arange(3)}
  assert join_rows(rows) is rows
  with pytest.raises(KeyError), failing_together():
    raise KeyError
  assert not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ((False, 'here:1234'), '--coordinator=here:1234 without --distributed'),
    ((False, None, 2, 0), '--num_processes=2 --process_id=0 without --distributed'),
    ((True, 'here', 2, 0), '--coordinator=here: expected HOST:PORT'),
    ((True, 'here:99999', 2, 0), '--coordinator=here:99999: expected HOST:PORT'),
    ((True, 'here:1234', 2, 2), '--process_id=2: expected a number from 0 on, below'),
    ((True,), '--coordinator=HOST:PORT, --num_processes and --process_id .*be defined'),
  ],
)
def test_wrong_flags_of_hosts_are_named(values, message, monkeypatch):
  def initialize(*_):
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(ValueError, match=message):
    join_hosts(*values)


def test_one_host_joins_nothing(monkeypatch):
  monkeypatch.setattr(jax.distributed, 'initialize', None)
  join_hosts(False)
