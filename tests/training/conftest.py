"""What the training tests share: the toy hand, one batch of it, and a run that sees that batch.

A file says by its fixture `config` what is trained. The hand is the toy hand, since these tests
train from drawn dots, not from the free hand's pictures.
"""

import jax
import pytest

from hand_jax.data.pipeline import training_batches
from hand_jax.models.hand_network import create_network
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from tests.drawn_hands import DrawnSource
from tests.drawn_variables import drawn_first_state


@pytest.fixture(scope='module')
def batch(config, toy_model):
  with training_batches(DrawnSource(toy_model, 4), config, len(toy_model.v_template)) as batches:
    return next(batches)._replace(example_id=None)


@pytest.fixture(scope='module')
def parts(config, toy_model):
  """Network, optimizer and first state."""
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  return network, optimizer, drawn_first_state(config, network, optimizer, toy_model)


@pytest.fixture(scope='module')
def run(config, toy_model, batch, parts):
  """Step, states and metrics of a run on one device that sees one batch over and over."""
  network, optimizer, state = parts
  step = jax.jit(make_train_step(config, network, optimizer))
  states, metrics = [state], []
  for _ in range(config.training.num_steps):
    state, values = step(state, batch, toy_model)
    states.append(state)
    metrics.append(jax.device_get(values))
  return step, states, metrics
