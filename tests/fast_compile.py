"""Settings by which XLA compiles soon instead of well, for programs that run only a few times."""

import functools

import jax

OPTIONS: dict[str, int | bool] = {'xla_backend_optimization_level': 0}
# The new way to emit fused loops takes 40 % of the time that is left. JAX 0.12 has no other way.
if jax.__version_info__[:2] == (0, 10):
  OPTIONS['xla_cpu_use_fusion_emitters'] = False

# The same for the environment of another process.
XLA_FLAGS = ' '.join(f'--{name}={str(value).lower()}' for name, value in OPTIONS.items())

light_jit = functools.partial(jax.jit, compiler_options=OPTIONS)
