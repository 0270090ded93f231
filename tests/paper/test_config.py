"""Settings: typed overrides, refusals that name the valid ones, JSON there and back."""

import dataclasses
import json
import typing

import pytest

from experiments.configs.names import EXPERIMENTS, get_config
from hand_jax.config import DataConfig, ExperimentConfig, LossConfig
from hand_jax.config_text import (
  apply_overrides,
  config_differences,
  config_from_json,
  config_to_json,
)
from hand_jax.setting_checks import validate_config
from hand_jax.synthetic.scene import HANDS


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_named_experiments_are_valid_and_carry_their_name(name):
  config = get_config(name)
  assert validate_config(config) is config
  assert config.name == name


def test_unknown_experiment_is_refused_with_the_nearest_name():
  with pytest.raises(
    ValueError, match=r"'toyy'\. Did you mean toy\?.*experiments\.configs` lists all"
  ):
    get_config('toyy')


@pytest.mark.parametrize(
  ('text', 'read', 'expected'),
  [
    ('optimizer.learning_rate=3e-4', lambda c: c.optimizer.learning_rate, 3e-4),
    ('optimizer.learning_rate=1', lambda c: c.optimizer.learning_rate, 1.0),
    ('training.num_steps= 7 ', lambda c: c.training.num_steps, 7),
    ('training.num_steps=1_000', lambda c: c.training.num_steps, 1000),
    ('loss.convention=exact', lambda c: c.loss.convention, 'exact'),
    ('model.prior_hidden=64,32', lambda c: c.model.prior_hidden, (64, 32)),
    ('model.prior_hidden=(64, 32)', lambda c: c.model.prior_hidden, (64, 32)),
    ('model.prior_hidden=64', lambda c: c.model.prior_hidden, (64,)),
    ('model.prior_hidden=', lambda c: c.model.prior_hidden, ()),
    ('data.data_dir=/some/a=b', lambda c: c.data.data_dir, '/some/a=b'),
    ('data.data_dir=', lambda c: c.data.data_dir, ''),
    ('data.augmentation.color_strength=0', lambda c: c.data.augmentation.color_strength, 0.0),
  ],
)
def test_an_override_changes_one_setting_and_keeps_its_type(text, read, expected):
  before = get_config('toy')
  after = apply_overrides(before, [text])
  assert read(after) == expected
  assert type(read(after)) is type(expected)
  assert len(config_differences(after, before)) == (expected != read(before))


def test_overrides_apply_in_order():
  config = apply_overrides(get_config('toy'), ['training.seed=1', 'training.seed=2'])
  assert config.training.seed == 2


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('training.num_steps', r"setting=value.*'training.num_steps'"),
    ('optimizer.learning_rte=1', r'Did you mean optimizer\.learning_rate\?.*warmup_steps'),
    ('learning_rate=1', r'Did you mean optimizer\.learning_rate\?'),
    ('optimiser.learning_rate=1', r"'optimiser'\. Did you mean optimizer\?.*training"),
    ('model.attention.depth=1', r"'model.attention.depth'.*Valid names here: width, heads"),
    ('optimizer=1', r'optimizer is a group of settings'),
    ('training.seed.low=1', r"training.seed is a value; it has no setting 'low'"),
    ('training.num_steps=ten', r"training.num_steps should be int, got 'ten'"),
    ('training.num_steps=1.5', r'training.num_steps should be int, got 1.5'),
    ('training.num_steps=true', r'training.num_steps should be int'),
    ('optimizer.learning_rate=fast', r"optimizer.learning_rate should be float, got 'fast'"),
    ('loss.kind=l1', r"loss.kind should be one of 'gaussian', .*'photometric', got 'l1'"),
    ('model.prior_hidden=64,wide', r'model.prior_hidden should be a list of int'),
    ('model.prior_hidden=64,3.5', r'model.prior_hidden should be int, got 3.5'),
    ('training.batch_size=0', r'training.batch_size should be positive, got 0'),
    ('training.seed=-1', r'training.seed should not be negative'),
    ('model.pose_components=46', r'model.pose_components should be between 1 and 45'),
    ('model.attention.width=9', r'multiple of model.attention.heads \(2\), got 9'),
    ('model.min_log_variance=9', r'min_log_variance should be below'),
    ('model.min_log_variance=0.5', r'min_log_variance should be below zero'),
    ('model.attention.coarse_vertices=-1', r'coarse_vertices should not be negative, got -1'),
    ('model.attention.rounds=3', r'attention.rounds should be between 1 and 2, got 3'),
    ('model.attention.rounds=2', r"expected 1 and 0 with .*image_features='global', got 2 and 0"),
    ('model.attention.map_channels=4', r"image_features='global', got 1 and 4"),
    ('model.attention.map_channels=-1', r'map_channels should not be negative, got -1'),
    ('model.attention.image_features=sampled', r'nothing to sample: tiny gives no landmarks\. Set'),
    ('model.attention.image_features=pooled', r"one of 'global', 'sampled', got 'pooled'"),
    ('loss.prior_vertices=-1', r'loss.prior_vertices should not be negative, got -1'),
    ('model.prior_hidden=64,0', r'model.prior_hidden should be positive, got 0'),
    ('optimizer.learning_rate=1e999', r'optimizer.learning_rate should be a finite number'),
    ('model.backbone.pretrained=imagenet', r'efficientnet_lite0 alone, not for tiny'),
    ('model.backbone.pretrained=hands', r'hand_landmark alone, not for tiny'),
    ('data.dataset=freihand', r'data.data_dir should name the folder'),
    ('data.train_examples=0', r'data.train_examples should be positive'),
    ('loss.scale_prior_sigma=0', r'loss.scale_prior_sigma should be positive, got 0.0'),
    ('model.camera_log_variance=-8', r'camera_log_variance should be between -7.5 and 7.5, got -8'),
    ('data.max_landmark_error=-0.1', r'data.max_landmark_error should not be negative, got -0.1'),
    ('data.max_landmark_error=0.12', r'=0.12 reads .* prepared data set: name its folder in data'),
  ],
)
def test_a_wrong_override_is_refused_in_one_line_that_names_it(text, message):
  with pytest.raises(ValueError, match=message) as caught:
    apply_overrides(get_config('toy'), [text])
  assert '\n' not in str(caught.value)


def test_no_number_of_the_loss_may_be_negative():
  """A negative weight would make its error grow, and the total fall."""
  names = [field.name for field in dataclasses.fields(LossConfig) if field.type is float]
  assert len(names) >= 20
  for name in names:
    with pytest.raises(
      ValueError, match=rf'loss\.{name} should (not be negative|be positive), got -1'
    ):
      apply_overrides(get_config('toy'), [f'loss.{name}=-1'])


@pytest.mark.parametrize('branches', ['prior', 'posterior'])
def test_sampling_needs_both_branches(branches):
  texts = [
    *('model.backbone.name=hand_landmark', 'loss.kind=l2', 'model.vertex_offset_from=template'),
    f'model.branches={branches}',
  ]
  with pytest.raises(ValueError, match=f"needs model.branches='both', got '{branches}'"):
    apply_overrides(get_config('toy'), [*texts, 'model.attention.image_features=sampled'])


def test_json_of_runs_before_image_features_were_sampled_means_global_ones():
  tree = json.loads(config_to_json(get_config('toy')))
  for name in ('image_features', 'map_channels', 'stop_base_gradient', 'rounds'):
    del tree['model']['attention'][name]
  for name in ('prior_vertices', 'coordinate_weights'):
    del tree['loss'][name]
  assert config_from_json(json.dumps(tree)) == get_config('toy')
  assert tree['model']['attention'].keys() == {
    *('width', 'heads', 'cross_layers', 'self_layers', 'mlp_ratio', 'coarse_vertices')
  }


CACHED = [
  *('data.features=cached', 'data.data_dir=prepared', 'model.image_size=224'),
  *('model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands'),
  'optimizer.backbone_learning_rate_scale=0',
]


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    (
      ['model.backbone.name=tiny', 'model.backbone.pretrained=none'],
      'name=hand_landmark, got tiny',
    ),
    (['model.backbone.pretrained=none'], 'expected model.backbone.pretrained=hands, got none'),
    (['optimizer.backbone_learning_rate_scale=0.3'], r'learning_rate_scale=0, got 0\.3'),
    (['model.image_size=112'], 'expected model.image_size=224, got 112'),
    (['model.texture.enabled=true', 'loss.kind=photometric'], 'texture.enabled=false, got True'),
    (['data.data_dir='], 'reads a prepared data set: name its folder in data.data_dir'),
  ],
)
def test_cached_features_are_refused_where_they_cannot_stand_for_the_photo(texts, message):
  assert apply_overrides(get_config('toy'), CACHED).data.features == 'cached'
  with pytest.raises(ValueError, match=message):
    apply_overrides(get_config('toy'), [*CACHED, *texts])


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_json_returns_the_same_config(name):
  config = get_config(name)
  text = config_to_json(config)
  assert config_from_json(text) == config
  assert set(json.loads(text)) == {field.name for field in dataclasses.fields(ExperimentConfig)}


def test_json_without_a_setting_takes_its_default():
  tree = json.loads(config_to_json(get_config('toy')))
  del tree['model']['camera_hidden']
  assert config_from_json(json.dumps(tree)).model.camera_hidden == (512,)


def test_json_of_runs_before_there_were_other_hands_means_classic_ones():
  """The default is for new experiments; a run must go on as it was trained."""
  assert ExperimentConfig().data.hands == 'broad'
  tree = json.loads(config_to_json(apply_overrides(get_config('toy'), ['data.hands=broad'])))
  assert config_from_json(json.dumps(tree)).data.hands == 'broad'
  del tree['data']['hands']
  assert config_from_json(json.dumps(tree)).data.hands == 'classic'


def test_json_of_runs_before_cameras_were_sure_means_unsure_ones():
  """Such a run goes on with a log-variance about 0, and draws a camera for each branch."""
  tree = json.loads(config_to_json(get_config('toy_weak')))
  del tree['model']['camera_log_variance'], tree['loss']['camera_draws']
  config = config_from_json(json.dumps(tree))
  assert (config.model.camera_log_variance, config.loss.camera_draws) == (0.0, 'two')
  assert get_config('toy_weak').model.camera_log_variance == -5.5
  assert get_config('toy_weak').loss.camera_draws == 'one'


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_named_experiments_keep_the_hands_they_were_measured_with(name):
  # The network in the package, from which photos are learned, is trained on broad poses.
  expected = 'broad' if name in ('synthetic_features', 'hand_photos') else 'classic'
  assert get_config(name).data.hands == expected


def test_hands_are_those_that_can_be_rendered():
  choices = typing.get_args(typing.get_type_hints(DataConfig)['hands'])
  assert set(choices) == set(HANDS)
  message = r"data\.hands should be one of 'classic', 'broad', 'displaced', got 'all'"
  with pytest.raises(ValueError, match=message):
    apply_overrides(get_config('toy'), ['data.hands=all'])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda tree: tree['model'].update(depth=3),
      r"runs/config.json: Unknown setting 'model.depth'",
    ),
    (lambda tree: tree['model'].update(image_size='64'), r'model.image_size should be int'),
    (lambda tree: tree.update(model=3), r'model should be a group of settings'),
  ],
)
def test_wrong_json_is_refused_with_its_source(change, message):
  tree = json.loads(config_to_json(get_config('toy')))
  change(tree)
  with pytest.raises(ValueError, match=message):
    config_from_json(json.dumps(tree), 'runs/config.json')


def test_text_that_is_no_json_is_refused():
  with pytest.raises(ValueError, match=r'runs/config.json is not valid JSON'):
    config_from_json('{"name": ', 'runs/config.json')


def test_differences_name_both_values():
  ours = apply_overrides(get_config('toy'), ['loss.kl=0.5', 'model.camera_hidden=8'])
  assert config_differences(ours, get_config('toy')) == [
    'model.camera_hidden: (8,), not (16,)',
    'loss.kl: 0.5, not 1.0',
  ]
  assert config_differences(ours, ours) == []
