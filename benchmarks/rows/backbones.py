"""Measures backbones beside PyTorch (channels last, eager and compiled) with the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax.traverse_util import flatten_dict

from benchmarks.contest import Contest, compile_call, kernel_difference, relative_difference
from benchmarks.peers.backbones import BACKBONES
from benchmarks.peers.weights import copy_weights
from hand_jax.config import BackboneConfig
from hand_jax.models.backbone import create_backbone

SIDE = 224
_LAST_KERNEL = {
  'resnet50': 'stage4_block2/expand/kernel',
  'efficientnet_b0': 'head/kernel',
  'efficientnet_lite0': 'head/kernel',
}


def forward(name: str, batch: int) -> Contest:
  """Compares forward passes with running statistics."""
  module, variables, images = _ours(name, batch)
  x = jnp.asarray(images)
  compiled, ours = compile_call(
    lambda variables, x: module.apply(variables, x, False).global_feature, variables, x
  )
  peer = copy_weights(BACKBONES[name](), variables).eval().to(memory_format=torch.channels_last)
  photos = channels_last(images)
  peers = {
    'PyTorch': inference(peer, photos),
    'torch.compile': inference(compiled_by(peer), photos),
  }
  return Contest(ours, peers, relative_difference([ours()], [peers['PyTorch']()]), compiled)


def train(name: str, batch: int) -> Contest:
  """Compares steps of AdamW on a loss that is linear in the features.

  The losses are compared, and the gradient of the last kernel with that of PyTorch in float64 (see
  `kernel_difference`). Normalisations let rounding errors grow: in float32 PyTorch's own gradient
  of this kernel is off by 4e-4 to 1e-3 in ResNet-50, and those of the first kernels by more.
  """
  module, variables, images = _ours(name, batch)
  x, outputs = jnp.asarray(images), 1280 if name.startswith('efficientnet') else 2048
  target = np.random.default_rng(1).standard_normal((batch, outputs), np.float32)
  optimizer = optax.adamw(1e-5, weight_decay=1e-4)

  def step(state, x, target):
    params, stats, opt_state = state

    def loss(params):
      found, updates = module.apply(
        {'params': params, 'batch_stats': stats}, x, True, mutable=['batch_stats']
      )
      return (found.global_feature * target).mean(), updates['batch_stats']

    (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    state = (optax.apply_updates(params, updates), stats, opt_state)
    kernel = flatten_dict(gradients, sep='/')[_LAST_KERNEL[name]]
    return state, (value, kernel)

  params = variables['params']
  state = (params, variables['batch_stats'], optimizer.init(params))
  # The steps donate the memory of the state, so the peers' weights are copied first.
  modules = [copy_weights(BACKBONES[name](), variables) for _ in range(3)]
  compiled = jax.jit(step, donate_argnums=0).lower(state, x, jnp.asarray(target)).compile()
  ours = Stepping(compiled, state, (x, jnp.asarray(target)))
  photos, wanted = channels_last(images), torch.from_numpy(target)
  loss = lambda features: (features * wanted).mean()  # noqa: E731
  peers = {
    'PyTorch': training(modules[0], photos, loss),
    'torch.compile': training(modules[1], photos, loss, compiled_by),
  }
  exact_kernel = _last_gradient(name, modules[2], photos, loss)
  value, kernel = ours()
  differences = (
    relative_difference([value], [peers['PyTorch']()]),
    kernel_difference(kernel, exact_kernel),
  )
  return Contest(ours, peers, float(np.max(differences)), compiled)


def _last_gradient(name: str, module: torch.nn.Module, photos, loss) -> torch.Tensor:
  """Returns the gradient of the last kernel in float64, with the axes of our kernels."""
  module = module.train().double().requires_grad_(False)
  last = _LAST_KERNEL[name].removesuffix('/kernel').replace('/', '.')
  kernel = module.get_submodule(last).conv.weight.requires_grad_()
  (gradient,) = torch.autograd.grad(loss(module(photos.double())), kernel)
  return gradient.permute(2, 3, 1, 0)


class Stepping:
  """Runs a compiled training step again and again on its own result, as training does."""

  def __init__(self, compiled: Any, state: Any, inputs: tuple):
    self.compiled, self.state, self.inputs = compiled, state, inputs

  def __call__(self):
    self.state, results = self.compiled(self.state, *self.inputs)
    return jax.block_until_ready((self.state, results))[1]


def _ours(name: str, batch: int):
  """Returns the module, variables with unequal statistics, and images."""
  rng = np.random.default_rng(0)
  images = rng.standard_normal((batch, SIDE, SIDE, 3), np.float32)
  module = create_backbone(BackboneConfig(name))
  # The function runs once, so compiling it with little effort saves time.
  draw_soon = jax.jit(
    module.init, static_argnums=2, compiler_options={'xla_backend_optimization_level': 0}
  )
  variables = draw_soon(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), False)
  return (
    module,
    {**variables, 'batch_stats': draw_statistics(variables['batch_stats'], rng)},
    images,
  )


def draw_statistics(statistics: Any, rng: np.random.Generator) -> Any:
  """Draws running statistics that differ between channels.

  Means are as often negative as positive. With positive ones alone the features of a network with
  ReLU would become zero.
  """

  def draw(path: tuple, leaf: jax.Array) -> jax.Array:
    middle = {'mean': 0.0, 'var': 1.0}[path[-1].key]
    return jnp.asarray(middle + rng.uniform(-0.5, 0.5, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, statistics)


def channels_last(images: np.ndarray) -> torch.Tensor:
  """Views images (batch, height, width, channels) as PyTorch's channels-last form."""
  return torch.from_numpy(images).permute(0, 3, 1, 2)


def compiled_by(module: torch.nn.Module):
  """Compiles a module by torch.compile, which happens at its first call."""
  return torch.compile(module, dynamic=False)


def inference(module, *inputs):
  """Returns a call that applies a module without gradients."""

  @torch.inference_mode()
  def call():
    return module(*inputs)

  return call


def training(module, inputs, loss, transform=lambda module: module):
  """Returns a call that makes a step of PyTorch's fused AdamW and returns the loss.

  Args:
    module: the module to train.
    inputs: the inputs of the module.
    loss: maps the module's outputs to a number.
    transform: applied to the module before the training, such as torch.compile.
  """
  module = module.train().to(memory_format=torch.channels_last)
  applied = transform(module)
  parameters = [p for p in module.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(parameters, 1e-5, weight_decay=1e-4, fused=True)

  def call():
    optimizer.zero_grad(set_to_none=True)
    value = loss(applied(inputs))
    value.backward()
    optimizer.step()
    return value.detach()

  return call
