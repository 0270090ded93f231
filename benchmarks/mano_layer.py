"""Compares the MANO layer with the smplx package, in one run.

  python -m benchmarks.mano_layer

This needs torch and smplx (pip install -e '.[benchmark]'). Both pose the free hand, so that no
licensed file is needed. Its pose blend shapes are zero and are replaced by random ones, so that
neither side can skip that work.
"""

import pathlib
import pickle
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import smplx
import torch
from absl import app, flags

from benchmarks.interleave import compare
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.mano.model import mano_forward
from hand_jax.types import HandMesh, HandParameters, ManoModel

_BATCH = flags.DEFINE_integer('batch', 32, 'Hands in a batch.')
_REPEATS = flags.DEFINE_integer('repeats', 100, 'Timed calls of each competitor.')
_BAR = 0.5


def benchmark_model() -> ManoModel:
  """Loads the free hand and gives it random pose blend shapes."""
  model = load_mano_model()
  posedirs = np.random.default_rng(0).normal(size=model.posedirs.shape) * 1e-4
  return model._replace(posedirs=jnp.asarray(posedirs, jnp.float32))


def smplx_layer(model: ManoModel, batch: int) -> smplx.MANO:
  """Loads the same model into smplx, through a file in MANO's format."""
  arrays = {name: np.asarray(value) for name, value in model._asdict().items()}
  content = {
    'v_template': arrays['v_template'],
    'shapedirs': arrays['shapedirs'],
    'posedirs': arrays['posedirs'],
    'J_regressor': arrays['joint_regressor'],
    'weights': arrays['lbs_weights'],
    'f': arrays['faces'],
    'kintree_table': np.asarray([MANO_PARENTS, range(16)]),
    'hands_mean': arrays['hands_mean'],
    'hands_components': arrays['hands_components'],
  }
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'MANO_RIGHT.pkl'
    path.write_bytes(pickle.dumps(content, protocol=2))
    return smplx.MANO(
      str(path), is_rhand=True, use_pca=False, flat_hand_mean=True, batch_size=batch
    )


def main(argv: list[str]) -> None:
  """Measures both layers and prints their difference and the ratio."""
  del argv
  batch = _BATCH.value
  rng = np.random.default_rng(1)
  values = HandParameters(
    *(rng.normal(size=(batch, n)).astype(np.float32) * 0.4 for n in (3, 45, 10, 3))
  )
  model = benchmark_model()
  layer = smplx_layer(model, batch)

  def pose(model: ManoModel, parameters: HandParameters) -> HandMesh:
    return jax.vmap(mano_forward, (None, 0), HandMesh(0, 0, None))(model, parameters)

  def loss(parameters: HandParameters, model: ManoModel):
    mesh = pose(model, parameters)
    return jnp.sum(mesh.vertices**2) + jnp.sum(mesh.joints**2)

  ours = HandParameters(*(jnp.asarray(value) for value in values))
  forward = jax.jit(pose)
  gradient = jax.jit(jax.value_and_grad(loss))
  theirs = [torch.tensor(value, requires_grad=True) for value in values]

  def smplx_forward():
    orient, hand_pose, betas, transl = theirs
    return layer(global_orient=orient, hand_pose=hand_pose, betas=betas, transl=transl)

  def smplx_forward_only():
    with torch.no_grad():
      return smplx_forward().vertices

  def smplx_gradient():
    output = smplx_forward()
    return torch.autograd.grad((output.vertices**2).sum() + (output.joints**2).sum(), theirs)

  difference = np.abs(smplx_forward_only().numpy() - np.asarray(forward(model, ours).vertices))
  print(f'batch {batch}: largest difference of the vertices {1e3 * difference.max():.2g} mm')
  times = compare(
    {
      'smplx forward': smplx_forward_only,
      'hand_jax forward': lambda: jax.block_until_ready(forward(model, ours)),
      'smplx forward+backward': smplx_gradient,
      'hand_jax forward+backward': lambda: jax.block_until_ready(gradient(ours, model)),
    },
    repeats=_REPEATS.value,
  )
  ratio = times['hand_jax forward+backward'] / times['smplx forward+backward']
  verdict = 'met' if ratio <= _BAR else 'MISSED'
  print(f'forward+backward: {ratio:.2f} of smplx, bar {_BAR}: {verdict}')


if __name__ == '__main__':
  app.run(main)
