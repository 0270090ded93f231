"""`release` in place of a run's folder: the trained run in the package, wherever a run is read."""

import dataclasses
import pathlib
import shutil

import chex
import numpy as np
import pytest

from hand_jax.config_text import config_to_json
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.runs.checkpoints import check_workdir, claim_workdir, load_network, read_config
from hand_jax.runs.hand_models import claim_hand_model, load_run_model, load_training_model
from hand_jax.runs.lineage import Origin, claim_lineage, make_lineage, read_lineage
from hand_jax.runs.packed_run import write_packed_variables
from hand_jax.runs.sources import find_sources, latest_step, read_sources
from hand_jax.training.camera_prior import claim_camera_prior, load_camera_prior
from hand_jax.training.warm_start import describe_warm_start, warm_start
from tests.packed_runs import put_in_package
from tests.saved_runs import AMVUR, PRIOR, WEAK, drawn_state, named_config, save_run
from tests.toy_mano import make_toy_mano

HEADS = {'params/feature_norm/scale': (2,), 'params/camera_model/dense/kernel': (2, 4)}


@pytest.fixture(scope='module')
def backbone():
  return load_bundled_parameters('hand_landmark')['params']


def with_backbone(state, backbone):
  return state.replace(params={**state.params, 'backbone': backbone})


def write_packed(folder, state):
  config = named_config('features', WEAK)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  write_packed_variables(folder, int(state.step), variables, np.float16)
  (folder / 'config.json').write_text(config_to_json(config))
  claim_lineage(str(folder), make_lineage(config))
  claim_hand_model(folder, load_mano_model())


@pytest.fixture
def packed(backbone, tmp_path, monkeypatch):
  """A packed run of few numbers in the package, and its state."""
  state = with_backbone(drawn_state(HEADS | PRIOR, 30), backbone)
  write_packed(tmp_path / 'package' / 'trained_run', state)
  put_in_package(monkeypatch, tmp_path / 'package' / 'trained_run')
  (tmp_path / 'home').mkdir()
  monkeypatch.chdir(tmp_path / 'home')
  return tmp_path / 'package' / 'trained_run', state


def test_release_is_the_run_in_the_package_and_a_path_is_a_folder(packed, backbone):
  folder, state = packed
  by_name, by_path = load_network('release'), load_network(str(folder))
  assert by_name.config == by_path.config == read_config('release')
  assert by_name.step == by_path.step == latest_step('release') == 30
  chex.assert_trees_all_equal(by_name.variables, by_path.variables)
  chex.assert_trees_all_equal(by_name.variables['params']['backbone'], backbone)
  kernel = state.params['prior_net']['dense']['kernel']
  found = by_name.variables['params']['prior_net']['dense']['kernel']
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, kernel.astype(np.float16).astype(np.float32))
  assert read_lineage('release')['config'] == 'features'
  chex.assert_trees_all_equal(load_run_model('release'), load_mano_model())
  for path in ('./release', str(pathlib.Path('release').resolve())):
    with pytest.raises(FileNotFoundError, match='holds no training run'):
      load_network(path)
  save_run(pathlib.Path('release').resolve(), drawn_state(HEADS, 4), named_config('mine', WEAK))
  assert load_network('./release').step == 4 and load_network('release').step == 30


def test_nothing_is_trained_in_its_place(packed):
  with pytest.raises(ValueError, match=r'release is the trained run in the package.*\./release'):
    check_workdir('release', named_config('new', WEAK))
  folder = str(packed[0])
  with pytest.raises(ValueError, match=r'packed run, which cannot be continued: .*--init_from='):
    claim_workdir(folder, read_config(folder))
  claim_workdir('./release', named_config('new', WEAK))
  assert pathlib.Path('release/config.json').exists()


def test_a_new_run_takes_its_parameters_and_names_it(packed, toy_model, backbone):
  fresh = with_backbone(drawn_state(HEADS | PRIOR | AMVUR, 1), backbone)
  state, start = warm_start(fresh, ['release'], toy_model, named_config('new', WEAK))
  expected = load_network('release').variables['params']
  for part in ('feature_norm', 'camera_model', 'prior_net'):
    chex.assert_trees_all_equal(state.params[part], expected[part])
  chex.assert_trees_all_equal(state.params['vertex_regressor'], fresh.params['vertex_regressor'])
  (source,) = start.sources
  assert source.origin == Origin('release', 30, read_lineage('release'))
  assert source.other_hand_model  # the toy hand is not its own
  assert describe_warm_start(start)[0].startswith('Taken from release (features, step 30)')
  assert load_training_model('hand_photos', None, ('nowhere', 'release')) is not None


def test_its_camera_model_is_a_camera_prior_that_is_kept(packed, backbone):
  config = named_config('toy_weak', WEAK, camera_prior='release')
  config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, kind='elbo'))
  prior = load_camera_prior('run', config)
  assert prior.origin == Origin('release', 30, read_lineage('release'))
  assert set(prior.variables['params']) == {'backbone', 'feature_norm', 'camera_model'}
  claim_camera_prior('run', prior)
  # Another version of the package has another run, and the copy stays.
  shutil.rmtree(packed[0])
  write_packed(packed[0], with_backbone(drawn_state(HEADS | PRIOR, 31), backbone))
  kept = load_camera_prior('run', config)
  assert kept.origin == prior.origin
  chex.assert_trees_all_equal(kept.variables, prior.variables)
  other = dataclasses.replace(config.training, camera_prior='./release')
  with pytest.raises(ValueError, match=r'copied from release, not from \./release'):
    load_camera_prior('run', dataclasses.replace(config, training=other))


def test_a_run_that_began_with_it_goes_on_wherever_the_package_lies(packed, monkeypatch, tmp_path):
  config = named_config('toy', WEAK, init_from=('release',), camera_prior='release')
  claim_workdir('run', config)
  sources = read_sources('run', config)
  (source,) = sources['training.init_from']
  assert source == sources['training.camera_prior'][0]
  assert source.place == 'release' and source.step == 30 and len(source.sha256) == 64
  shutil.move(packed[0], tmp_path / 'elsewhere')
  put_in_package(monkeypatch, tmp_path / 'elsewhere')
  assert check_workdir('run', config)
  # A copy in a folder is the same source by its content, and an own folder `release` is not.
  copied = named_config(
    'toy', WEAK, init_from=(str(tmp_path / 'elsewhere'),), camera_prior='release'
  )
  assert find_sources(copied)['training.init_from'][0].sha256 == source.sha256
  assert check_workdir('run', copied)
  own = named_config('toy', WEAK, init_from=('./release',), camera_prior='release')
  with pytest.raises(ValueError, match=r'training\.init_from'):
    check_workdir('run', own)


def test_damage_and_absence_are_told(packed):
  path = packed[0] / 'network.npz'
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match=r'network\.npz cannot be read; it is damaged'):
    load_network('release')
  shutil.rmtree(packed[0])
  with pytest.raises(FileNotFoundError, match=r'release holds no training run'):
    load_network('release')


def test_another_hand_model_is_named(packed):
  (packed[0] / 'hand_model.json').unlink()
  claim_hand_model(packed[0], make_toy_mano())
  with pytest.raises(ValueError, match='release was trained with another hand model'):
    load_run_model('release')
