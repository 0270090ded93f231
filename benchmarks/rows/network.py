"""Measures AMVUR's head, the whole network, its training step and its losses beside PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.contest import Contest, compile_call, relative_difference
from benchmarks.peers.attention import VertexRegressor as PeerRegressor
from benchmarks.peers.hand_network import Branch, Estimate
from benchmarks.peers.hand_network import HandNetwork as PeerNetwork
from benchmarks.peers.mano import benchmark_model
from benchmarks.peers.objective import Labels, supervised_loss
from benchmarks.peers.weights import copy_weights
from benchmarks.rows.backbones import Stepping, compiled_by, draw_statistics, inference
from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.losses import compute_gaussian_terms, total_loss
from hand_jax.mano.model import extended_joint_regressor, regress_joints
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.training.objective import term_weights
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.types import HandBatch, HandEstimate, ManoModel

CONFIG = 'synthetic_supervised'
CHANNELS = 2048


def head_forward(batch: int) -> Contest:
  """Compares AMVUR on pooled features, with cross-attention, four self-attentions and the heads."""
  ours, peer, arguments, tensors = _heads(batch)
  compiled, call = compile_call(ours.apply, *arguments)
  peer.eval()
  peers = {
    'PyTorch': inference(peer, *tensors),
    'torch.compile': inference(compiled_by(peer), *tensors),
  }
  return Contest(call, peers, relative_difference(call(), peers['PyTorch']()), compiled)


def head_train(batch: int) -> Contest:
  """Compares gradients of the head's parameters and features, for given gradients of its outputs.

  The results and the gradients of the features are compared.
  """
  ours, peer, (variables, *inputs), tensors = _heads(batch)
  outputs = jax.eval_shape(ours.apply, variables, *inputs)
  rng = np.random.default_rng(2)
  given = [rng.standard_normal(out.shape).astype(np.float32) / 100 for out in outputs]

  def loss(variables, feature, given):
    found = ours.apply(variables, *inputs[:2], feature)
    return sum(jnp.vdot(a, b) for a, b in zip(found, given, strict=True))

  compiled, call = compile_call(
    jax.value_and_grad(loss, (0, 1)), variables, inputs[2], [jnp.asarray(g) for g in given]
  )
  template, joints, feature = tensors
  wanted = [torch.from_numpy(g) for g in given]
  learned = [*peer.parameters(), feature.requires_grad_()]

  def step(module):
    def gradients():
      value = sum(
        (a * b).sum() for a, b in zip(module(template, joints, feature), wanted, strict=True)
      )
      return value.detach(), torch.autograd.grad(value, learned)

    return gradients

  peers = {'PyTorch': step(peer), 'torch.compile': step(compiled_by(peer))}
  (value, (_, by_feature)), (reference, gradients) = call(), peers['PyTorch']()
  difference = relative_difference([value, by_feature], [reference, gradients[-1]])
  return Contest(call, peers, difference, compiled)


def inference_row(batch: int) -> Contest:
  """Compares the whole network, from uint8 crops to Gaussians over vertices, joints and camera."""
  config, model, variables, images = _network(batch)
  network = create_network(config)
  arguments = (variables, jnp.asarray(images), model)
  compiled = estimate_images.lower(network, *arguments).compile()
  call = lambda: jax.block_until_ready(compiled(*arguments))  # noqa: E731
  peer = _peer(config, model, batch, variables).eval()
  photos = torch.from_numpy(images)
  peers = {
    'PyTorch': inference(peer, photos),
    'torch.compile': inference(compiled_by(peer), photos),
  }
  difference = relative_difference(_results(call()), _peer_results(peers['PyTorch']()))
  return Contest(call, peers, difference, compiled)


def train_step(batch: int) -> Contest:
  """Compares whole supervised training steps, from uint8 crops to the update of AdamW.

  The losses and the norms of the gradients are compared.
  """
  config, model, variables, images = _network(batch)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = create_train_state(config, network, optimizer, model)
  state = state.replace(params=variables['params'], batch_stats=variables['batch_stats'])
  data = _labelled(model, images)
  modules = [_peer(config, model, batch, variables) for _ in range(2)]
  step = make_train_step(config, network, optimizer)
  device = jax.device_put(data._replace(example_id=None))
  compiled = jax.jit(step, donate_argnums=0).lower(state, device, model).compile()
  call = Stepping(compiled, state, (device, model))
  run = functools.partial(_peer_step, config, data)
  peers = {'PyTorch': run(modules[0]), 'torch.compile': run(modules[1], compiled_by)}
  metrics = call()
  ours = [metrics['total'], metrics['gradient_norm']]
  return Contest(call, peers, relative_difference(ours, peers['PyTorch']()), compiled)


def losses(batch: int) -> Contest:
  """Compares the supervised losses, and their gradients by the network's estimates."""
  config, model, variables, images = _network(batch)
  estimate = estimate_images(create_network(config), variables, jnp.asarray(images), model)
  data = _labelled(model, images)._replace(example_id=None)
  weights = term_weights(config.loss)

  def loss(estimate: HandEstimate, data):
    terms = compute_gaussian_terms(estimate, data, config.loss, model.hands_mean)
    return total_loss(terms, weights).mean()

  compiled, call = compile_call(jax.value_and_grad(loss), estimate, jax.device_put(data))
  leaves, theirs = _as_peer(estimate)
  labels = _labels(data)

  def peer():
    value = supervised_loss(theirs, labels, config.loss.length_unit_m)
    return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True)

  value, gradient = call()
  reference = peer()
  ours = [value, gradient.posterior.vertices.mean]
  difference = relative_difference(ours, [reference[0], reference[1][0]])
  return Contest(call, {'PyTorch': peer}, difference, compiled)


def _heads(batch: int):
  """Returns both heads with the same weights, and the arguments of each."""
  config = get_config(CONFIG)
  model, settings = benchmark_model(), config.model
  unit = config.loss.length_unit_m
  ours = VertexRegressor(
    settings.attention, unit, settings.min_log_variance, settings.max_log_variance
  )
  joints = regress_joints(model, model.v_template)
  feature = np.random.default_rng(0).standard_normal((batch, CHANNELS), np.float32)
  inputs = (model.v_template - joints[:1], joints - joints[:1], jnp.asarray(feature))
  variables = jax.jit(ours.init)(jax.random.key(0), *inputs)
  peer = copy_weights(PeerRegressor(settings, CHANNELS, unit), variables)
  return ours, peer, (variables, *inputs), [torch.tensor(np.asarray(x)) for x in inputs]


def _network(batch: int):
  """Returns config, hand model, variables with unequal statistics, and uint8 crops."""
  config, model = get_config(CONFIG), benchmark_model()
  variables = initialize_network(create_network(config), jax.random.key(0), model)
  rng = np.random.default_rng(0)
  stats = draw_statistics(variables['batch_stats'], rng)
  side = config.model.image_size
  images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
  return config, model, {**variables, 'batch_stats': stats}, images


def _peer(config: ExperimentConfig, model: ManoModel, batch: int, variables) -> PeerNetwork:
  peer = PeerNetwork(config, model, batch).to(memory_format=torch.channels_last)
  return copy_weights(peer, variables)


def _labelled(model: ManoModel, images: np.ndarray) -> HandBatch:
  """Gives every crop random labels, all of them known."""
  batch, rng = len(images), np.random.default_rng(3)
  template = np.asarray(model.v_template)
  vertices = (template + rng.normal(scale=0.01, size=(batch, *template.shape))).astype(np.float32)
  joints = np.asarray(extended_joint_regressor(model)) @ vertices
  camera = rng.normal(scale=0.3, size=(batch, 10)).astype(np.float32)
  unused = dict.fromkeys(HandBatch._fields)
  known = {
    'image': images,
    'global_index': np.arange(batch, dtype=np.int32),
    'vertices_hand': vertices,
    'joints_hand': joints,
    'has_3d': np.ones(batch, bool),
    'joints_normalized': rng.uniform(-1, 1, (batch, 21, 2)).astype(np.float32),
    'joint_confidence': np.ones((batch, 21), np.float32),
    'camera': camera,
    'camera_mask': np.ones((batch, 10), bool),
    'is_padding': np.zeros(batch, bool),
  }
  return HandBatch(**{**unused, **known})


def _labels(data: HandBatch) -> Labels:
  fields = (data.vertices_hand, data.joints_hand, data.joints_normalized, data.camera)
  return Labels(*(torch.tensor(np.asarray(field)) for field in fields))


def _peer_step(config: ExperimentConfig, data: HandBatch, module, transform=lambda module: module):
  """Returns a call that makes one step of PyTorch, and returns loss and norm of the gradient."""
  module.train()
  applied, settings = transform(module), config.optimizer
  learned = [p for p in module.parameters() if p.requires_grad]
  groups = [
    {'params': [p for p in learned if p.ndim > 1], 'weight_decay': settings.weight_decay},
    {'params': [p for p in learned if p.ndim <= 1], 'weight_decay': 0.0},
  ]
  rate = settings.learning_rate / settings.warmup_steps
  optimizer = torch.optim.AdamW(groups, rate, fused=True)
  images, labels = torch.from_numpy(np.asarray(data.image)), _labels(data)

  def call():
    optimizer.zero_grad(set_to_none=True)
    value = supervised_loss(applied(images), labels, config.loss.length_unit_m)
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(learned, settings.gradient_clip_norm)
    optimizer.step()
    return value.detach(), norm

  return call


def _results(estimate: HandEstimate) -> list:
  branches = (estimate.posterior, estimate.prior)
  gaussians = [g for b in branches for g in (b.vertices, b.joints, b.joints_normalized)]
  return [x for g in (*gaussians, estimate.camera) for x in g]


def _peer_results(estimate: Estimate) -> list:
  pairs = (*estimate.posterior, *estimate.prior, estimate.camera)
  return [x for pair in pairs for x in pair]


def _as_peer(estimate: HandEstimate):
  """Copies an estimate into tensors that require a gradient. Returns them, and the estimate."""
  leaves = [torch.tensor(np.asarray(x), requires_grad=True) for x in _results(estimate)]
  pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
  pose, betas = (torch.tensor(np.asarray(x)) for x in estimate.parameters[1:3])
  return leaves, Estimate(Branch(*pairs[3:6]), Branch(*pairs[:3]), pairs[6], pose, betas)
