"""Draws variables of networks by NumPy, because compiling a network's own draws takes seconds.

The spreads are those of the usual initialisation, so networks estimate what fresh ones do.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from hand_jax.config import ExperimentConfig
from hand_jax.models.hand_network import HandNetwork, initialize_network
from hand_jax.runs.train_state import TrainState
from hand_jax.training.state import create_train_state
from hand_jax.types import ManoModel

# Output layers start with a tenth of the usual deviation (SMALL_INIT of the prior-net).
OUTPUTS = {'output', 'mean', 'log_variance', 'rgb'}
PROJECTIONS = {'query', 'key', 'value'}
CONSTANTS = {'scale': 1.0, 'var': 1.0, 'bias': 0.0, 'mean': 0.0, 'slope': 0.25}


def drawn_like(shapes: Any, seed: int = 0) -> Any:
  """Fills the shapes of a network's variables. Arrays may stand for their shapes."""
  rng = np.random.default_rng(seed)

  def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
    names = [entry.key for entry in path]
    if names[-1] in CONSTANTS:
      return np.full(leaf.shape, CONSTANTS[names[-1]], leaf.dtype)
    # Projections have the shape (inputs, heads, channels), and what joins heads has three axes too.
    inputs = leaf.shape[:1] if names[-2] in PROJECTIONS else leaf.shape[:-1]
    gain = 0.1 if names[-2] in OUTPUTS and leaf.ndim == 2 else 1.0
    draws = rng.standard_normal(leaf.shape, np.float32)
    return (gain / np.sqrt(np.prod(inputs)) * draws).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def drawn_by(init: Callable[..., Any], *inputs: Any, seed: int = 0) -> Any:
  """Draws what `module.init(key, *inputs)` returns, without running it."""
  return drawn_like(jax.eval_shape(lambda: init(jax.random.key(0), *inputs)), seed)


def drawn_network(network: HandNetwork, model: ManoModel, seed: int = 0) -> dict[str, Any]:
  """Draws a hand network's variables with those of its backbone."""
  shapes = jax.eval_shape(lambda: initialize_network(network, jax.random.key(0), model))
  return drawn_like(shapes, seed)


def drawn_first_state(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
  model: ManoModel,
) -> TrainState:
  """Draws the state before the first step, as arrays of one device."""
  shapes = jax.eval_shape(lambda: create_train_state(config, network, optimizer, model))
  # Moments and counts start at zero.
  state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  params, statistics = (drawn_like(part) for part in (shapes.params, shapes.batch_stats))
  key = np.array([0, config.training.seed], np.uint32)
  return jax.device_put(state.replace(params=params, batch_stats=statistics, key=key))
