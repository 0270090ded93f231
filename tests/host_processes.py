"""Starts processes that simulate the hosts of a run, and ends them with the test."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[1]


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def host_settings(devices: int) -> dict[str, str]:
  """Returns the environment of a process that computes on that many CPU devices as tests do."""
  return {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }


@contextlib.contextmanager
def host_processes(
  count: int, arguments: Callable[[int, int], Sequence[str]], devices: int = 1
) -> Iterator[list[subprocess.Popen]]:
  """Starts `count` Python processes with that many devices each.

  `arguments` maps the rank and the port to the arguments of a process.
  """
  port = free_port()
  processes = [
    subprocess.Popen(
      [sys.executable, *arguments(rank, port)],
      cwd=ROOT,
      env={**os.environ, **host_settings(devices)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(count)
  ]
  try:
    yield processes
  finally:
    for process in processes:
      process.kill()
      process.wait()
      for stream in (process.stdout, process.stderr):
        stream.close()
