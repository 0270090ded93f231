"""What a new run takes from others by name, what it records of it, and its frozen camera prior."""

import dataclasses
import json
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest
from absl import flags

from experiments.configs import get_config
from experiments.train import choose_config
from hand_jax.config import ExperimentConfig
from hand_jax.models.hand_network import create_network
from hand_jax.training.camera_prior import CameraPrior, claim_camera_prior, load_camera_prior
from hand_jax.training.checkpoints import Checkpoints, check_workdir, claim_workdir, latest_step
from hand_jax.training.hand_models import claim_hand_model
from hand_jax.training.lineage import (
  Origin,
  claim_lineage,
  lineage_supervision,
  make_lineage,
  read_lineage,
)
from hand_jax.training.state import TrainState
from hand_jax.training.warm_start import (
  WarmStart,
  claim_warm_start,
  describe_warm_start,
  warm_start,
)
from tests.toy_mano import make_toy_mano

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


def names(*parts: dict[str, tuple[int, ...]]) -> set[str]:
  return {name for part in parts for name in part}


def drawn_state(shapes: dict[str, tuple[int, ...]], seed: int) -> TrainState:
  """A state of the named arrays, every number of it drawn."""
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


def get(state: TrainState, name: str) -> np.ndarray:
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
  """A run's folder with a checkpoint; without `lineage`, as runs were before there were records."""
  claim_workdir(str(workdir), config)
  with Checkpoints(str(workdir)) as checkpoints:
    checkpoints.save(state, position=0)
  if lineage:
    claim_lineage(str(workdir), lineage)
  return str(workdir)


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> dict[str, tuple[str, TrainState]]:
  """Prior-net alone (weak, its lineage recorded) and AMVUR alone (full, from before records)."""
  folder = tmp_path_factory.mktemp('sources')
  prior, amvur = drawn_state(TRUNK | PRIOR, 30), drawn_state(TRUNK | AMVUR, 40)
  config = named_config('prior_weak', WEAK)
  runs = {
    'prior': (save_run(folder / 'prior', prior, config, make_lineage(config)), prior),
    'amvur': (save_run(folder / 'amvur', amvur, named_config('amvur_full', FULL)), amvur),
  }
  claim_hand_model(runs['prior'][0], make_toy_mano())
  return runs


@pytest.fixture(scope='module')
def model():
  return make_toy_mano()


@pytest.fixture(scope='module')
def joint(sources, model) -> tuple[TrainState, TrainState, WarmStart]:
  """The fresh state of joint training, the warm one, and what was taken: prior first."""
  fresh = drawn_state(TRUNK | PRIOR | AMVUR | SIGMA, 1)
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  return fresh, *warm_start(fresh, workdirs, model)


def test_the_first_source_wins_and_later_ones_fill_what_it_lacks(joint, sources):
  fresh, warm, _ = joint
  for given, state in (
    (TRUNK | PRIOR, sources['prior'][1]),
    (AMVUR, sources['amvur'][1]),
    (SIGMA, fresh),
  ):
    for name in given:
      ours, theirs = np.asarray(get(warm, name)), get(state, name)
      assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes(), name
  chex.assert_trees_all_equal_structs(warm, fresh)


def test_the_order_of_the_sources_decides(joint, sources, model):
  fresh, _, _ = joint
  warm, _ = warm_start(fresh, [sources['amvur'][0], sources['prior'][0]], model)
  chex.assert_trees_all_equal(warm.params['backbone'], sources['amvur'][1].params['backbone'])
  chex.assert_trees_all_equal(warm.batch_stats, sources['amvur'][1].batch_stats)
  chex.assert_trees_all_equal(warm.params['prior_net'], sources['prior'][1].params['prior_net'])


def test_optimizer_step_and_key_stay_fresh(joint):
  fresh, warm, _ = joint
  chex.assert_trees_all_equal(warm.opt_state, fresh.opt_state)
  assert int(warm.step) == 1
  np.testing.assert_array_equal(warm.key, fresh.key)


def test_the_lists_are_exact(joint, sources, tmp_path):
  _, _, start = joint
  prior, amvur = start.sources
  assert (set(prior.taken), prior.given_before, prior.no_place) == (names(TRUNK, PRIOR), (), ())
  assert (set(amvur.taken), set(amvur.given_before)) == (names(AMVUR), names(TRUNK))
  assert amvur.no_place == ()
  assert set(start.fresh) == names(SIGMA)
  claim_warm_start(str(tmp_path), start)
  record = json.loads((tmp_path / 'init_from.json').read_text())
  assert record['fresh'] == sorted(names(SIGMA))
  first, second = record['sources']
  assert (first['workdir'], first['step'], first['config']) == (
    sources['prior'][0],
    30,
    'prior_weak',
  )
  assert sorted(first['taken']) == sorted(names(TRUNK, PRIOR))
  assert sorted(second['taken']) == sorted(names(AMVUR))
  assert sorted(second['not_taken_given_before']) == sorted(names(TRUNK))
  assert second['not_taken_no_place'] == []
  assert [path.name for path in tmp_path.iterdir()] == ['init_from.json']


def test_people_read_whole_parts_and_what_is_partial_by_name(joint, sources, model):
  _, _, start = joint
  trunk = 'backbone (all 3), camera_model (all 2), feature_norm (all 1)'
  assert describe_warm_start(start) == [
    f'Taken from {sources["prior"][0]} (prior_weak, step 30): {trunk}, prior_net (all 2).',
    f'Taken from {sources["amvur"][0]} (amvur_full, step 40): vertex_regressor (all 2).',
    f'  not taken, given before: {trunk}',
    'Fresh: prior_sigma (all 1).',
  ]
  part = {**TRUNK, 'params/backbone/extra/kernel': (1,), 'params/camera_model/extra/bias': (1,)}
  _, start = warm_start(drawn_state(part, 1), [sources['prior'][0]], model)
  first, no_place, fresh = describe_warm_start(start)
  assert first.endswith(
    ': backbone/stem (all 1), backbone/stem_norm (all 2), camera_model/dense (all 2), '
    'feature_norm (all 1).'
  )
  assert no_place == '  not taken, no place here: prior_net (all 2)'
  assert fresh == 'Fresh: backbone/extra (all 1), camera_model/extra (all 1).'


def test_every_array_of_another_shape_is_named_at_once(sources, model):
  shapes = TRUNK | PRIOR | AMVUR
  shapes = shapes | {
    'params/backbone/stem/kernel': (3, 3),
    'params/prior_net/dense/kernel': (5, 2),  # as many numbers
    'params/vertex_regressor/tokens': (7, 2, 1),
  }
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  with pytest.raises(ValueError, match=r'init_from: 4 arrays of another shape') as caught:
    warm_start(drawn_state(shapes, 1), workdirs, model)
  message = str(caught.value)
  for name, workdir, theirs, ours in (
    ('params/backbone/stem/kernel', workdirs[0], '[3, 2]', '[3, 3]'),
    ('params/backbone/stem/kernel', workdirs[1], '[3, 2]', '[3, 3]'),
    ('params/prior_net/dense/kernel', workdirs[0], '[2, 5]', '[5, 2]'),
    ('params/vertex_regressor/tokens', workdirs[1], '[7, 2]', '[7, 2, 1]'),
  ):
    assert f'{name} is float32{theirs} in {workdir}, float32{ours} here' in message
  assert 'bias' not in message and '\n' not in message


def test_a_source_without_anything_for_the_network_is_refused(sources, model):
  state = drawn_state(SIGMA, 1)
  with pytest.raises(
    ValueError, match=r'prior_weak\) holds nothing.*has backbone.*one prior_sigma'
  ):
    warm_start(state, [sources['prior'][0]], model)


def test_a_source_without_run_or_checkpoint_is_named(sources, model, tmp_path):
  state = drawn_state(TRUNK, 1)
  with pytest.raises(FileNotFoundError, match=r'nowhere holds no training run'):
    warm_start(state, [sources['prior'][0], str(tmp_path / 'nowhere')], model)
  claim_workdir(str(tmp_path / 'new'), named_config('new', FULL))
  with pytest.raises(FileNotFoundError, match=r'new has no checkpoint yet'):
    warm_start(state, [str(tmp_path / 'new')], model)
  assert latest_step(str(tmp_path / 'new')) is None
  assert latest_step(sources['prior'][0]) == 30


def test_numbers_of_another_meaning_are_told_and_not_refused(joint, sources, model, tmp_path):
  """Only where the part they concern was taken."""
  fresh = joint[0]
  config = named_config('joint', WEAK)
  changed = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, vertex_offset_from='template'),
    data=dataclasses.replace(config.data, crop_factor=1.25),
  )
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  _, start = warm_start(fresh, workdirs, model, changed)
  camera = 'camera_model: data.crop_factor: 1.25, not 2.0'
  vertices = "vertex_regressor: model.vertex_offset_from: 'template', not 'prior'"
  assert [source.other_meanings for source in start.sources] == [(camera,), (vertices,)]
  notes = [line for line in describe_warm_start(start) if 'note' in line]
  assert notes == [f'  note: its numbers mean another thing here, {t}' for t in (camera, vertices)]
  claim_warm_start(str(tmp_path), start)
  record = json.loads((tmp_path / 'init_from.json').read_text())
  assert [source['other_meanings'] for source in record['sources']] == [[camera], [vertices]]
  _, start = warm_start(fresh, workdirs, model, config)
  assert not any(source.other_meanings for source in start.sources)


def test_another_hand_model_is_told_and_not_refused(joint, sources, model):
  _, _, start = joint
  assert not any(source.other_hand_model for source in start.sources)
  other = model._replace(v_template=model.v_template + 1)
  warm, start = warm_start(drawn_state(TRUNK | PRIOR, 1), [sources['prior'][0]], other)
  chex.assert_trees_all_equal(warm.params, sources['prior'][1].params)
  assert start.sources[0].other_hand_model
  assert 'another hand model' in describe_warm_start(start)[1]


# Lineage.


def record(labels: str, *origins: dict, camera_prior: dict | None = None) -> dict:
  prior = Origin('camera', 5, camera_prior) if camera_prior else None
  runs = [Origin(f'run{number}', number, lineage) for number, lineage in enumerate(origins)]
  return make_lineage(named_config('some', labels), runs, prior)


@pytest.mark.parametrize(
  'lineage, expected',
  [
    (record(WEAK), 'weak'),
    (record(FULL), 'full'),
    (record(WEAK, record(WEAK), record(WEAK, record(WEAK))), 'weak'),
    (record(WEAK, record(WEAK), record(WEAK, record(FULL))), 'full'),
    (record(FULL, record(WEAK)), 'full'),
    (record(WEAK, camera_prior=record(WEAK)), 'weak'),
    (record(WEAK, camera_prior=record(FULL)), 'full'),
    (record(WEAK, camera_prior=record(WEAK, record(FULL))), 'full'),
    (record(WEAK, record(WEAK, camera_prior=record(FULL))), 'full'),
  ],
)
def test_a_lineage_is_weak_only_when_every_run_in_it_is(lineage, expected, tmp_path):
  assert lineage_supervision(lineage) == expected
  claim_lineage(str(tmp_path), lineage)
  assert read_lineage(str(tmp_path)) == lineage
  assert lineage_supervision(read_lineage(str(tmp_path))) == expected


def test_the_record_holds_the_sources_own_records(joint, tmp_path):
  _, _, start = joint
  origins = [source.origin for source in start.sources]
  lineage = make_lineage(named_config('joint', WEAK), origins)
  claim_lineage(str(tmp_path), lineage)
  read = json.loads((tmp_path / 'lineage.json').read_text())
  assert (read['config'], read['supervision'], read['camera_prior']) == ('joint', 'weak', None)
  prior, amvur = read['init_from']
  assert prior == {
    'workdir': origins[0].workdir,
    'step': 30,
    'lineage': {
      'config': 'prior_weak',
      'supervision': 'weak',
      'init_from': [],
      'camera_prior': None,
    },
  }
  # From before records: what its config says.
  assert (amvur['step'], amvur['lineage']['config']) == (40, 'amvur_full')
  assert amvur['lineage']['supervision'] == 'full' and amvur['lineage']['init_from'] == []
  assert lineage_supervision(read) == 'full'


@pytest.mark.parametrize('training', [{'init_from': ('a',)}, {'camera_prior': 'a'}])
def test_a_run_from_others_without_its_record_is_refused(tmp_path, training):
  claim_workdir(str(tmp_path), named_config('from_others', WEAK, **training))
  with pytest.raises(ValueError, match=r'lineage.json is missing, though the run took'):
    read_lineage(str(tmp_path))


@pytest.mark.parametrize(
  'damage',
  [
    lambda tree: tree.pop('camera_prior'),
    lambda tree: tree.update(supervision='some'),
    lambda tree: tree.update(config=3),
    lambda tree: tree['init_from'][0].pop('step'),
    lambda tree: tree['init_from'][0].update(step='4'),
    lambda tree: tree['init_from'][0].update(lineage=None),
    lambda tree: tree['init_from'][0]['lineage'].pop('supervision'),
  ],
)
def test_a_damaged_record_is_named(tmp_path, damage):
  lineage = record(WEAK, record(WEAK))
  damage(lineage)
  (tmp_path / 'lineage.json').write_text(json.dumps(lineage))
  with pytest.raises(ValueError, match=r'lineage.json cannot be read as the record of a lineage'):
    read_lineage(str(tmp_path))
  (tmp_path / 'lineage.json').write_text(json.dumps(record(WEAK))[:-5])
  with pytest.raises(ValueError, match=r'lineage.json cannot be read.*JSONDecodeError'):
    read_lineage(str(tmp_path))


# The camera prior.


def elbo_config(camera_prior: str, kind: str = 'elbo', image_size: int = 64) -> ExperimentConfig:
  config = named_config('toy_weak', WEAK, camera_prior=camera_prior)
  return dataclasses.replace(
    config,
    loss=dataclasses.replace(config.loss, kind=kind),
    model=dataclasses.replace(config.model, image_size=image_size),
  )


@pytest.fixture
def source(sources, tmp_path) -> str:
  """A copy of the prior-net's run, to be changed or deleted."""
  shutil.copytree(sources['prior'][0], tmp_path / 'source')
  return str(tmp_path / 'source')


@pytest.fixture
def workdir(tmp_path) -> str:
  return str(tmp_path / 'run')


def assert_same(ours: CameraPrior | None, theirs: CameraPrior | None) -> None:
  assert ours is not None and theirs is not None
  assert (ours.config, ours.origin) == (theirs.config, theirs.origin)
  chex.assert_trees_all_equal(ours.variables, theirs.variables)


def test_the_camera_prior_is_the_camera_s_parts_of_that_run(source, sources, workdir):
  prior = load_camera_prior(workdir, elbo_config(source))
  assert prior.config == named_config('prior_weak', WEAK)
  state = sources['prior'][1]
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
  assert [path.name for path in pathlib.Path(workdir).iterdir()] == ['camera_prior.partial']
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
  with pytest.raises(ValueError, match=r"camera_prior=.*source is for loss.kind='elbo', got 'l2'"):
    load_camera_prior(workdir, elbo_config(source, 'l2'))


def test_what_cannot_be_a_camera_prior_is_refused(source, workdir, tmp_path):
  with pytest.raises(ValueError, match=r'Algorithm 5.*synthetic_small_prior_weak.*--camera_prior='):
    load_camera_prior(workdir, elbo_config(''))
  with pytest.raises(ValueError, match=r'source was trained on crops of 64 px, this run .* 32'):
    load_camera_prior(workdir, elbo_config(source, image_size=32))
  other = elbo_config(source)
  other = dataclasses.replace(other, data=dataclasses.replace(other.data, crop_factor=1.1))
  with pytest.raises(ValueError, match=r'crops of 2\.0 times the box, this run asks for 1\.1'):
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
  with pytest.raises(ValueError, match=r'camera_prior is missing, though the run has begun'):
    load_camera_prior(workdir, config)


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


# The command.


def test_flags_name_the_runs_to_start_from():
  config = choose_config('toy', ['training.seed=3'], ['runs/a,b', 'runs/c'], 'runs/d')
  assert config.training.init_from == ('runs/a,b', 'runs/c')
  assert (config.training.camera_prior, config.training.seed) == ('runs/d', 3)
  plain = choose_config('toy', ['training.init_from=runs/a', 'training.camera_prior=b'], [], None)
  assert (plain.training.init_from, plain.training.camera_prior) == (('runs/a',), 'b')
  assert choose_config('toy', [], [], None) == get_config('toy')
  assert {'init_from', 'camera_prior'} <= set(flags.FLAGS)


@pytest.mark.parametrize('setting', ['training.init_from=a', ' training.camera_prior = a'])
def test_what_a_flag_gives_is_no_setting_besides(setting):
  key = setting.partition('=')[0].strip().split('.')[1]
  with pytest.raises(ValueError, match=f'--{key} and --set training.{key} are the same setting'):
    choose_config('toy', [setting], ['b'], 'b')


def test_a_run_is_continued_with_the_same_sources_alone(workdir):
  claim_workdir(workdir, choose_config('toy', [], ['runs/a'], None))
  assert check_workdir(workdir, choose_config('toy', [], ['runs/a'], None))
  with pytest.raises(ValueError) as caught:
    check_workdir(workdir, choose_config('toy', [], ['runs/b'], None))
  assert "this one asks for training.init_from: ('runs/b',), not ('runs/a',)." in str(caught.value)
