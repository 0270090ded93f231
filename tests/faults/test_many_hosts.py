"""Two and four processes, killed and restarted, do what one with all their devices does."""

import pathlib

import chex
import pytest

from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.runs.sources import latest_step
from tests.host_processes import host_processes
from tests.training.test_multihost import command, read_rows

pytestmark = pytest.mark.faults

# Ten examples are two batches of four and a half, and five to validate on are one and a fourth.
SETTINGS = [
  *('training.num_steps=8', 'training.checkpoint_every=2', 'training.log_every=2'),
  *('training.evaluate_every=4', 'training.validation_examples=5', 'data.train_examples=10'),
]


def train(folder: pathlib.Path, processes: int, devices: int, kill_after: int = 0) -> None:
  """Runs the processes to their end, or kills all when the first has told of a step's row."""
  arguments = command(folder, processes, SETTINGS)
  with host_processes(processes, arguments, devices) as hosts:
    if kill_after:
      for line in hosts[0].stdout:
        if line.startswith(f'step {kill_after}/'):
          return
    outputs = [host.communicate(timeout=1800) for host in hosts]
    told = '\n'.join(f'Host {rank}: {text[-4000:]}' for rank, (_, text) in enumerate(outputs))
    assert [host.returncode for host in hosts] == [0] * processes, told


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  folder = tmp_path_factory.mktemp('one')
  train(folder, 1, 4)
  return folder


@pytest.mark.parametrize(('processes', 'devices'), [(4, 1), (2, 2)])
def test_many_processes_do_what_one_does(processes, devices, one, tmp_path):
  train(tmp_path, processes, devices, kill_after=4)
  assert latest_step(str(tmp_path)) in (None, 2, 4)
  train(tmp_path, processes, devices)
  rows, expected = read_rows(tmp_path), read_rows(one)
  assert [row['step'] for row in rows] == [2, 4, 6, 8]
  for ours, theirs in zip(rows, expected, strict=True):
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
  variables, others = (load_for_inference(str(place))[1] for place in (tmp_path, one))
  chex.assert_trees_all_close(variables, others, rtol=0, atol=1e-6)


@pytest.mark.parametrize('is_new', [True, False])
def test_workdirs_that_hosts_do_not_share_are_refused_by_name(is_new, one, tmp_path):
  """Also where a former run of one process left its checkpoints in the first alone."""
  folders = [tmp_path / 'new' if is_new else one, tmp_path / 'other']

  def arguments(rank: int, port: int) -> list[str]:
    return list(command(folders[rank], 2, SETTINGS)(rank, port))

  with host_processes(2, arguments, 2) as hosts:
    outputs = [host.communicate(timeout=1800) for host in hosts]
    assert [host.returncode for host in hosts] == [2, 2], outputs
  for _, errors in outputs:
    assert 'is not one folder for all hosts: host 1 does not see' in errors
  assert not folders[1].exists()
