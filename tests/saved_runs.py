"""Writes runs for tests: states of a few random arrays, saved under a named config."""

import dataclasses
import pathlib

import jax
import numpy as np

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.lineage import claim_lineage
from hand_jax.runs.train_state import TrainState

# A network of few numbers: shapes by name.
TRUNK = {
  'params/backbone/stem/kernel': (3, 2),
  'params/backbone/stem_norm/scale': (2,),
  'batch_stats/backbone/stem_norm/mean': (2,),
  'params/feature_norm/scale': (2,),
  'params/camera_model/dense/bias': (4,),
  'params/camera_model/dense/kernel': (2, 4),
}
PRIOR = {'params/prior_net/dense/bias': (5,), 'params/prior_net/dense/kernel': (2, 5)}
AMVUR = {'params/vertex_regressor/query/kernel': (2, 2), 'params/vertex_regressor/tokens': (7, 2)}
SIGMA = {'params/prior_sigma/dense/bias': (1,)}
# `labels` '2d' and '3d' as settings spell them.
WEAK, FULL = '2d', '3d'


def array_names(*parts: dict[str, tuple[int, ...]]) -> set[str]:
  return {name for part in parts for name in part}


def drawn_state(shapes: dict[str, tuple[int, ...]], seed: int) -> TrainState:
  """Makes a state of the named arrays with random numbers."""
  rng = np.random.default_rng(seed)
  tree = {'params': {}, 'batch_stats': {}}
  for name, shape in shapes.items():
    node, (*path, last) = tree, name.split('/')
    for part in path:
      node = node.setdefault(part, {})
    node[last] = rng.normal(size=shape).astype(np.float32)
  return TrainState(
    step=np.array(seed, np.int32),
    opt_state=({'mu': jax.tree.map(lambda leaf: leaf + 1, tree['params'])}, ()),
    key=np.array([seed, 7], np.uint32),
    **tree,
  )


def get_array(state: TrainState, name: str) -> np.ndarray:
  node = {'params': state.params, 'batch_stats': state.batch_stats}
  for part in name.split('/'):
    node = node[part]
  return node


def named_config(name: str, labels: str, **training: object) -> ExperimentConfig:
  config = get_config('toy')
  return dataclasses.replace(
    config,
    name=name,
    data=dataclasses.replace(config.data, labels=labels),
    training=dataclasses.replace(config.training, **training),
  )


def save_run(
  workdir: pathlib.Path, state: TrainState, config: ExperimentConfig, lineage: dict | None = None
) -> str:
  """Writes a run's folder with a checkpoint. Without `lineage` it is like an early run."""
  claim_workdir(str(workdir), config)
  with Checkpoints(str(workdir)) as checkpoints:
    checkpoints.save(state, position=0)
  if lineage:
    claim_lineage(str(workdir), lineage)
  return str(workdir)
