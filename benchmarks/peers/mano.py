"""The MANO layer of the smplx package, loaded with this project's free hand."""

import pathlib
import pickle
import tempfile

import jax.numpy as jnp
import numpy as np
import smplx

from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.types import ManoModel


def benchmark_model() -> ManoModel:
  """Loads the free hand and gives it random pose blend shapes.

  Its own are zero. Random ones keep either side from skipping that work.
  """
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
