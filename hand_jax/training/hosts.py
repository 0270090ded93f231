"""Lets the hosts of a run agree, so that an error on one host ends all hosts with its name.

Hosts wait for each other in every collective. A host that fails alone would leave the others
waiting, and hosts that continue from different steps would train different runs.
"""

import contextlib
import re
import secrets
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import PATH_SETTINGS
from hand_jax.files.buckets import open_path
from hand_jax.files.paths import is_address

_MESSAGE_BYTES = 2048


def join_hosts(
  is_distributed: bool,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other hosts of a run, as the flags of the same names say.

  Args:
    is_distributed: whether there are other hosts.
    coordinator: host:port of the first process. JAX detects what is None on clusters that it knows.
    num_processes: the number of hosts.
    process_id: the number of this host, from 0.

  Raises:
    ValueError: a value is wrong, or missing where JAX does not detect it. The message names flags.
  """
  if not is_distributed:
    values = {'coordinator': coordinator, 'num_processes': num_processes, 'process_id': process_id}
    given = [f'--{name}={value}' for name, value in values.items() if value is not None]
    if given:
      raise ValueError(f'{" ".join(given)} without --distributed: give it too, to join the hosts.')
    return
  port = re.fullmatch(r'.+:(\d{1,5})', coordinator) if coordinator is not None else None
  if coordinator is not None and (port is None or not 0 < int(port[1]) < 2**16):
    raise ValueError(f'--coordinator={coordinator}: expected HOST:PORT of process 0.')
  if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
    raise ValueError(
      f'--process_id={process_id}: expected a number from 0 on, below --num_processes='
      f'{num_processes}.'
    )
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except ValueError as error:
    raise ValueError(
      '--distributed: JAX does not detect the hosts here. Give all of --coordinator=HOST:PORT, '
      f'--num_processes and --process_id on each host ({error})'
    ) from None


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
  """Makes a block fail on all hosts if it fails on one. All hosts must run it.

  A host raises its own error if it has one.

  Raises:
    ValueError: the block failed on another host. The message names that host and its error.
  """
  failure = None
  try:
    yield
  except Exception as error:  # Errors of any kind count, because the others wait for this host.
    failure = error
  if jax.process_count() > 1:
    texts = _gather_texts('' if failure is None else str(failure) or type(failure).__name__)
    if failure is None:
      told = [f'Host {host}: {text}' for host, text in enumerate(texts) if text]
      failure = ValueError(' '.join(told)) if told else None
  if failure is not None:
    raise failure


def check_same_folder(workdir: str) -> None:
  """Checks that all hosts see one folder. The first host leaves a file there for a moment.

  A folder that does not exist is made for that moment too.

  Raises:
    ValueError: a host sees another folder, or none. All hosts raise it, and it names these hosts.
  """
  if jax.process_count() == 1:
    return
  is_main, is_new = jax.process_index() == 0, not open_path(workdir).exists()
  token = multihost_utils.broadcast_one_to_all(np.frombuffer(secrets.token_bytes(8), np.uint8))
  path = open_path(workdir) / f'.hosts-{np.asarray(token, np.uint8).tobytes().hex()}'
  with failing_together():
    if is_main:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'')
  others = np.flatnonzero(~np.ravel(multihost_utils.process_allgather(np.bool_(path.exists()))))
  if is_main:
    path.unlink(missing_ok=True)
    if is_new and not is_address(workdir):
      path.parent.rmdir()
  if len(others):
    raise ValueError(
      f'--workdir={workdir} is not one folder for all hosts: {_name_hosts(others)} '
      f'{"does" if len(others) == 1 else "do"} not see the files of host 0 there. Name a folder '
      'that they share.'
    )


def check_same_step(workdir: str, step: int | None) -> None:
  """Checks that all hosts would continue a run from the same step.

  Args:
    workdir: the run's folder.
    step: the step of the newest checkpoint that this host sees, or None.

  Raises:
    ValueError: hosts see different steps. All hosts raise it, and it names the step of each host.
  """
  if jax.process_count() == 1:
    return
  own = np.int32(-1 if step is None else step)
  steps = np.ravel(multihost_utils.process_allgather(own))
  if len(set(steps.tolist())) > 1:
    seen = ', '.join(
      f'host {host} {"no checkpoint" if found < 0 else f"step {found}"}'
      for host, found in enumerate(steps)
    )
    raise ValueError(
      f'The hosts see different checkpoints in {workdir}: {seen}. Name a folder that they share.'
    )


def check_same_settings(config: ExperimentConfig) -> None:
  """Checks that all hosts were given the same settings. Paths may differ, as the hosts' disks may.

  Raises:
    ValueError: they were not. All hosts raise it, and it names the hosts and the settings.
  """
  if jax.process_count() == 1:
    return
  settings = {name: v for name, v in flatten_config(config).items() if name not in PATH_SETTINGS}
  own = np.array([zlib.crc32(repr(value).encode()) for value in settings.values()], np.uint32)
  rows = np.asarray(multihost_utils.process_allgather(own)).reshape(-1, len(own))
  differs = rows != rows[0]
  if differs.any():
    names = [name for name, odd in zip(settings, differs.any(axis=0), strict=True) if odd]
    others = _name_hosts(np.flatnonzero(differs.any(axis=1)))
    raise ValueError(
      f'The hosts have different settings: {", ".join(names)} of {others} is not that of host 0. '
      'Give all hosts the same command.'
    )


def join_rows(tree: Any) -> Any:
  """Joins the rows of all hosts into numpy arrays of the whole batch, in the order of the hosts."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.process_allgather(tree, tiled=True)


def _gather_texts(text: str) -> list[str]:
  """Returns the texts of all hosts, on each of them. Long ones are cut."""
  data = text.encode()[:_MESSAGE_BYTES]
  row = np.zeros(_MESSAGE_BYTES, np.uint8)
  row[: len(data)] = np.frombuffer(data, np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(row)).reshape(-1, _MESSAGE_BYTES)
  return [bytes(row).rstrip(b'\0').decode(errors='ignore') for row in rows]


def _name_hosts(hosts: np.ndarray) -> str:
  return ('host ' if len(hosts) == 1 else 'hosts ') + ', '.join(map(str, hosts))
