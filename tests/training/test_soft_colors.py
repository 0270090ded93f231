"""Colours drawn softly: they move vertices and camera, which hard drawings leave as they are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig, LossConfig
from hand_jax.config_text import apply_overrides
from hand_jax.models import hand_network
from hand_jax.models.hand_network import TEXTURE_REGRESSOR, create_network
from hand_jax.training.objective import create_objective
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandGaussians, RenderedHand
from tests.drawn_variables import drawn_first_state
from tests.toy_mano import make_toy_mano

SIDE = 24
FACES = jnp.asarray([[0, 1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 3]])
# A square plate in two layers, half as wide as the crop.
PLATE = 0.04 * jnp.asarray([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
CAMERA = jnp.asarray([1.0, 0, 0, 0, 1, 0, 0, 0, 0.5, 1 / 0.8])
SKIN = jnp.tile(jnp.asarray([[0.8, 0.6, 0.4]]), (4, 1))


def photo(columns=slice(6, 18)) -> np.ndarray:
  """A plate of skin's colour before a dark background."""
  image = np.full((SIDE, SIDE, 3), 30, np.uint8)
  image[6:18, columns] = np.round(255 * np.asarray(SKIN[0]))
  return image


@functools.partial(jax.jit, static_argnames=('kind', 'sigma', 'layers'))
def term(vertices, camera, colors, image, kind, sigma=0.2, layers=2):
  loss = LossConfig(kind='photometric', photometric=kind, photometric_sigma=sigma)
  hands = DiagonalGaussian(vertices[None], jnp.zeros((1, 4, 3)))
  estimate = HandEstimate(
    None,
    DiagonalGaussian(camera[None], jnp.zeros((1, 10))),
    None,
    HandGaussians(hands, hands, hands),
    colors[None],
  )
  labels = {
    'image': image[None],
    'hand_mask': jnp.zeros((1, SIDE, SIDE), bool),
    'has_mask': jnp.zeros(1, bool),
    'is_padding': jnp.zeros(1, bool),
  }
  batch = HandBatch(**{**dict.fromkeys(HandBatch._fields), **labels})
  compute = create_objective(ExperimentConfig(loss=loss)).compute_terms
  model = make_toy_mano()._replace(faces=FACES[: 2 * layers])
  return compute(None, estimate, batch, model, None)['photometric'][0]


slopes = jax.jit(jax.grad(term, argnums=(0, 1, 2)), static_argnames='kind')


def test_a_soft_drawing_pulls_vertices_and_camera_and_a_hard_one_neither():
  # The photo's plate lies two pixels to the left of the drawn one.
  image = photo(slice(4, 16))
  by_vertices, by_camera, by_colors = slopes(PLATE, CAMERA, SKIN, image, kind='soft')
  assert by_camera[6] > 1 and np.abs(by_camera[7]) < 0.1
  # The right edge moves to the left.
  assert (by_vertices[1:3, 0] > 0.1).all()
  assert np.abs(by_colors).max() > 1e-3
  for kind in ('squared', 'robust'):
    by_vertices, by_camera, by_colors = slopes(PLATE, CAMERA, SKIN, image, kind=kind)
    # The colour is the same everywhere, so that no place on the plate is better than another.
    np.testing.assert_allclose(by_vertices, 0, atol=1e-4)
    np.testing.assert_allclose(by_camera, 0, atol=1e-4)
    assert np.abs(by_colors).max() > 1e-3


def test_descent_moves_the_plate_onto_the_photo():
  image = photo(slice(4, 16))
  camera = CAMERA
  for _ in range(60):
    slope = slopes(PLATE, camera, SKIN, image, kind='soft')[1]
    camera = camera.at[6].add(-0.01 * slope[6])
  # Two pixels are a sixth of the crop's half.
  assert float(camera[6]) == pytest.approx(-1 / 6, abs=0.03)


def test_a_sharp_soft_drawing_costs_what_a_robust_hard_one_does():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
  colors = jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32)
  # Two layers at one depth would blend, where a hard drawing shows the first.
  hard = term(PLATE, CAMERA, colors, image, kind='robust', layers=1)
  sharp, blurred = (
    term(PLATE, CAMERA, colors, image, kind='soft', sigma=sigma, layers=1) for sigma in (1e-4, 2.0)
  )
  assert float(sharp) == pytest.approx(float(hard), rel=2e-2)
  assert abs(float(blurred - hard)) > 2 * abs(float(sharp - hard))


TOGETHER = ('model.texture.enabled=true', 'loss.photometric=soft', 'loss.photometric_weight=300')


def test_the_term_joins_an_objective_with_its_weight():
  small = get_config('toy_texture').model.texture
  config = apply_overrides(get_config('toy'), TOGETHER)
  objective = create_objective(config)
  assert objective.weights['photometric'] == 300
  assert objective.learns_everything and objective.weights['vertices_nll'] == 1
  alone = create_objective(get_config('toy_texture'))
  assert alone.learned_parts == (TEXTURE_REGRESSOR,)
  assert small.enabled
  with pytest.raises(ValueError, match=r'model\.texture\.enabled and loss\.kind'):
    apply_overrides(get_config('toy'), TOGETHER[2:])
  with pytest.raises(ValueError, match=r'texture branch alone, with one term'):
    apply_overrides(get_config('toy_texture'), TOGETHER[2:])
  with pytest.raises(ValueError, match=r'loss\.photometric_weight should not be negative'):
    apply_overrides(get_config('toy'), ['loss.photometric_weight=-1'])


@pytest.fixture(scope='module')
def config():
  texture = get_config('toy_texture').model.texture
  config = apply_overrides(
    get_config('toy'), ['model.image_size=32', 'model.attention.self_layers=0']
  )
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, texture=texture))
  return dataclasses.replace(
    config, loss=dataclasses.replace(config.loss, photometric='soft', photometric_weight=300.0)
  )


def draw_mean(vertices_image, faces, colors, photos, height, width, *settings):
  """Replaces the soft drawing, which the tests above have and which takes long to compile."""
  del vertices_image, faces, settings
  rgb = jnp.broadcast_to(colors.mean(1)[:, None, None], photos.shape)
  return RenderedHand(rgb, jnp.ones((len(photos), height, width)))


@pytest.mark.slow
def test_a_step_teaches_colours_camera_and_mesh_together(config, toy_model, batch, monkeypatch):
  monkeypatch.setattr(hand_network, 'soft_blend', draw_mean)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = drawn_first_state(config, network, optimizer, toy_model)
  after, metrics = jax.jit(make_train_step(config, network, optimizer))(state, batch, toy_model)
  assert np.isfinite(float(metrics['photometric'])) and float(metrics['photometric']) > 0
  for part in (TEXTURE_REGRESSOR, 'camera_model', 'vertex_regressor'):
    moved = jax.tree.map(
      lambda old, new: float(jnp.abs(new - old).max()), state.params[part], after.params[part]
    )
    assert max(jax.tree.leaves(moved)) > 0, part
