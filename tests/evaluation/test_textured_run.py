"""A texture branch measured on a split: its file, its refusals, and a toy network."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.evaluation import textured_run
from hand_jax.evaluation.texture_scores import PIXEL_METRICS, SOURCES, VERTEX_METRICS
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.training.state import create_optimizer
from hand_jax.types import DiagonalGaussian, HandEstimate, HandGaussians
from tests.drawn_hands import DrawnSource
from tests.drawn_variables import drawn_first_state

pytestmark = pytest.mark.slow

EXAMPLES = 5  # in batches of four: the last one is padded
OFFSET = 0.125


class ColoredSource(DrawnSource):
  """Drawn hands with vertex labels, unless they are to be without; knows what it was asked for."""

  def __init__(self, colors=True, **asked):
    super().__init__(load_mano_model(), EXAMPLES, size=64)
    self.asked, self._colors = asked, colors

  def load(self, indices):
    examples = super().load(indices)
    if not self._colors:
      return examples
    count = len(load_mano_model().v_template)
    return [
      example._replace(
        vertex_colors=np.random.default_rng(index).uniform(0, 1 - OFFSET, (count, 3)),
        vertex_visible=np.random.default_rng(index).uniform(size=count) < 0.5,
      )
      for index, example in zip(indices, examples, strict=True)
    ]


def true_estimate(batch, hand_mask):
  """The labels as an estimate, its colours off by `OFFSET`, or twice that without masks."""

  def gaussian(mean):
    return DiagonalGaussian(jax.numpy.asarray(mean), jax.numpy.zeros(mean.shape))

  hands = HandGaussians(
    gaussian(batch.vertices_hand), gaussian(batch.joints_hand), gaussian(batch.joints_normalized)
  )
  colors = batch.vertex_colors + (OFFSET if hand_mask is not None else 2 * OFFSET)
  return HandEstimate(None, gaussian(batch.camera), None, hands, jax.numpy.asarray(colors))


def measure(workdir, commit='unknown', **settings):
  request = textured_run.TexturedRunRequest(workdir, **settings)
  return textured_run.evaluate_textured_run(request, commit)


def save_run(folder, name):
  """A run of a named experiment, saved before its first step."""
  config = get_config(name)
  model = load_mano_model()
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  claim_workdir(str(folder), config)
  claim_hand_model(folder, model)
  state = drawn_first_state(config, create_network(config), optimizer, model)
  with Checkpoints(str(folder)) as checkpoints:
    checkpoints.save(jax.tree.map(np.asarray, state), 0)
  return str(folder)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('run'), 'toy_texture')


@pytest.fixture
def sources(monkeypatch):
  """Data and network replaced; holds the sources the command has made."""
  made = []

  def create_source(data, split, image_size, count=0, vertex_labels=False):
    asked = {'data_dir': data.data_dir, 'split': split, 'count': count, 'labels': vertex_labels}
    made.append(ColoredSource(colors=split != 'plain', **asked))
    return made[-1]

  monkeypatch.setattr(textured_run, 'create_source', create_source)
  monkeypatch.setattr(textured_run, 'make_textured_estimate_fn', lambda *_: true_estimate)
  return made


def test_the_file_holds_what_others_rely_on(workdir, sources, tmp_path):
  output = tmp_path / 'new folder' / 'texture.json'
  results, path = measure(workdir, commit='abc1234', output=str(output))
  assert path == Path(workdir) / 'evaluation' / 'texture-synthetic_hands-test.json'
  assert json.loads(path.read_text()) == json.loads(output.read_text()) == results
  assert {file.name for file in (*path.parent.iterdir(), *output.parent.iterdir())} == {
    path.name,
    output.name,
  }
  for source in SOURCES:
    assert set(results[source]) == {*PIXEL_METRICS, *VERTEX_METRICS}
    assert all(np.isfinite(value) for value in results[source].values())
  assert results['learned']['l1_occluded_vertices'] == pytest.approx(OFFSET, rel=1e-5)
  assert results['learned']['l1_visible_vertices'] == pytest.approx(OFFSET, rel=1e-5)
  assert results['examples'] == results['examples_with_vertex_colors'] == EXAMPLES
  assert results['examples_without_pixels'] == results['examples_without_hand_mask'] == 0
  assert results['occluded_vertices'] + results['visible_vertices'] == EXAMPLES * 778
  assert (results['dataset'], results['split']) == ('synthetic_hands', 'test')
  assert (results['config'], results['step'], results['crop_size_px']) == ('toy_texture', 0, 64)
  assert results['rendered_with_seed'] == 0 and results['use_masks'] is True
  assert results['commit'] == 'abc1234'
  # All examples are rendered on the fly, with the labels of their vertices.
  assert sources[0].asked == {'data_dir': '', 'split': 'test', 'count': 500, 'labels': True}


def test_without_masks_the_results_have_a_file_of_their_own(workdir, sources):
  results, path = measure(workdir, use_masks=False, limit=3)
  assert path.name == 'texture-synthetic_hands-test-no_masks.json'
  assert results['use_masks'] is False
  assert results['learned']['l1_occluded_vertices'] == pytest.approx(2 * OFFSET, rel=1e-5)
  assert sources[0].asked['count'] == 3


def test_masks_are_estimated_in_upright_crops_alone(workdir):
  with pytest.raises(ValueError, match=r'toy_texture\) sees hands as they lie in the photo'):
    measure(workdir, estimate_masks=True)


def test_data_without_vertex_colors(workdir, sources):
  """Prepared ones may have none: unknown in the file, and the command says what to do."""
  results, path = measure(workdir, split='plain', data_dir='there')
  assert json.loads(path.read_text())['learned']['l1_occluded_vertices'] is None
  assert results['rendered_with_seed'] is None
  assert sources[0].asked['data_dir'] == 'there' and sources[0].asked['count'] == 0
  assert '--data_dir= ' in textured_run.advice(results)
  assert not textured_run.advice(results | {'examples_with_vertex_colors': 1})
  assert not textured_run.advice(results | {'dataset': 'ho3d'})
  request = textured_run.TexturedRunRequest(workdir, split='plain', data_dir='there')
  head, table, advice, end = textured_run.report_textured_run(request, 'abc1234')
  assert head == f'{workdir} on synthetic_hands, split plain:' and 'mean color' in table
  assert advice == textured_run.advice(results) and end == f'Written to {path}.'


def test_a_run_without_a_texture_is_refused(workdir, sources, monkeypatch):
  saved = textured_run.load_network(workdir)
  model = dataclasses.replace(saved.config.model, texture=get_config('toy').model.texture)
  config = dataclasses.replace(saved.config, model=model)
  monkeypatch.setattr(textured_run, 'load_network', lambda _: saved._replace(config=config))
  with pytest.raises(ValueError, match='has no texture branch: train one') as error:
    measure(workdir)
  assert workdir in str(error.value) and '\n' not in str(error.value)
  assert not sources


@pytest.mark.parametrize(
  'change, message',
  [
    ({'workdir': 'nowhere'}, 'nowhere holds no training run'),
    ({'dataset': 'ho3d'}, '--dataset=ho3d needs --data_dir'),
    ({'output': '.'}, r'\. is a folder'),
    ({'mano_dir': 'nowhere'}, 'nowhere'),
  ],
)
def test_what_cannot_be_measured_is_named(workdir, sources, change, message):
  with pytest.raises((ValueError, OSError), match=message):
    measure(**({'workdir': workdir} | change))


def test_a_toy_network_on_rendered_hands(workdir):
  """Nothing replaced: its two hands are rendered with the labels of their vertices."""
  results, _ = measure(workdir, limit=2)
  assert results['examples'] == results['examples_with_vertex_colors'] == 2
  for source in SOURCES:
    assert all(np.isfinite(value) for value in results[source].values())
  # An untrained branch: what it says is a colour, and not the photo's.
  assert 0 < results['learned']['l1_occluded_vertices'] < 1
