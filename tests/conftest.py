"""Settings of every test: two CPU devices, full precision, no silent rank promotion."""

import os
import pathlib

import jax

# The tests use the free hand, whatever the caller's shell names.
os.environ.pop('MANO_DIR', None)

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# Of each worker of pytest-xdist its own: JAX writes entries that others might read half-written.
CACHE = pathlib.Path(__file__).parent.parent / '.jax_cache'
CACHE /= os.environ.get('PYTEST_XDIST_WORKER', 'main')
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
