"""The frozen camera prior of a run: what is taken of its source, copied, and refused."""

import dataclasses
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest

from hand_jax.config import ExperimentConfig
from hand_jax.models.hand_network import create_network
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.lineage import Origin, claim_lineage, make_lineage
from hand_jax.runs.train_state import TrainState
from hand_jax.training.camera_prior import CameraPrior, claim_camera_prior, load_camera_prior
from tests.saved_runs import PRIOR, TRUNK, WEAK, drawn_state, named_config, save_run


def elbo_config(camera_prior: str, kind: str = 'elbo', image_size: int = 64) -> ExperimentConfig:
  config = named_config('toy_weak', WEAK, camera_prior=camera_prior)
  return dataclasses.replace(
    config,
    loss=dataclasses.replace(config.loss, kind=kind),
    model=dataclasses.replace(config.model, image_size=image_size),
  )


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> tuple[str, TrainState]:
  """The run of a prior-net, its lineage recorded, and its state."""
  state, config = drawn_state(TRUNK | PRIOR, 30), named_config('prior_weak', WEAK)
  folder = tmp_path_factory.mktemp('sources') / 'prior'
  return save_run(folder, state, config, make_lineage(config)), state


@pytest.fixture
def source(trained, tmp_path) -> str:
  """A copy of the prior-net's run, to be changed or deleted."""
  shutil.copytree(trained[0], tmp_path / 'source')
  return str(tmp_path / 'source')


@pytest.fixture
def workdir(tmp_path) -> str:
  return str(tmp_path / 'run')


def assert_same(ours: CameraPrior | None, theirs: CameraPrior | None) -> None:
  assert ours is not None and theirs is not None
  assert (ours.config, ours.origin) == (theirs.config, theirs.origin)
  chex.assert_trees_all_equal(ours.variables, theirs.variables)


def test_the_camera_prior_is_the_camera_s_parts_of_that_run(source, trained, workdir):
  prior = load_camera_prior(workdir, elbo_config(source))
  assert prior.config == named_config('prior_weak', WEAK)
  state = trained[1]
  expected = {name: state.params[name] for name in ('backbone', 'feature_norm', 'camera_model')}
  chex.assert_trees_all_equal(
    prior.variables, {'params': expected, 'batch_stats': state.batch_stats}
  )
  assert prior.origin == Origin(source, 30, make_lineage(prior.config))
  assert not pathlib.Path(workdir).exists()  # reading writes nothing


def test_the_copy_survives_its_source(source, workdir):
  config = elbo_config(source)
  first = load_camera_prior(workdir, config)
  claim_camera_prior(workdir, first)
  # The source trains on: a continued run keeps what it began with.
  later = drawn_state(TRUNK | PRIOR, 31)
  with Checkpoints(source) as checkpoints:
    checkpoints.save(later, position=0)
  assert_same(load_camera_prior(workdir, config), first)
  claim_camera_prior(workdir, load_camera_prior(f'{workdir}_of_another', config))
  assert_same(load_camera_prior(workdir, config), first)
  shutil.rmtree(source)
  assert_same(load_camera_prior(workdir, config), first)
  assert [path.name for path in pathlib.Path(workdir).iterdir()] == ['camera_prior']


def test_a_killed_copy_is_made_anew(source, workdir, monkeypatch):
  config = elbo_config(source)
  prior = load_camera_prior(workdir, config)

  def killed(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(np, 'savez', killed)
    with pytest.raises(KeyboardInterrupt):
      claim_camera_prior(workdir, prior)
  assert not list(pathlib.Path(workdir).iterdir())
  (pathlib.Path(workdir) / 'camera_prior.unfinished').mkdir()  # as a killed process leaves it
  assert_same(load_camera_prior(workdir, config), prior)  # from the source
  claim_camera_prior(workdir, prior)
  shutil.rmtree(source)
  assert_same(load_camera_prior(workdir, config), prior)
  assert [path.name for path in pathlib.Path(workdir).iterdir()] == ['camera_prior']


@pytest.mark.parametrize('name', ['config.json', 'origin.json', 'variables.npz'])
@pytest.mark.parametrize('damage', ['cut', 'removed'])
def test_a_damaged_copy_is_named(source, workdir, name, damage):
  config = elbo_config(source)
  claim_camera_prior(workdir, load_camera_prior(workdir, config))
  path = pathlib.Path(workdir) / 'camera_prior' / name
  data = path.read_bytes()
  path.unlink()
  if damage == 'cut':
    path.write_bytes(data[: len(data) // 2])
  with pytest.raises((ValueError, FileNotFoundError), match=rf'camera_prior/{name}'):
    load_camera_prior(workdir, config)


def test_changed_numbers_of_a_copy_are_noticed(source, workdir):
  config = elbo_config(source)
  prior = load_camera_prior(workdir, config)
  claim_camera_prior(workdir, prior)
  path = pathlib.Path(workdir) / 'camera_prior/variables.npz'
  data = path.read_bytes()
  number = prior.variables['params']['camera_model']['dense']['kernel'].tobytes()
  assert data.count(number) == 1
  path.write_bytes(data.replace(number, number[:-1] + bytes([number[-1] ^ 1])))
  with pytest.raises(ValueError, match=r'variables.npz cannot be read; it is damaged'):
    load_camera_prior(workdir, config)


def test_other_losses_have_no_camera_prior(source, workdir):
  assert load_camera_prior(workdir, elbo_config('', 'gaussian')) is None
  claim_camera_prior(workdir, None)
  assert not pathlib.Path(workdir).exists()
  with pytest.raises(
    ValueError, match=r"camera_prior=.*source: loss.kind='l2' uses no camera prior"
  ):
    load_camera_prior(workdir, elbo_config(source, 'l2'))


def test_what_cannot_be_a_camera_prior_is_refused(source, workdir, tmp_path):
  with pytest.raises(ValueError, match=r'Algorithm 5.*synthetic_small_prior_weak.*--camera_prior='):
    load_camera_prior(workdir, elbo_config(''))
  with pytest.raises(ValueError, match=r'source was trained on crops of 64 px, this run .* 32'):
    load_camera_prior(workdir, elbo_config(source, image_size=32))
  other = elbo_config(source)
  other = dataclasses.replace(other, data=dataclasses.replace(other.data, crop_factor=1.1))
  with pytest.raises(ValueError, match=r'crops of 2\.0 times the box, this run uses 1\.1'):
    load_camera_prior(workdir, other)
  claim_workdir(str(tmp_path / 'new'), named_config('new', WEAK))
  with pytest.raises(FileNotFoundError, match=r'new has no checkpoint yet'):
    load_camera_prior(workdir, elbo_config(str(tmp_path / 'new')))
  save_run(tmp_path / 'other', drawn_state(PRIOR, 2), named_config('other', WEAK))
  with pytest.raises(ValueError, match=r'other has no backbone, feature_norm, camera_model'):
    load_camera_prior(workdir, elbo_config(str(tmp_path / 'other')))
  assert not pathlib.Path(workdir).exists()


def test_a_copy_of_another_run_or_gone_from_a_run_that_began_is_refused(source, workdir):
  config = elbo_config(source)
  claim_camera_prior(workdir, load_camera_prior(workdir, config))
  with pytest.raises(ValueError, match=r'was copied from .*source, not from elsewhere'):
    load_camera_prior(workdir, elbo_config('elsewhere'))
  save_run(pathlib.Path(workdir), drawn_state(TRUNK, 3), config)
  shutil.rmtree(pathlib.Path(workdir) / 'camera_prior')
  with pytest.raises(ValueError, match=r'camera_prior is missing, although the run has begun'):
    load_camera_prior(workdir, config)


def test_the_copy_stays_the_run_s_own_where_its_source_has_moved(source, workdir, tmp_path):
  """Whether the moved run is the source is for `check_workdir` to say; a copied-in copy is not."""
  config = elbo_config(source)
  prior = load_camera_prior(workdir, config)
  claim_camera_prior(workdir, prior)
  claim_lineage(workdir, make_lineage(config, camera_prior=prior.origin))
  moved = shutil.move(source, tmp_path / 'moved')
  assert_same(load_camera_prior(workdir, elbo_config(f'{source}/')), prior)
  assert_same(load_camera_prior(workdir, elbo_config(str(moved))), prior)
  claim_lineage(workdir, make_lineage(config, camera_prior=prior.origin._replace(step=99)))
  with pytest.raises(ValueError, match='was copied from'):
    load_camera_prior(workdir, elbo_config(str(moved)))


@pytest.mark.slow
def test_the_copied_parts_are_all_that_estimates_the_camera(workdir, tmp_path):
  config = named_config('toy', WEAK)
  network, images = create_network(config), jax.random.normal(jax.random.key(4), (2, 64, 64, 3))

  def estimate(variables, network):
    return network.apply(variables, images, False, method='estimate_camera')

  init = jax.jit(lambda key: network.init(key, images, False, method='estimate_camera'))
  variables = init(jax.random.key(3))
  state = drawn_state(PRIOR, 6)
  state = state.replace(
    params=state.params | variables['params'], batch_stats=variables['batch_stats']
  )
  source = save_run(tmp_path / 'toy', state, config)
  claim_camera_prior(workdir, load_camera_prior(workdir, elbo_config(source)))
  prior = load_camera_prior(workdir, elbo_config(source))
  estimate = jax.jit(estimate, static_argnums=1)
  ours, theirs = (
    estimate(prior.variables, create_network(prior.config)),
    estimate(variables, network),
  )
  assert np.ptp(theirs.mean, axis=0).max() > 1e-4  # images matter
  chex.assert_trees_all_equal(ours, theirs)
