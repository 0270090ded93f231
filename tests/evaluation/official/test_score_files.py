"""Official scores of prediction files and of runs on benchmarks, and submissions."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.configs.names import get_config
from hand_jax.data import manifests, prepared
from hand_jax.evaluation import evaluate_run
from hand_jax.evaluation.official import submission_checks
from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.evaluation.official.score_files import (
  evaluate_predictions,
  official_summary,
  publish_scores,
  write_curves,
)
from hand_jax.evaluation.official.submission_checks import check_split_is_whole, submission_size
from hand_jax.evaluation.results_text import results_summary
from hand_jax.examples import without_3d
from hand_jax.mano.assets import load_mano_model
from hand_jax.preparing.building import prepare
from tests.drawn_hands import DrawnSource
from tests.evaluation.test_evaluate_run import evaluate, save_run
from tests.reference import official as naive

sys.path.insert(0, str(Path(__file__).parents[2] / 'datasets'))

from synthetic_hands.synthetic_hands_dataset_builder import SyntheticHands

FREIHAND, HO3D = BENCHMARKS['freihand'], BENCHMARKS['ho3d_v2']
COUNTS = {'train': 3, 'test': 6, 'root_only': 3, 'photos': 2}


def write_lists(path, *lists):
  path.write_text(json.dumps([np.asarray(points).tolist() for points in lists]))
  return str(path)


def write_files(folder):
  """Writes predictions and their ground truth; returns their paths and all four arrays."""
  rng = np.random.default_rng(0)
  place = rng.normal(size=(5, 1, 3)) * 0.05 + [0, 0, 0.7]
  truth = [place + rng.normal(size=(5, points, 3)) * 0.04 for points in (21, 40)]
  predicted = [points + 0.01 * rng.normal(size=points.shape) for points in truth]
  (folder / 'evaluation_xyz.json').write_text(json.dumps(truth[0].tolist()))
  (folder / 'evaluation_verts.json').write_text(json.dumps(truth[1].tolist()))
  return write_lists(folder / 'pred.json', *predicted), str(folder), *predicted, *truth


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """A prediction file, its ground truth's folder, and all four arrays."""
  return write_files(tmp_path_factory.mktemp('files'))


@pytest.mark.parametrize('dataset', ['freihand', 'ho3d_v2', 'ho3d_v3'])
def test_scores_of_a_file_equal_the_naive_loops(dataset, files):
  predictions, ground_truth, *points = files
  scores = evaluate_predictions(
    predictions, dataset, ground_truth, '3 crops', allow_implausible=True
  )
  for name, value in naive.evaluate(*points, ho3d=dataset != 'freihand').items():
    assert scores[name] == pytest.approx(value, abs=1e-9), name
  assert {'strict_xyz_al_mean3d', 'strict_mesh_al_auc3d'} <= set(scores['strict'])
  assert not any(name.startswith('strict_') for name in scores)
  assert scores['test_time_augmentation'] == '3 crops'
  assert 'test-time augmentation: 3 crops' in official_summary(scores)


def test_joints_alone_have_the_figures_of_joints(files, tmp_path):
  predictions, ground_truth, joints, *_ = files
  expected = evaluate_predictions(predictions, 'freihand', ground_truth)
  (tmp_path / 'pred.json').write_text(json.dumps([joints.tolist()]))
  scores = evaluate_predictions(str(tmp_path / 'pred.json'), 'freihand', ground_truth)
  for name in (name for name in expected if name.startswith(('xyz', 'mesh', 'f_'))):
    assert scores[name] == (expected[name] if name.startswith('xyz') else -1), name
  assert set(scores['pck']) == {'xyz', 'xyz_al', 'strict_xyz_al'}
  assert 'mesh not measured: there are joints alone' in official_summary(scores)
  assert 'joints alone' not in official_summary(expected)


def test_progress_counts_samples(files):
  counts = []
  evaluate_predictions(files[0], 'freihand', files[1], report=counts.append)
  assert counts == [5]


def test_scores_that_there_are_not_can_be_written_nowhere(tmp_path):
  assert list(publish_scores('synthetic_hands', None, None, None)) == []
  for output, pck in ((str(tmp_path / 'a.json'), None), (None, str(tmp_path / 'pck'))):
    with pytest.raises(ValueError, match=r'official scores; synthetic_hands has none, or no lab'):
      list(publish_scores('synthetic_hands', None, output, pck))
  assert list(tmp_path.iterdir()) == []


def test_other_data_sets_have_no_official_scores(files):
  with pytest.raises(ValueError, match="one of freihand, ho3d_v2, ho3d_v3, not 'synthetic_hands'"):
    evaluate_predictions(files[0], 'synthetic_hands', files[1])


# A run, measured as a benchmark: drawn hands stand in for its data set.


def root_only(example):
  """As HO3D's evaluation frames without labels: the wrist and a box."""
  joints = np.tile(example.joints_camera[:1], (21, 1))
  return example._replace(
    joints_camera=joints,
    joint_confidence=np.zeros(21, np.float32),
    vertices_camera=None,
    global_orient=None,
    hand_mask=None,
  )


@pytest.fixture(scope='module')
def benchmark_data(tmp_path_factory):
  """The prepared data set's folder, and the drawn examples of its splits."""
  tfds.disable_progress_bar()
  folder = tmp_path_factory.mktemp('prepared')
  sources = {
    split: DrawnSource(load_mano_model(), count, size=64, seed=index)
    for index, (split, count) in enumerate(COUNTS.items())
  }

  def render(seed, split, indices, image_size, hands):
    del seed, image_size
    change = {'root_only': root_only, 'photos': without_3d}.get(split, lambda example: example)
    return [change(example) for example in sources[split].load(indices)]

  prepare(SyntheticHands, folder, {'examples': COUNTS, 'image_size': 64, 'seed': 0}, render=render)
  return str(folder), {name: source.load(range(len(source))) for name, source in sources.items()}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('run'), get_config('toy'))


@pytest.fixture(autouse=True)
def drawn_benchmarks(monkeypatch):
  """The benchmarks' readers are other files' matter: drawn hands are read in their place."""
  for name in ('freihand', 'ho3d_v2'):
    monkeypatch.setitem(manifests._TFDS_NAMES, name, 'synthetic_hands')


@pytest.mark.slow
@pytest.mark.parametrize('dataset', ['freihand', 'ho3d_v2'])
def test_a_run_has_the_scores_of_its_submission(dataset, workdir, benchmark_data, tmp_path):
  """Our own labels as the ground truth's files: both ways to the figures agree."""
  data_dir, examples = benchmark_data
  path = tmp_path / 'pred.zip'
  results, written = evaluate(
    workdir, dataset, data_dir=data_dir, mean_hand_examples=2, submission=str(path)
  )
  assert written.name == f'{dataset}-test.json'
  assert json.loads(written.read_text()) == results
  assert results['split'] == 'test' and results['examples'] == COUNTS['test']
  assert 'posterior' in results and 'mean_hand' in results

  signs, order = np.ones(3), range(21)
  if dataset == 'ho3d_v2':
    signs, order = (
      np.array([1, -1, -1]),
      [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4],
    )
    order = [*order, 8, 12, 16, 20]
  labels = examples['test']
  truth = [[(e.joints_camera[list(order)] * signs).tolist() for e in labels]]
  truth.append([(e.vertices_camera * signs).tolist() for e in labels])
  (tmp_path / 'evaluation_xyz.json').write_text(json.dumps(truth[0]))
  (tmp_path / 'evaluation_verts.json').write_text(json.dumps(truth[1]))
  scores = evaluate_predictions(str(path), dataset, str(tmp_path))
  for name, value in results['official'].items():
    if name.startswith(('xyz', 'mesh', 'f_')):
      assert scores[name] == pytest.approx(value, abs=1e-6), name
  assert scores['strict'] == pytest.approx(results['official']['strict'], abs=1e-6)
  assert scores['samples'] == results['official']['samples'] == COUNTS['test']
  # Ours, about the wrist, in other words: the same alignment of the same meshes.
  ours = results['posterior']['pa_mpvpe_mm']
  assert results['official']['strict']['strict_mesh_al_mean3d'] == pytest.approx(
    ours / 10, rel=1e-4
  )
  # The given root places HO3D's hands; FreiHAND's would be the ground truth itself.
  with zipfile.ZipFile(path) as archive:
    wrists = np.array(json.loads(archive.read('pred.json'))[0])[:, 0]
  errors = np.linalg.norm(wrists - np.array(truth[0])[:, 0], axis=1)
  assert (errors < 1e-6).all() if dataset == 'ho3d_v2' else (errors > 1e-3).all()
  write_curves(str(tmp_path / 'pck'), results['official'])
  assert (tmp_path / 'pck' / 'pck.png').exists()


@pytest.mark.slow
def test_turned_crops_are_named_beside_official_scores(workdir, benchmark_data):
  results, path = evaluate(
    workdir, 'freihand', data_dir=benchmark_data[0], mean_hand_examples=2, turns=2
  )
  assert path.name == 'freihand-test-2_turns.json'
  scores = results['official']
  assert scores['test_time_augmentation'].startswith('mean over 2 turns')
  assert scores['test_time_augmentation'] in official_summary(scores)


@pytest.mark.slow
def test_frames_with_nothing_but_a_root_make_a_submission(
  workdir, benchmark_data, tmp_path, monkeypatch
):
  data_dir, _ = benchmark_data
  path = tmp_path / 'pred.json'
  monkeypatch.setattr(submission_checks, 'EVALUATION_SPLIT', 'root_only')
  results, _ = evaluate(
    workdir, 'ho3d_v2', 'root_only', data_dir, mean_hand_examples=2, submission=str(path)
  )
  joints, vertices = json.loads(path.read_text())
  assert np.shape(joints) == (3, 21, 3) and np.shape(vertices) == (3, 778, 3)
  assert results['examples'] == 0 and 'official' not in results
  assert 'has labels: there is nothing to measure' in results_summary(results)


def test_a_photo_without_intrinsics_cannot_be_placed(workdir, benchmark_data):
  with pytest.raises(
    ValueError, match=r"'drawn-0' cannot be placed in camera space: it has no cam"
  ):
    evaluate(workdir, 'freihand', 'photos', benchmark_data[0], mean_hand_examples=2)


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda manifest: manifest['skipped'].update(
        test={'count': 3, 'examples': {'evaluation/SM1/0004': 'rgb/0004.png is missing'}}
      ),
      r"pred\.zip cannot be made: 3 examples of split 'test' were left out when "
      r'ho3d_v2 was prepared '
      r'\(the first, evaluation/SM1/0004: rgb/0004\.png is missing\).* repair .* prepare ho3d_v2 '
      r'again\.$',
    ),
    (
      lambda manifest: manifest['settings'].update(limit=6),
      r'pred\.zip cannot be made: ho3d_v2 was prepared with --limit=6.*: remove .*'
      r'/3\.0\.0 and prepare ho3d_v2 again without --limit',
    ),
    (lambda manifest: manifest.pop('settings'), r'manifest\.json is missing or cannot be read'),
  ],
)
def test_a_split_with_gaps_makes_no_submission(
  change, message, workdir, benchmark_data, tmp_path, monkeypatch
):
  """One photo left out would put every later prediction in another's place."""
  data_dir = shutil.copytree(benchmark_data[0], tmp_path / 'prepared')
  (path,) = data_dir.rglob('manifest.json')
  manifest = {'skipped': {'train': {'count': 9, 'examples': {'x': 'broken'}}}} | json.loads(
    path.read_text()
  )
  manifest['settings']['limit'] = 0
  submission = str(tmp_path / 'pred.zip')
  path.write_text(json.dumps(manifest))
  # What was left out of another split does not matter.
  found = prepared.prepared_manifest('ho3d_v2', str(data_dir))
  check_split_is_whole(submission, 'ho3d_v2', 'test', *found)
  change(manifest)
  path.write_text(json.dumps(manifest))
  monkeypatch.setattr(evaluate_run, 'make_estimate_fn', None)  # before anything is measured
  with pytest.raises(ValueError, match=message) as error:
    evaluate(workdir, 'ho3d_v2', data_dir=str(data_dir), submission=submission)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'pred.zip').exists()


def test_a_submission_of_another_size_than_the_servers_is_announced():
  assert submission_size({'dataset': 'freihand', 'submitted': 3960}) == '3960 samples'
  text = submission_size({'dataset': 'ho3d_v3', 'submitted': 2})
  assert text.startswith('2 samples, which the server will not take') and text.endswith('20137')


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'dataset': 'synthetic_hands'}, '--dataset=synthetic_hands has none'),
    ({'split': 'train'}, r"evaluation split, which is 'test' here: leave --split=train out"),
    ({'limit': 2}, r'every example of the split: leave --limit=2 out'),
    ({'submission': 'pred.npz'}, r'pred\.npz: expected a name that ends in \.json or \.zip'),
  ],
)
def test_a_submission_that_cannot_be_is_refused_before_measuring(settings, message):
  settings = {'dataset': 'freihand', 'submission': 'pred.zip', 'limit': 0} | settings
  with pytest.raises(ValueError, match=message):
    evaluate('nowhere', **settings)
