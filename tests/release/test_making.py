"""The stages of a release: what each hands on, what is kept, and what the card says."""

import json

import jax
import numpy as np
import pytest

from hand_jax.fitting.released_weights import Release, load_release, read_release
from hand_jax.mano.assets import hand_model_name, load_mano_model
from hand_jax.release import errors, making
from hand_jax.release.fitted import FittedHands
from hand_jax.release.heads import HeadSettings
from tests.release.test_heads import made_up


@pytest.fixture
def plan():
  settings = HeadSettings(epochs=1, scale_epochs=1, batch_size=16, max_landmark_error=10.0)
  plan = making.release_plan(1e-3, test_hands=3)
  enough = tuple(part._replace(count=30) for part in plan.calibration)
  return plan._replace(heads=settings, prior_samples=200, calibration=enough)


def fitted(count, release: Release):
  rng = np.random.default_rng(count)
  sigma = np.asarray(release.calibration.vertex_factor)[None, :, None] * np.ones((count, 778, 3))
  return FittedHands(
    2 * rng.normal(size=(count, 778, 3)), sigma, 2 * rng.normal(size=(count, 21, 3)),
    np.ones((count, 21, 3)), np.ones((count, 21)), np.full((count, 21), 7.0), np.zeros(count),
  )  # fmt: skip


def test_every_stage_is_made_once_and_the_card_tells_of_it(plan, tmp_path, monkeypatch):
  made = []

  def read(part, folder, report):
    made.append(f'read {part.split}')
    return made_up(48, part.seed, noise=0.01)

  def fit(model, release, part):
    made.append(f'fit {part.split}')
    return fitted(200, release)

  monkeypatch.setattr(making, 'read_plan', read)
  monkeypatch.setattr(making, 'fit_rendered', fit)
  release = making.make_release(plan, tmp_path, commit='abc')
  assert made == ['read train', 'read train', 'read validation', 'read validation'] + [
    f'fit {split}' for split in ('validation', 'validation', 'test', 'test_broad', 'test_mismatch')
  ]
  again = making.make_release(plan, tmp_path, commit='other')
  assert len(made) == 9 and again.card == release.card
  # Errors are twice the fit's sigma; calibrated, they are its size.
  np.testing.assert_allclose(release.calibration.vertex_factor, 2, rtol=0.02)
  card = release.card
  assert card['commit'] == 'abc' and card['hand_model'] == hand_model_name(load_mano_model())
  assert card['chosen_on_real_photos_mm'] == {'image': 3.0, 'world': 9.0, 'heads': 9.0}
  assert card['before_calibration']['coverage_95'] < 0.75
  assert card['after_calibration']['coverage_95'] == pytest.approx(0.95, abs=0.02)
  assert 'calibration_commit' not in card
  assert list(card['hours']) == ['heads', 'calibration', 'measurement']
  assert card['renders']['test']['coverage_95'] == pytest.approx(0.95, abs=0.02)
  assert card['renders']['test']['pa_mpjpe_mm'] == 7.0
  assert 'dark skin' in ' '.join(card['limits'])
  assert json.loads((tmp_path / 'release_card.json').read_text()) == card
  # The errors of each kind have the chosen size, spread over the joints.
  for kind, size in plan.sizes._asdict().items():
    found = np.asarray(getattr(release.errors, kind))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(size, rel=1e-5)


def test_trained_heads_can_be_calibrated_again(plan, tmp_path, monkeypatch):
  """Nothing is read or trained, and the old calibration does not count."""
  monkeypatch.setattr(making, 'read_plan', lambda part, *_: pytest.fail('it reads'))
  monkeypatch.setattr(making, 'fit_rendered', lambda model, release, part: fitted(200, release))
  bundled = load_release()
  release = making.make_release(plan, tmp_path, 'new', trained=bundled)
  np.testing.assert_allclose(release.calibration.vertex_factor, 2, rtol=0.02)
  assert release.card['commit'] == bundled.card['commit']
  assert release.card['calibration_commit'] == 'new'
  # The folder's results are no results of a whole pass, and the other way round.
  with pytest.raises(ValueError, match='stages of another plan'):
    making.make_release(plan, tmp_path)
  for name in ('errors', 'prior'):
    for found, expected in zip(getattr(release, name), getattr(bundled, name), strict=True):
      np.testing.assert_array_equal(found, expected)
  for found, expected in zip(
    jax.tree.leaves(release.heads), jax.tree.leaves(bundled.heads), strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_a_stopped_stage_leaves_nothing_and_the_others_stay(plan, tmp_path, monkeypatch):
  monkeypatch.setattr(making, 'read_plan', lambda part, *_: made_up(48, part.seed, noise=0.01))

  def fail(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(making, 'fit_rendered', fail)
  with pytest.raises(KeyboardInterrupt):
    making.make_release(plan, tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['heads.npz', 'plan.json']
  other = plan._replace(heads=plan.heads._replace(epochs=2))
  with pytest.raises(ValueError, match=r'stages of another plan.*another --workdir'):
    making.make_release(other, tmp_path)


def test_too_few_hands_are_refused_before_a_stage_is_written(plan, tmp_path, monkeypatch):
  monkeypatch.setattr(making, 'read_plan', lambda part, *_: made_up(8, part.seed, noise=0.01))
  with pytest.raises(ValueError, match=r'16 crops to train on are too few.*two batches of 16'):
    making.make_release(plan, tmp_path / 'a')
  monkeypatch.setattr(making, 'read_plan', lambda part, *_: made_up(48, part.seed, noise=0.01))
  few = plan._replace(calibration=plan.calibration[:1])
  with pytest.raises(
    ValueError, match='30 hands to calibrate on are too few: expected at least 50'
  ):
    making.make_release(few, tmp_path / 'b')
  assert not (tmp_path / 'b' / 'calibrated.npz').exists()


def test_no_hand_is_in_two_parts_of_the_plan():
  plan = making.release_plan()
  parts = [*plan.learned, *plan.held_out, *plan.calibration, *plan.measured.values()]
  names = [(part.split, part.seed, part.hands) for part in parts]
  assert len(set(names)) == len(names)
  assert not {(p.split, p.seed) for p in plan.measured.values()} & {
    (p.split, p.seed) for p in (*plan.learned, *plan.held_out, *plan.calibration)
  }


def test_shapes_of_errors_are_of_each_joint():
  read = made_up(64, 0, noise=0.01)
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(64, 21, 3))
  noise[:, 8] *= 3
  moved = read.joints_camera + np.float32(0.002 * noise)
  heads = errors.JointEstimate(moved, np.zeros(64))
  shapes = errors.error_shapes(read._replace(world=moved), heads)
  for shape in (shapes.world, shapes.heads):
    assert np.sqrt(np.mean(shape**2)) == pytest.approx(1)
    # The alignment takes a part of what one joint alone is off.
    assert 2 < shape[8] / np.delete(shape, 8).mean() < 3.2


@pytest.mark.slow
def test_the_prior_has_the_moments_of_the_sampler():
  prior = errors.pose_prior('broad', 4000, 0, 1.0)
  other = errors.pose_prior('broad', 4000, 1, 1.0)
  covariance = prior.pose_factor @ prior.pose_factor.T
  deviation = np.sqrt(np.diag(covariance))
  assert deviation.min() >= 2.0
  np.testing.assert_allclose(other.pose_mean, prior.pose_mean, atol=2.5)
  np.testing.assert_allclose(
    np.sqrt(np.diag(other.pose_factor @ other.pose_factor.T)), deviation, rtol=0.1
  )
  # Outer joints of a finger bend together.
  index_pip, index_dip = 3, 6
  assert covariance[index_pip, index_dip] > 0.6 * deviation[index_pip] * deviation[index_dip]


def test_a_file_of_other_arrays_is_refused(tmp_path):
  np.savez(tmp_path / 'other.npz', a=np.zeros(3))
  with pytest.raises(ValueError, match='no file of released weights'):
    read_release(tmp_path / 'other.npz')
