"""Measures the peak arithmetic and memory rates of this machine, and describes it in words."""

import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np


def measure_limits() -> dict[str, float]:
  """Measures the fastest float32 matrix product (GFLOP/s) and the fastest memory copy (GB/s).

  The product is the faster of NumPy's and JAX's. A copy reads and writes each byte.
  """
  return {'gemm_gflops': _fastest_product(), 'copy_gb_per_s': _fastest_copy()}


def _fastest_product(side: int = 2048, repeats: int = 4) -> float:
  rng = np.random.default_rng(0)
  a, b = (rng.standard_normal((side, side), np.float32) for _ in range(2))
  on_device = jnp.asarray(a), jnp.asarray(b)
  product = jax.jit(jnp.dot)
  calls = (lambda: a @ b, lambda: product(*on_device).block_until_ready())
  return max(2e-9 * side**3 / _fastest(call, repeats) for call in calls)


def _fastest_copy(megabytes: int = 256, repeats: int = 5) -> float:
  source = np.ones(megabytes << 18, np.float32)
  target = np.empty_like(source)
  return 2e-9 * source.nbytes / _fastest(lambda: np.copyto(target, source), repeats)


def _fastest(call, repeats: int) -> float:
  call()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def describe() -> str:
  """Names the processor and the number of its cores that this process may use."""
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
  wide = any('avx512f' in line for line in lines if line.startswith('flags'))
  vectors = ', AVX-512' if wide else ''
  return f'{len(os.sched_getaffinity(0))} cores of {names[0] if names else "a CPU"}{vectors}'


def other_load() -> float:
  """Returns the average number of running processes during the last minute."""
  return os.getloadavg()[0]
