"""What a new run takes from others by name, and what it records of it."""

import dataclasses
import json

import chex
import numpy as np
import pytest
from absl import flags

from experiments.configs.names import get_config
from experiments.train import choose_config
from hand_jax.config import ExperimentConfig
from hand_jax.runs.checkpoints import check_workdir, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.lineage import claim_lineage, lineage_supervision, make_lineage
from hand_jax.runs.sources import latest_step
from hand_jax.runs.train_state import TrainState
from hand_jax.training.objective import create_objective
from hand_jax.training.warm_start import (
  WarmStart,
  check_frozen_backbone,
  check_start,
  claim_warm_start,
  describe_warm_start,
  warm_start,
)
from tests.saved_runs import (
  AMVUR,
  FULL,
  PRIOR,
  SIGMA,
  TRUNK,
  WEAK,
  array_names,
  drawn_state,
  get_array,
  named_config,
  save_run,
)
from tests.toy_mano import make_toy_mano


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
def joint(sources, toy_model) -> tuple[TrainState, TrainState, WarmStart]:
  """The fresh state of joint training, the warm one, and what was taken: prior first."""
  fresh = drawn_state(TRUNK | PRIOR | AMVUR | SIGMA, 1)
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  return fresh, *warm_start(fresh, workdirs, toy_model)


def test_the_first_source_wins_and_later_ones_fill_what_it_lacks(joint, sources):
  fresh, warm, _ = joint
  for given, state in (
    (TRUNK | PRIOR, sources['prior'][1]),
    (AMVUR, sources['amvur'][1]),
    (SIGMA, fresh),
  ):
    for name in given:
      ours, theirs = np.asarray(get_array(warm, name)), get_array(state, name)
      assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes(), name
  chex.assert_trees_all_equal_structs(warm, fresh)


def test_the_order_of_the_sources_decides(joint, sources, toy_model):
  fresh, _, _ = joint
  warm, _ = warm_start(fresh, [sources['amvur'][0], sources['prior'][0]], toy_model)
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
  assert set(prior.taken) == array_names(TRUNK, PRIOR)
  assert (prior.given_before, prior.no_place) == ((), ())
  assert (set(amvur.taken), set(amvur.given_before)) == (array_names(AMVUR), array_names(TRUNK))
  assert amvur.no_place == ()
  assert set(start.fresh) == array_names(SIGMA)
  claim_warm_start(str(tmp_path), start)
  record = json.loads((tmp_path / 'init_from.json').read_text())
  assert record['fresh'] == sorted(array_names(SIGMA))
  first, second = record['sources']
  assert (first['workdir'], first['step'], first['config']) == (
    sources['prior'][0],
    30,
    'prior_weak',
  )
  assert sorted(first['taken']) == sorted(array_names(TRUNK, PRIOR))
  assert sorted(second['taken']) == sorted(array_names(AMVUR))
  assert sorted(second['not_taken_given_before']) == sorted(array_names(TRUNK))
  assert second['not_taken_no_place'] == []
  assert [path.name for path in tmp_path.iterdir()] == ['init_from.json']


def test_people_read_whole_parts_and_what_is_partial_by_name(joint, sources, toy_model):
  _, _, start = joint
  trunk = 'backbone (all 3), camera_model (all 2), feature_norm (all 1)'
  assert describe_warm_start(start) == [
    f'Taken from {sources["prior"][0]} (prior_weak, step 30): {trunk}, prior_net (all 2).',
    f'Taken from {sources["amvur"][0]} (amvur_full, step 40): vertex_regressor (all 2).',
    f'  not taken, given before: {trunk}',
    'Fresh: prior_sigma (all 1).',
  ]
  part = {**TRUNK, 'params/backbone/extra/kernel': (1,), 'params/camera_model/extra/bias': (1,)}
  _, start = warm_start(drawn_state(part, 1), [sources['prior'][0]], toy_model)
  first, no_place, fresh = describe_warm_start(start)
  assert first.endswith(
    ': backbone/stem (all 1), backbone/stem_norm (all 2), camera_model/dense (all 2), '
    'feature_norm (all 1).'
  )
  assert no_place == '  not taken, no place here: prior_net (all 2)'
  assert fresh == 'Fresh: backbone/extra (all 1), camera_model/extra (all 1).'


def test_arrays_of_another_shape_are_counted_and_the_first_named(sources, toy_model):
  shapes = TRUNK | {
    'params/backbone/stem/kernel': (3, 3),
    'params/camera_model/dense/bias': (5,),
    'params/camera_model/dense/kernel': (4, 2),  # as many numbers
    'params/feature_norm/scale': (2, 1),
  }
  workdir = sources['prior'][0]
  with pytest.raises(ValueError, match=r'init_from: 4 arrays of') as caught:
    warm_start(drawn_state(shapes, 1), [workdir], toy_model)
  message = str(caught.value)
  assert f'{workdir} (prior_weak) have another shape than here: ' in message
  for name, theirs, ours in (
    ('params/backbone/stem/kernel', '[3, 2]', '[3, 3]'),
    ('params/camera_model/dense/bias', '[4]', '[5]'),
    ('params/camera_model/dense/kernel', '[2, 4]', '[4, 2]'),
  ):
    assert f'{name} is float32{theirs} there, float32{ours} here; ' in message
  assert '; and 1 more. Take the model settings' in message
  assert 'feature_norm' not in message and 'stem_norm' not in message and '\n' not in message


def test_model_settings_that_differ_are_named_beside_the_shapes(sources, toy_model):
  """Those of the network alone, of the source that does not fit; a text of a few lines."""
  state = drawn_state(TRUNK | AMVUR | {'params/vertex_regressor/tokens': (7, 3)}, 1)
  config = named_config('joint', WEAK, num_steps=9)
  changed = dataclasses.replace(config.model, image_size=32, pose_components=6)
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  with pytest.raises(ValueError, match=r'init_from: 1 arrays of .*amvur \(amvur_full') as caught:
    warm_start(state, workdirs, toy_model, dataclasses.replace(config, model=changed))
  settings = 'This network has model.image_size: 32, not 64; model.pose_components: 6, not 12. '
  assert settings in str(caught.value) and 'training.num_steps' not in str(caught.value)
  with pytest.raises(ValueError, match=r'here\. Take the model settings'):
    warm_start(state, workdirs, toy_model, config)
  other = get_config('ho3d_v2_supervised')
  wholly = dataclasses.replace(config, model=other.model)
  with pytest.raises(ValueError, match=r'; and \d+ more\. Take') as caught:
    warm_start(state, workdirs, toy_model, wholly)
  assert str(caught.value).count('model.') == 6 and len(str(caught.value)) < 900


def test_a_source_without_anything_for_the_network_is_refused(sources, toy_model):
  state = drawn_state(SIGMA, 1)
  with pytest.raises(
    ValueError, match=r'prior_weak\) holds nothing.*has backbone.*one prior_sigma'
  ):
    warm_start(state, [sources['prior'][0]], toy_model)


def test_a_source_without_run_or_checkpoint_is_named(sources, toy_model, tmp_path):
  state = drawn_state(TRUNK, 1)
  with pytest.raises(FileNotFoundError, match=r'nowhere holds no training run'):
    warm_start(state, [sources['prior'][0], str(tmp_path / 'nowhere')], toy_model)
  claim_workdir(str(tmp_path / 'new'), named_config('new', FULL))
  with pytest.raises(FileNotFoundError, match=r'new has no checkpoint yet'):
    warm_start(state, [str(tmp_path / 'new')], toy_model)
  assert latest_step(str(tmp_path / 'new')) is None
  assert latest_step(sources['prior'][0]) == 30


def test_numbers_of_another_meaning_are_told_and_not_refused(joint, sources, toy_model, tmp_path):
  """Only where the part they concern was taken."""
  fresh = joint[0]
  config = named_config('joint', WEAK)
  changed = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, vertex_offset_from='template'),
    data=dataclasses.replace(config.data, crop_factor=1.25),
  )
  workdirs = [sources['prior'][0], sources['amvur'][0]]
  _, start = warm_start(fresh, workdirs, toy_model, changed)
  camera = 'camera_model: data.crop_factor: 1.25, not 2.0'
  vertices = "vertex_regressor: model.vertex_offset_from: 'template', not 'prior'"
  assert [source.other_meanings for source in start.sources] == [(camera,), (vertices,)]
  notes = [line for line in describe_warm_start(start) if 'note' in line]
  beginning = '  note: its parameters have another meaning here, '
  assert notes == [beginning + text for text in (camera, vertices)]
  claim_warm_start(str(tmp_path), start)
  record = json.loads((tmp_path / 'init_from.json').read_text())
  assert [source['other_meanings'] for source in record['sources']] == [[camera], [vertices]]
  _, start = warm_start(fresh, workdirs, toy_model, config)
  assert not any(source.other_meanings for source in start.sources)


def test_another_hand_model_is_told_and_not_refused(joint, sources, toy_model):
  _, _, start = joint
  assert not any(source.other_hand_model for source in start.sources)
  other = toy_model._replace(v_template=toy_model.v_template + 1)
  warm, start = warm_start(drawn_state(TRUNK | PRIOR, 1), [sources['prior'][0]], other)
  chex.assert_trees_all_equal(warm.params, sources['prior'][1].params)
  assert start.sources[0].other_hand_model
  assert 'another hand model' in describe_warm_start(start)[1]


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


# What may not start fresh.


def weak_elbo(base: str, **optimizer) -> ExperimentConfig:
  config = get_config('toy_weak')
  model = dataclasses.replace(config.model, vertex_offset_from=base)
  optimizer = dataclasses.replace(config.optimizer, **optimizer)
  return dataclasses.replace(config, model=model, optimizer=optimizer)


def test_a_fresh_amvur_at_the_template_is_refused_for_the_elbo(joint, sources, toy_model):
  """It would pull the prior-net, which alone was warmed up, towards a flat hand."""
  fresh, _, both = joint
  _, prior_alone = warm_start(fresh, [sources['prior'][0]], toy_model)
  check = lambda base, start: check_start(create_objective(weak_elbo(base)), start)  # noqa: E731
  with pytest.raises(ValueError) as caught:
    check('template', prior_alone)
  message = str(caught.value)
  assert message.startswith("vertex_regressor (all 2) would start fresh: loss.kind='elbo' with")
  for named in (
    "model.vertex_offset_from='template'",
    '--init_from=WORKDIR',
    'Algorithm 6',
    'model.vertex_offset_from=prior',
  ):
    assert named in message
  assert '\n' not in message
  check('template', both)
  check('prior', prior_alone)
  check_start(create_objective(get_config('toy')), prior_alone)


def test_a_frozen_backbone_comes_from_somewhere(joint):
  random = WarmStart((), tuple(sorted(array_names(TRUNK, PRIOR))))
  frozen = weak_elbo('prior', backbone_learning_rate_scale=0.0)
  with pytest.raises(ValueError, match=r'would stay random: name the run .* --init_from=WORKDIR'):
    check_frozen_backbone(frozen, random)
  check_frozen_backbone(frozen, joint[2])
  check_frozen_backbone(weak_elbo('prior'), random)
  hands = dataclasses.replace(frozen.model.backbone, name='hand_landmark', pretrained='hands')
  model = dataclasses.replace(frozen.model, backbone=hands)
  check_frozen_backbone(dataclasses.replace(frozen, model=model), random)


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


def test_a_run_is_continued_with_the_same_sources_alone(tmp_path):
  workdir = str(tmp_path)
  claim_workdir(workdir, choose_config('toy', [], ['runs/a'], None))
  assert check_workdir(workdir, choose_config('toy', [], ['runs/a'], None))
  with pytest.raises(ValueError) as caught:
    check_workdir(workdir, choose_config('toy', [], ['runs/b'], None))
  assert "this one asks for training.init_from: ('runs/b',), not ('runs/a',)." in str(caught.value)
