"""Writes trained runs of `synthetic_features` with random numbers, as training leaves them."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.runs import packed_run
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.lineage import Origin, make_lineage
from hand_jax.runs.train_state import TrainState
from tests.saved_runs import save_run

STEP = 30


def drawn_variables(seed: int = 0) -> dict[str, Any]:
  """Draws variables of the network of `synthetic_features` that estimate roughly a hand."""
  network, model = create_network(get_config('synthetic_features')), load_mano_model()
  shapes = jax.eval_shape(lambda: initialize_network(network, jax.random.key(0), model))
  rng = np.random.default_rng(seed)

  def draw(path: Any, leaf: Any) -> np.ndarray:
    if path[-1].key == 'scale':
      return np.ones(leaf.shape, np.float32)
    fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
    return (0.3 * rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

  params = jax.tree_util.tree_map_with_path(draw, shapes['params'])
  backbone = jax.tree.map(np.asarray, load_bundled_parameters('hand_landmark')['params'])
  return {'params': {**params, 'backbone': backbone}, 'batch_stats': {}}


def save_features_run(workdir: pathlib.Path, variables: dict[str, Any], *settings: str) -> str:
  """Writes a run with a checkpoint, a lineage, its hand model and a log."""
  config = apply_overrides(
    get_config('synthetic_features'), [f'data.data_dir={workdir.parent}/prepared', *settings]
  )
  origin = Origin(str(workdir.parent / 'start'), 7, make_lineage(config))
  state = TrainState(
    step=np.array(STEP, np.int32),
    opt_state=({},),
    key=np.array([0, 7], np.uint32),
    **variables,
  )
  save_run(workdir, state, config, make_lineage(config, [origin]))
  claim_hand_model(workdir, load_mano_model())
  rows = [{'step': 10, 'examples_per_second': 16.0}, {'step': 20, 'validation_total': 1.0}]
  rows.append({'step': 30, 'examples_per_second': 32.0})
  (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(workdir)


def put_in_package(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
  """Replaces the trained run in the package by a folder."""
  monkeypatch.setattr(packed_run, 'PACKAGED_RUN', folder)
