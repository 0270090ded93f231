"""Settings of every test: two CPU devices, full precision, no silent rank promotion."""

import os
import pathlib

import jax

# The tests use the free hand, whatever the caller's shell names.
os.environ.pop('MANO_DIR', None)

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update(
  'jax_compilation_cache_dir', str(pathlib.Path(__file__).parent.parent / '.jax_cache')
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
