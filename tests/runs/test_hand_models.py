"""A run keeps to the hand model of its data, and finds it again."""

import json
import re

import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.mano.assets import FREE_HAND_VERSION, load_mano_model
from hand_jax.runs.checkpoints import claim_workdir
from hand_jax.runs.hand_models import (
  FORMER_FREE_HANDS,
  claim_hand_model,
  hand_model_digest,
  load_run_model,
  load_training_model,
)
from tests.official_mano import official_content, python2_dumps
from tests.toy_mano import make_toy_mano


@pytest.fixture(scope='module')
def mano_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mano')
  (folder / 'MANO_RIGHT.pkl').write_bytes(python2_dumps(official_content(make_toy_mano())))
  return str(folder)


def same(model, other) -> bool:
  return bool(np.array_equal(model.v_template, other.v_template))


def test_rendered_hands_are_trained_with_the_free_hand(mano_dir, monkeypatch):
  free = load_mano_model()
  assert same(load_training_model('synthetic_hands', None), free)
  with pytest.raises(ValueError, match=r'--mano_dir=.*synthetic_hands.*Leave --mano_dir out'):
    load_training_model('synthetic_hands', mano_dir)
  monkeypatch.setenv('MANO_DIR', mano_dir)
  assert same(load_training_model('synthetic_hands', None), free)
  assert not same(load_training_model('another', None), free)
  monkeypatch.delenv('MANO_DIR')
  assert same(load_training_model('another', mano_dir), load_mano_model(mano_dir))


def test_photos_with_joints_alone_take_the_hand_model_of_the_run_they_start_from(
  mano_dir, monkeypatch, tmp_path
):
  free = load_mano_model()
  start, empty = tmp_path / 'start', tmp_path / 'empty'
  start.mkdir()
  claim_hand_model(start, free)
  monkeypatch.setenv('MANO_DIR', mano_dir)
  workdirs = (str(empty), str(start))
  assert same(load_training_model('hand_photos', None, workdirs), free)
  assert not same(load_training_model('hand_photos', None, (str(empty),)), free)
  assert not same(load_training_model('hand_photos', mano_dir, workdirs), free)


def test_the_digest_follows_every_array():
  model = load_mano_model()
  digests = {hand_model_digest(model)}
  for name, array in model._asdict().items():
    digests.add(hand_model_digest(model._replace(**{name: array + 1})))
  assert len(digests) == len(model) + 1
  assert hand_model_digest(load_mano_model()) in digests


def test_a_run_finds_its_own_hand_model(tmp_path, mano_dir, monkeypatch):
  free, mano = load_mano_model(), load_mano_model(mano_dir)
  runs = {'free': free, 'mano': mano}
  for name, model in runs.items():
    (tmp_path / name).mkdir()
    claim_hand_model(tmp_path / name, model)
    claim_hand_model(tmp_path / name, model)  # continued with its own
  assert same(load_run_model(tmp_path / 'free'), free)
  assert same(load_run_model(tmp_path / 'mano', mano_dir), mano)
  with pytest.raises(ValueError, match=r'another hand model than the free hand.*--mano_dir'):
    load_run_model(tmp_path / 'mano')
  with pytest.raises(ValueError, match=re.escape(f'another hand model than {mano_dir}:')):
    load_run_model(tmp_path / 'free', mano_dir)
  # The environment only offers its files.
  monkeypatch.setenv('MANO_DIR', mano_dir)
  assert same(load_run_model(tmp_path / 'free'), free)
  assert same(load_run_model(tmp_path / 'mano'), mano)


def test_a_run_is_not_continued_with_another_hand_model(tmp_path):
  claim_hand_model(tmp_path, load_mano_model())
  with pytest.raises(ValueError, match='run of another hand model'):
    claim_hand_model(tmp_path, make_toy_mano())


@pytest.mark.parametrize(('digest', 'name'), FORMER_FREE_HANDS.items())
def test_a_run_of_a_former_free_hand_is_refused_by_name(tmp_path, digest, name):
  """Both when it is continued and when it is read."""
  claim_workdir(str(tmp_path), get_config('toy'))
  (tmp_path / 'hand_model.json').write_text(json.dumps({'name': name, 'sha256': digest}))
  assert digest != hand_model_digest(load_mano_model()) and name != f'free hand {FREE_HAND_VERSION}'
  with pytest.raises(ValueError, match=f'was trained with {name}, whose joints or shapes differ'):
    claim_hand_model(tmp_path, load_mano_model())
  claim_workdir(str(tmp_path), get_config('toy'))
  with pytest.raises(
    ValueError, match=f'was trained with {name}, .* free hand {FREE_HAND_VERSION}'
  ):
    load_run_model(tmp_path)


def test_missing_and_damaged_records_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'config.json .*holds no training run'):
    load_run_model(tmp_path)
  claim_workdir(str(tmp_path), get_config('toy'))
  with pytest.raises(FileNotFoundError, match=r'hand_model.json is missing.*continue the run'):
    load_run_model(tmp_path)
  (tmp_path / 'hand_model.json').write_text('{')
  with pytest.raises(ValueError, match=r'hand_model.json cannot be read'):
    load_run_model(tmp_path)


@pytest.mark.parametrize(
  ('dataset', 'tips'),
  [
    ('freihand', [744, 320, 443, 555, 672]),
    ('ho3d_v2', [744, 333, 444, 555, 672]),
    ('ho3d_v3', [744, 333, 444, 555, 672]),
  ],
)
def test_data_labelled_with_mano_need_it_and_bring_their_fingertips(
  dataset, tips, mano_dir, tmp_path
):
  with pytest.raises(ValueError, match=rf'^{dataset} is labelled .*--mano_dir or \$MANO_DIR'):
    load_training_model(dataset, None)
  model = load_training_model(dataset, mano_dir)
  assert model.fingertip_vertices.tolist() == tips
  claim_hand_model(tmp_path, model)
  found = load_run_model(tmp_path, mano_dir)
  assert found.fingertip_vertices.tolist() == tips and same(found, model)
