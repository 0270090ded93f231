"""The MANO layer beside the smplx package."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.contest import Contest, compile_call, relative_difference
from benchmarks.peers.mano import benchmark_model, smplx_layer
from hand_jax.mano.model import mano_forward
from hand_jax.types import HandMesh, HandParameters, ManoModel


def forward(batch: int) -> Contest:
  """Compares vertices and joints of a batch of hands."""
  model, ours, theirs, layer = _both(batch)
  compiled, call = compile_call(_pose, model, ours)

  @torch.inference_mode()
  def peer():
    return _smplx(layer, theirs).vertices

  difference = relative_difference([call().vertices], [peer()])
  return Contest(call, {'smplx': peer}, difference, compiled)


def forward_backward(batch: int) -> Contest:
  """Compares gradients of a loss on vertices and joints by all parameters."""
  model, ours, theirs, layer = _both(batch)

  def loss(parameters: HandParameters, model: ManoModel):
    mesh = _pose(model, parameters)
    return jnp.sum(mesh.vertices**2) + jnp.sum(mesh.joints[:, :16] ** 2)

  compiled, call = compile_call(jax.value_and_grad(loss), ours, model)

  def peer():
    output = _smplx(layer, theirs)
    value = (output.vertices**2).sum() + (output.joints**2).sum()
    return torch.autograd.grad(value, theirs)

  # smplx gives the 16 joints of the chain, and our standard joints hold tips of other vertices:
  # the results are compared on the vertices alone.
  by_vertices = jax.jit(jax.grad(lambda p: jnp.sum(_pose(model, p).vertices ** 2)))(ours)
  vertices = _smplx(layer, theirs).vertices
  reference = torch.autograd.grad((vertices**2).sum(), theirs)
  return Contest(call, {'smplx': peer}, relative_difference(by_vertices, reference), compiled)


def _both(batch: int):
  rng = np.random.default_rng(1)
  values = [rng.normal(size=(batch, n)).astype(np.float32) * 0.4 for n in (3, 45, 10, 3)]
  model = benchmark_model()
  theirs = [torch.tensor(value, requires_grad=True) for value in values]
  return model, HandParameters(*map(jnp.asarray, values)), theirs, smplx_layer(model, batch)


def _pose(model: ManoModel, parameters: HandParameters) -> HandMesh:
  return jax.vmap(mano_forward, (None, 0), HandMesh(0, 0, None))(model, parameters)


def _smplx(layer, values):
  orient, hand_pose, betas, transl = values
  return layer(global_orient=orient, hand_pose=hand_pose, betas=betas, transl=transl)
