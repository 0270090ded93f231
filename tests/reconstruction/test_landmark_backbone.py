"""A run with the landmark network as its backbone: trained, continued, and reconstructed from."""

import functools

import chex
import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.data.pipeline import training_batches
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  load_trained_network,
  reconstruct_in_box,
)
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.types import ImageFeatures
from tests.drawn_hands import DrawnSource

pytestmark = pytest.mark.slow

BOX = np.array([20.0, 31.0, 60.0, 47.0])
# Any side fits the network; a small one is quick.
SETTINGS = [
  *('model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands'),
  *('optimizer.backbone_learning_rate_scale=0', 'model.image_size=64', 'training.batch_size=2'),
  *('optimizer.warmup_steps=0', 'model.branches=prior', 'loss.kind=l2'),
]


@pytest.fixture(scope='module')
def run(model, tmp_path_factory):
  """Folder and states: two steps in one go, and two with a checkpoint between them."""
  config = apply_overrides(get_config('toy'), SETTINGS)
  folder = str(tmp_path_factory.mktemp('run'))
  claim_workdir(folder, config)
  claim_hand_model(folder, model)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, 2)
  fresh = create_train_state(config, network, optimizer, model)
  step = jax.jit(make_train_step(config, network, optimizer))
  with training_batches(DrawnSource(model, 4), config, len(model.v_template)) as loader:
    batches = [next(loader)._replace(example_id=None) for _ in range(2)]
  first, _ = step(fresh, batches[0], model)
  straight, _ = step(first, batches[1], model)
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(jax.device_get(first), 1)
  with Checkpoints(folder) as checkpoints:
    restored, position, _ = checkpoints.restore_latest(like=jax.device_get(fresh))
    resumed, _ = step(restored, batches[position], model)
    checkpoints.save(jax.device_get(resumed), 2)
  return folder, fresh, straight, resumed


def test_a_continued_run_is_the_uninterrupted_one(run):
  _, fresh, straight, resumed = run
  assert int(resumed.step) == 2
  chex.assert_trees_all_equal(resumed, straight)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), fresh.params, resumed.params)
  assert max(jax.tree.leaves(moved['prior_net'])) > 1e-5
  # Frozen, the backbone is the bundled network still.
  assert max(jax.tree.leaves(moved['backbone'])) == 0


def test_a_photo_is_reconstructed_by_the_bundled_network_and_the_trained_heads(run, photo):
  """The vector that the heads get is that of the landmark network, applied to the crop here."""
  folder, _, _, resumed = run
  trained = load_trained_network(folder)
  seen = []

  def estimate(crop, mask):
    seen.append(crop)
    return trained.estimate(crop, mask)

  hand = reconstruct_in_box(trained._replace(estimate=estimate), HandPhoto(photo, BOX))
  (crop,) = seen
  output = jax.jit(HandLandmarkNetwork().apply)(
    load_bundled_parameters('hand_landmark'), crop[None].astype(np.float32) / 255
  )
  features = ImageFeatures(output.global_feature, None)
  network, model = create_network(trained.config), trained.model
  apply = jax.jit(functools.partial(network.apply, train=False))
  variables = {'params': resumed.params, 'batch_stats': resumed.batch_stats}
  expected = apply(variables, np.zeros((1, 64, 64, 3), np.float32), model, features=features)
  vertices = np.asarray(expected.prior.vertices.mean[0])
  # The same mesh but for the turn from the hand's own axes to the photo's, which keeps products.
  ours, theirs = (points - points.mean(0) for points in (hand.vertices, vertices))
  np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)
