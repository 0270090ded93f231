"""Algorithm 4: the photometric loss, and a step that changes the texture branch alone."""

import dataclasses
import json

import chex
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.configs.names import get_config
from hand_jax.config import LossConfig
from hand_jax.config_text import apply_overrides
from hand_jax.geometry.cameras import (
  camera_from_vector,
  camera_to_vector,
  project_points,
  vertices_in_crop,
)
from hand_jax.losses import ROBUST_COLOR, compute_photometric_terms, total_loss
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import create_network, render_estimate
from hand_jax.runs.checkpoints import load_network
from hand_jax.runs.train_state import state_variables
from hand_jax.setting_checks import validate_config
from hand_jax.training import parallel
from hand_jax.training.loop import train_and_evaluate
from hand_jax.training.objective import term_weights
from hand_jax.training.reports import texture_sheet
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_eval_step, make_train_step
from hand_jax.types import HandBatch, HandCamera, RenderedHand
from tests.drawn_hands import DrawnSource
from tests.toy_runs import fresh_state, save_toy_run

STEPS = 30
# As small as all parts allow, since most of the time goes into compiling the steps.
SMALL = ('model.image_size=32', 'model.attention.self_layers=0')


def rendered_and_batch(seed=0, size=6, batch=3):
  rng = np.random.default_rng(seed)
  silhouette = rng.uniform(size=(batch, size, size)) < 0.6
  hand_mask = rng.uniform(size=(batch, size, size)) < 0.7
  rendered = RenderedHand(
    jnp.asarray(rng.uniform(size=(batch, size, size, 3)), jnp.float32), jnp.asarray(silhouette)
  )
  labels = {
    'image': rng.integers(0, 256, (batch, size, size, 3)).astype(np.uint8),
    'hand_mask': hand_mask,
    'has_mask': np.array([True, False, True])[:batch],
    'is_padding': np.zeros(batch, bool),
  }
  return rendered, HandBatch(**{**dict.fromkeys(HandBatch._fields), **labels})


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['squared', 'robust'])
def test_the_photometric_loss_is_a_loop_over_the_mask(kind):
  rendered, batch = rendered_and_batch()
  terms = compute_photometric_terms(
    rendered, batch, LossConfig(kind='photometric', photometric=kind)
  )
  for example, value in enumerate(np.asarray(terms['photometric'])):
    total, area = 0.0, 0
    for row, column in np.ndindex(6, 6):
      covered = rendered.silhouette[example, row, column]
      shown = batch.hand_mask[example, row, column] or not batch.has_mask[example]
      if not (covered and shown):
        continue
      area += 1
      for channel in range(3):
        drawn = float(rendered.rgb[example, row, column, channel])
        difference = drawn - batch.image[example, row, column, channel] / 255
        if kind == 'squared':
          total += difference**2
        else:
          total += (difference**2 + ROBUST_COLOR**2) ** 0.5 - ROBUST_COLOR
    assert value == pytest.approx(total / area, rel=1e-5)


@pytest.mark.slow
def test_pixels_outside_the_mask_and_padding_do_not_count_even_as_nan():
  rendered, batch = rendered_and_batch()
  config = LossConfig(kind='photometric')
  mask = rendered.silhouette & jnp.asarray(batch.hand_mask | ~batch.has_mask[:, None, None])
  dirty = rendered._replace(rgb=jnp.where(mask[..., None], rendered.rgb, jnp.nan))

  def loss(rgb, batch):
    return compute_photometric_terms(dirty._replace(rgb=rgb), batch, config)['photometric'].sum()

  clean = compute_photometric_terms(rendered, batch, config)['photometric']
  value, gradient = jax.value_and_grad(loss)(dirty.rgb, batch)
  assert float(value) == pytest.approx(float(clean.sum()), rel=1e-6)
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(np.asarray(gradient)[~np.asarray(mask)], 0)
  padded = batch._replace(is_padding=np.array([False, True, True]))
  assert float(loss(dirty.rgb, padded)) == pytest.approx(float(clean[0]), rel=1e-6)


def test_a_hand_that_is_nowhere_seen_costs_nothing():
  rendered, batch = rendered_and_batch()
  config = LossConfig(kind='photometric', photometric='robust')
  nowhere = rendered._replace(silhouette=jnp.zeros_like(rendered.silhouette))
  terms = compute_photometric_terms(nowhere, batch, config)
  np.testing.assert_array_equal(terms['photometric'], 0)
  assert float(total_loss(terms, term_weights(config)).sum()) == 0


@pytest.mark.slow
def test_vertices_in_crop_are_the_projection_with_depth_in_the_same_pixels():
  rng = np.random.default_rng(0)
  camera = HandCamera(*(jnp.asarray(rng.normal(size=n), jnp.float32) for n in (6, 3, 1)))
  points = jnp.asarray(0.1 * rng.normal(size=(9, 3)), jnp.float32)
  pixels = vertices_in_crop(camera, points, 64)
  projected = (project_points(camera, points) + 1) * 32
  np.testing.assert_allclose(pixels[:, :2], projected, atol=1e-4)
  # One scale along all axes: distances in pixels are those in metres times a constant.
  pairs = np.linalg.norm(np.asarray(pixels[:-1] - pixels[1:]), axis=1)
  metres = np.linalg.norm(np.asarray(points[:-1] - points[1:]), axis=1)
  np.testing.assert_allclose(pairs / metres, pairs[0] / metres[0], rtol=1e-4)
  assert np.isfinite(np.asarray(camera_to_vector(camera))).all()


@pytest.fixture(scope='module')
def config():
  return apply_overrides(
    get_config('toy_texture'),
    [
      *('optimizer.learning_rate=3e-2', 'optimizer.warmup_steps=0'),
      *(f'training.num_steps={STEPS}', *SMALL),
    ],
  )


def bits(tree):
  """Every array as bytes: 0.0 and -0.0 differ here."""
  return {
    jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


@pytest.mark.slow
def test_nothing_but_the_texture_branch_changes_by_a_bit(run):
  _, states, _ = run
  before, after = bits(state_variables(states[0])), bits(state_variables(states[-1]))
  changed = {name for name in before if before[name] != after[name]}
  texture = {name for name in before if "['texture_regressor']" in name}
  assert changed
  assert changed <= texture
  # All of it learns; the key's bias alone cannot: softmax does not see it.
  assert {name for name in texture - changed if "['key']['bias']" not in name} == set()


@pytest.mark.slow
def test_the_colours_of_a_tiny_batch_are_learnt(run):
  _, _, metrics = run
  assert metrics[-1]['photometric'] < 0.5 * metrics[0]['photometric']
  assert metrics[0]['total'] == pytest.approx(metrics[0]['photometric'], rel=1e-5)


@pytest.mark.slow
def test_the_optimizer_holds_moments_of_the_texture_branch_alone(run):
  moments = bits(run[1][-1].opt_state)
  assert any('texture_regressor' in name for name in moments)
  assert not any('backbone' in name for name in moments)


@pytest.mark.slow
def test_two_devices_take_the_step_of_one(run, config, toy_model, batch):
  _, states, metrics = run
  network = create_network(config, axis_name=parallel.AXIS_NAME)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  step = parallel.map_train_step(make_train_step(config, network, optimizer))
  state, values = step(
    parallel.replicate(states[0]),
    parallel.shard_batch(batch),
    *parallel.replicate((toy_model, None)),
  )
  assert float(parallel.unreplicate(values)['total']) == pytest.approx(
    metrics[0]['total'], rel=1e-5
  )

  def moments(state):
    return optax.tree.get(state.opt_state, 'mu')  # the first step's: a tenth of the gradient

  chex.assert_trees_all_close(moments(parallel.unreplicate(state)), moments(states[1]), atol=1e-6)


@pytest.mark.slow
def test_hidden_pixels_of_the_mask_hide_vertices_from_the_network(
  run, config, toy_model, batch, parts
):
  """With an empty hand mask no vertex is seen: the photo cannot reach the colours."""
  network, _, _ = parts
  variables = jax.tree.map(lambda leaf: leaf, state_variables(run[1][-1]))
  embedding = variables['params']['texture_regressor']['embedding']
  # Normals, too, tell of the photo.
  embedding['kernel'] = embedding['kernel'].at[-3:].set(0)
  images = normalize_image(batch.image, config.model.backbone.name)

  @jax.jit
  def colors(images, hand_mask):
    return network.apply(
      variables, images, toy_model, train=False, hand_mask=hand_mask
    ).vertex_colors

  seen = np.ones(batch.hand_mask.shape, bool)
  blind = colors(images, ~seen)
  np.testing.assert_allclose(blind, jnp.broadcast_to(blind[:1], blind.shape), atol=1e-6)
  shown = np.asarray(colors(images, seen))
  assert np.abs(shown[0] - shown[1]).max() > 1e-3


@pytest.mark.slow
def test_the_evaluation_step_draws_what_the_loss_measures(run, config, toy_model, batch, parts):
  network, _, _ = parts
  state = run[1][-1]
  estimate, terms = jax.jit(make_eval_step(config, network))(state, batch, toy_model)
  rendered = jax.jit(render_estimate, static_argnums=2)(
    estimate, toy_model, config.model.image_size
  )
  expected = compute_photometric_terms(rendered, batch, config.loss)['photometric']
  np.testing.assert_allclose(terms['photometric'], expected, rtol=1e-4)
  assert estimate.vertex_colors.shape == (4, *toy_model.v_template.shape)
  camera = camera_from_vector(estimate.camera.mean)
  vertices = vertices_in_crop(camera, estimate.posterior.vertices.mean, config.model.image_size)
  points = np.asarray(vertices[..., :2])
  inside = ((points > 0) & (points < config.model.image_size)).all(-1)
  assert rendered.silhouette.sum() > 0 and inside.any()


def test_texture_and_loss_go_together(config):
  for broken in (
    dataclasses.replace(config, loss=LossConfig()),
    dataclasses.replace(config, model=get_config('toy').model),
  ):
    with pytest.raises(ValueError, match=r'model\.texture\.enabled and loss\.kind') as caught:
      validate_config(broken)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('model.texture.width=9', 'should be a multiple of model.texture.heads'),
    ('model.texture.hidden_fraction=1', 'between 0 and 0.95, got 1'),
    ('model.texture.self_layers=-1', 'should not be negative'),
    ('model.texture.heads=0', 'model.texture.heads should be positive'),
  ],
)
def test_wrong_texture_settings_are_named(text, message):
  with pytest.raises(ValueError, match=message):
    apply_overrides(get_config('toy_texture'), [text])


@pytest.mark.slow
def test_texture_on_an_untrained_network_is_refused_and_leaves_no_folder(toy_model, tmp_path):
  config = get_config('toy_texture')
  source = DrawnSource(toy_model, 4)
  with pytest.raises(ValueError, match=r'--init_from=WORKDIR; toy is the network') as caught:
    train_and_evaluate(config, str(tmp_path / 'run'), toy_model, source, source)
  assert 'backbone' in str(caught.value) and '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def textured_run(config, model, tmp_path_factory):
  """A geometry run, its statistics unlike a new network's, and a texture run of two steps on it."""
  folder, rng = tmp_path_factory.mktemp('runs'), np.random.default_rng(0)
  state = fresh_state('toy', *SMALL)
  statistics = jax.tree.map(
    lambda leaf: leaf + rng.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype), state.batch_stats
  )
  save_toy_run(folder / 'toy', 'toy', state.replace(batch_stats=statistics), *SMALL)
  source = DrawnSource(model, 6)
  short = ['training.num_steps=2', 'training.evaluate_every=2', 'training.checkpoint_every=2']
  start = dataclasses.replace(config.training, init_from=(str(folder / 'toy'),))
  textured = apply_overrides(dataclasses.replace(config, training=start), short)
  train_and_evaluate(textured, str(folder / 'texture'), model, source, source)
  return folder, textured


@pytest.mark.slow
def test_a_texture_run_keeps_its_start_bit_for_bit(textured_run):
  folder, textured = textured_run
  start, after = load_network(str(folder / 'toy')), load_network(str(folder / 'texture'))
  assert after.config == textured
  before, after = bits(start.variables), bits(after.variables)
  added = {name for name in after if name not in before}
  assert added and all("['texture_regressor']" in name for name in added)
  assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_a_texture_run_shows_its_colours_and_knows_its_origin(textured_run):
  folder, _ = textured_run
  sheets = list((folder / 'texture' / 'overlays').iterdir())
  assert [sheet.name for sheet in sheets] == ['validation_0000002.png']
  assert cv2.imread(str(sheets[0])).shape == (2 * 256, 4 * 256, 3)
  lines = (folder / 'texture' / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(lines[-1])
  assert last['photometric'] == pytest.approx(last['total'], rel=1e-5)
  assert last['validation_total'] > 0
  lineage = json.loads((folder / 'texture' / 'lineage.json').read_text())
  assert str(folder / 'toy') in json.dumps(lineage)


def test_the_sheet_draws_the_hand_over_its_crop():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
  silhouette = np.zeros((3, 8, 8), bool)
  silhouette[:, 4:] = True
  rgb = np.zeros((3, 8, 8, 3), np.float32)
  rgb[..., 0] = 1.0
  sheet = texture_sheet(images, RenderedHand(jnp.asarray(rgb), jnp.asarray(silhouette)), columns=2)
  assert sheet.shape == (2 * 512, 2 * 256, 3)
  assert not sheet[512:, 256:].any()  # three hands in four places
  assert (sheet[400:512, :256] == np.array([255, 0, 0])).all()
  above, below = sheet[:256, :256], sheet[256:368, :256]
  np.testing.assert_allclose(below[:100].mean(), above[:100].mean(), atol=3)
