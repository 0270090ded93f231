"""The figures of a results file: their keys, what is undefined, and how they read as text."""

import json

import numpy as np
import pytest

from hand_jax.evaluation import calibration, ranking
from hand_jax.evaluation.uncertainty import (
  FRAMES,
  Names,
  PointErrors,
  stacked,
  uncertainty_figures,
  uncertainty_table,
)

NAMES = Names('photos', 'joints')
ALWAYS = {'photos', 'coordinates', 'ence_bins'}


def made_up(examples=8, points=5, seed=0):
  rng = np.random.default_rng(seed)
  sigma = rng.uniform(1, 4, (examples, points, 3)) * rng.uniform(0.5, 3, (examples, 1, 1))
  error = rng.normal(size=sigma.shape) * sigma
  return PointErrors(error, sigma, np.sqrt((sigma**2).mean(-1)))


def test_figures_are_those_of_the_single_functions():
  errors = made_up()
  figures = uncertainty_figures(errors, NAMES)
  error, sigma, stated = errors
  lengths = np.linalg.norm(error, axis=-1)
  assert (figures['photos'], figures['coordinates'], figures['ence_bins']) == (8, 120, 10)
  assert figures['mean_error_mm'] == pytest.approx(lengths.mean())
  assert figures['mean_sigma_mm'] == pytest.approx(stated.mean())
  assert figures['nll'] == calibration.mean_nll(error, sigma)
  assert figures['crps_mm'] == calibration.mean_crps(error, sigma)
  covered = calibration.coverage(error, sigma, 0.95)
  assert figures['coverage_95'] == covered.coordinates
  assert figures['coverage_95_axes'] == covered.axes.tolist()
  assert figures['coverage_95_points'] == covered.points
  by_photo = ranking.risk_coverage(stated.mean(1), lengths.mean(1))
  by_joint = ranking.risk_coverage(stated.ravel(), lengths.ravel())
  assert figures['ause_photos'] == pytest.approx(ranking.sparsification_error(by_photo))
  assert figures['ause_joints'] == pytest.approx(ranking.sparsification_error(by_joint))
  assert figures['ause_joints_constant'] == pytest.approx(
    ranking.uninformative_sparsification_error(by_joint)
  )
  interval = ranking.spearman_interval(stated.mean(1), lengths.mean(1))
  assert figures['spearman_photos_interval'] == pytest.approx(list(interval))
  assert figures['spearman_within_joints'] == ranking.spearman_within_points(stated, lengths)
  assert figures['curves']['risk_coverage']['error_mm'][-1] == pytest.approx(
    lengths.mean(), abs=1e-5
  )
  assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_keys_are_the_same_with_and_without_errors():
  figures = uncertainty_figures(made_up(), NAMES)
  nothing = uncertainty_figures(None, NAMES)
  assert list(figures) == list(nothing)
  assert {key for key, value in nothing.items() if value is not None} == ALWAYS
  assert 'ause_vertices' in uncertainty_figures(None, Names('examples', 'vertices'))


def test_one_example_has_sizes_and_no_ranks_of_examples():
  figures = uncertainty_figures(made_up(1), NAMES)
  undefined = {key for key, value in figures.items() if value is None}
  assert undefined == {
    *('ause_photos', 'ause_photos_constant', 'spearman_photos', 'spearman_photos_interval'),
    'spearman_within_joints',
  }
  assert figures['curves']['risk_coverage']['shares'] == [1.0]


def test_a_constant_sigma_has_no_rank_correlation_and_the_ause_of_one():
  errors = made_up()
  ones = np.ones_like(errors.sigma)
  figures = uncertainty_figures(errors._replace(sigma=ones, stated_sigma=ones[..., 0]), NAMES)
  assert figures['spearman_photos'] is None and figures['spearman_photos_interval'] is None
  assert figures['spearman_within_joints'] == 0
  assert figures['ause_photos'] == pytest.approx(figures['ause_photos_constant'])
  assert len(figures['curves']['bins']['counts']) == 1


def test_unknown_points_are_left_out_and_points_without_sigma_count_in_the_error_alone():
  errors = made_up()
  expected = uncertainty_figures(errors, NAMES)
  wider = PointErrors(*(np.concatenate([field, field[:, :1]], axis=1) for field in errors))
  unknown = wider._replace(error=wider.error.copy(), stated_sigma=wider.stated_sigma.copy())
  unknown.error[:, -1] = np.nan
  # Keeps the mean of what is stated for an example.
  unknown.stated_sigma[:, -1] = errors.stated_sigma.mean(1)
  found = uncertainty_figures(unknown, NAMES)
  curves = found.pop('curves'), expected.pop('curves')
  for key, value in expected.items():
    assert found[key] == pytest.approx(value), key
  assert curves[0]['reliability'] == curves[1]['reliability']
  unstated = unknown._replace(error=wider.error, sigma=wider.sigma.copy())
  unstated.sigma[:, -1] = np.nan
  found = uncertainty_figures(unstated, NAMES)
  for key in ('coordinates', 'nll', 'coverage_68', 'ence', 'ause_joints', 'spearman_within_joints'):
    assert found[key] == pytest.approx(expected[key])
  assert found['ause_photos'] != expected['ause_photos']


def test_what_ranks_is_the_sigma_as_it_is_stated():
  """Sigma in the scale of the truth is a figure of size: a user does not know that scale."""
  errors = made_up()
  scale = np.linspace(0.1, 4, 8)[:, None, None]
  scaled = uncertainty_figures(errors._replace(sigma=scale * errors.sigma), NAMES)
  expected = uncertainty_figures(errors, NAMES)
  for key in ('spearman_photos', 'ause_photos', 'ause_joints', 'spearman_within_joints'):
    assert scaled[key] == expected[key]
  assert scaled['nll'] != expected['nll']


def test_the_curve_of_many_examples_is_kept_at_twenty_shares():
  errors = made_up(50)
  curve = uncertainty_figures(errors, NAMES)['curves']['risk_coverage']
  np.testing.assert_allclose(curve['shares'], np.linspace(0.06, 1, 20), atol=0.011)
  assert curve['shares'][-1] == 1 and len(curve['error_mm']) == len(curve['oracle_mm']) == 20
  whole = ranking.risk_coverage(
    errors.stated_sigma.mean(1), np.linalg.norm(errors.error, axis=-1).mean(1)
  )
  for share, error in zip(curve['shares'], curve['error_mm'], strict=True):
    assert error == pytest.approx(whole.risk[round(50 * share) - 1], abs=1e-5)


def test_an_example_without_any_error_is_refused():
  errors = made_up()
  errors.error[2] = np.nan
  with pytest.raises(ValueError, match='an example without any known point'):
    uncertainty_figures(errors, NAMES)


def test_single_examples_are_stacked():
  errors = made_up()
  rows = [PointErrors(*(field[row] for field in errors)) for row in range(8)]
  together = stacked([None, *rows, None])
  for found, expected in zip(together, errors, strict=True):
    np.testing.assert_array_equal(found, expected)
  assert stacked([]) is None and stacked([None]) is None


def test_the_table_has_a_column_for_each_frame_with_figures():
  first, second = (uncertainty_figures(made_up(seed=seed), NAMES) for seed in (0, 1))
  uncertainty = {'root_relative': first, 'aligned': second}
  lines = uncertainty_table(uncertainty, NAMES)
  assert lines[0].split()[-2:] == ['root-relative', 'aligned']
  rows = {line[:26].strip(): line[26:].split() for line in lines}
  assert rows['NLL [nats, mm]'] == [f'{first["nll"]:.3f}', f'{second["nll"]:.3f}']
  assert rows['points inside 95 %'][1] == f'{second["coverage_95_points"]:.1%}'
  low, high = first['spearman_photos_interval']
  assert rows['95 % interval'][:3] == [f'{low:.2f}', 'to', f'{high:.2f}']
  nothing = uncertainty_figures(None, NAMES)
  assert uncertainty_table({'root_relative': nothing, 'aligned': nothing}, NAMES) == []
  alone = uncertainty_table({'root_relative': nothing, 'aligned': second}, NAMES)
  assert 'root-relative' not in alone[0] and FRAMES['aligned'] in alone[0]
  one = uncertainty_table({'aligned': uncertainty_figures(made_up(1), NAMES)}, NAMES)
  assert any(line.startswith('AUSE by photo') and line.endswith(' -') for line in one)
  vertices = Names('examples', 'vertices')
  named = uncertainty_table({'aligned': uncertainty_figures(made_up(), vertices)}, vertices)
  assert any(line.startswith('AUSE by vertex ') for line in named)
