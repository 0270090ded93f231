"""Plots of uncertainty: what they draw, where they go, and which files they never replace."""

import numpy as np
import pytest
from PIL import Image

from hand_jax.evaluation.plotting import is_own_picture, write_png
from hand_jax.evaluation.uncertainty import Names, PointErrors, uncertainty_figures
from hand_jax.evaluation.uncertainty_plots import (
  draw_reliability,
  draw_risk_coverage,
  plot_paths,
  write_uncertainty_plots,
)
from hand_jax.files.outputs import Output, check_outputs

NAMES = Names('photos', 'joints')


def figures(seed=0, examples=30):
  rng = np.random.default_rng(seed)
  sigma = rng.uniform(1, 4, (examples, 6, 3))
  return uncertainty_figures(
    PointErrors(rng.normal(size=sigma.shape) * sigma, sigma, np.sqrt((sigma**2).mean(-1))), NAMES
  )


def lines_of(axes):
  return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_the_reliability_plot_draws_the_curves_of_the_figures():
  curves = {
    frame: figures(seed)['curves'] for seed, frame in enumerate(('root_relative', 'aligned'))
  }
  shares, sizes = draw_reliability(curves).get_axes()
  for name, frame in (('root-relative', 'root_relative'), ('aligned', 'aligned')):
    levels, bins = curves[frame]['reliability'], curves[frame]['bins']
    drawn = lines_of(shares)[name]
    np.testing.assert_allclose(drawn[:, 0], 100 * np.array(levels['levels']))
    np.testing.assert_allclose(drawn[:, 1], 100 * np.array(levels['shares']))
    drawn = lines_of(sizes)[name]
    np.testing.assert_allclose(drawn.T, [bins['rms_sigma_mm'], bins['rms_error_mm']])
  assert lines_of(shares)['right size'].tolist() == [[0, 0], [100, 100]]
  diagonal = lines_of(sizes)['right size']
  np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
  assert sizes.get_xlim()[1] > drawn[:, 0].max() and sizes.get_ylim()[1] > drawn[:, 1].max()


def test_the_risk_coverage_plot_has_a_panel_for_each_frame():
  curves = {'root_relative': figures()['curves'], 'aligned': figures(1, examples=1)['curves']}
  first, second = draw_risk_coverage(curves, 'photos').get_axes()
  risk = curves['root_relative']['risk_coverage']
  drawn = lines_of(first)
  np.testing.assert_allclose(drawn['by sigma'][:, 0], 100 * np.array(risk['shares']))
  np.testing.assert_allclose(drawn['by sigma'][:, 1], risk['error_mm'])
  np.testing.assert_allclose(drawn['by the true error (best possible)'][:, 1], risk['oracle_mm'])
  assert drawn['by chance'][0, 1] == risk['error_mm'][-1]
  assert (first.get_title('left'), second.get_title('left')) == ('root-relative', 'aligned')
  assert 'photos' in first.get_xlabel() and len(lines_of(second)['by sigma']) == 1


def test_plots_lie_beside_the_results(tmp_path):
  results = tmp_path / 'new' / 'scores.v2.json'
  paths = write_uncertainty_plots(results, {'branch': 'prior', 'aligned': figures()}, 'photos')
  assert paths == list(plot_paths(results))
  assert [path.name for path in paths] == [
    'scores.v2_reliability.png',
    'scores.v2_risk_coverage.png',
  ]
  for path in paths:
    with Image.open(path) as picture:
      assert picture.format == 'PNG' and min(picture.size) > 300
      assert np.ptp(np.asarray(picture.convert('L'))) > 100
  assert sorted(tmp_path.glob('new/*')) == sorted(paths)


def test_without_figures_there_is_no_plot(tmp_path):
  nothing = uncertainty_figures(None, NAMES)
  assert write_uncertainty_plots(tmp_path / 'a.json', {'aligned': nothing}, 'photos') == []
  assert write_uncertainty_plots(tmp_path / 'a.json', {'across_examples': 0.1}, 'photos') == []
  sizeless = figures() | {'curves': figures()['curves'] | {'reliability': None, 'bins': None}}
  written = write_uncertainty_plots(tmp_path / 'a.json', {'aligned': sizeless}, 'photos')
  assert [path.name for path in written] == ['a_risk_coverage.png']


def test_only_our_own_plots_are_replaced(tmp_path):
  own, photo, text = (tmp_path / name for name in ('own.png', 'photo.png', 'text.png'))
  write_png(own, draw_reliability({'aligned': figures()['curves']}))

  def check(*paths):
    check_outputs([Output('--output', path, is_own_picture) for path in paths])

  check(own, tmp_path / 'missing.png')
  Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photo)
  text.write_text('not a picture')
  (tmp_path / 'folder.png').mkdir()
  (tmp_path / 'link.png').symlink_to(tmp_path / 'nowhere')
  for name in ('photo', 'text', 'folder', 'link'):
    with pytest.raises(OSError, match=rf'{name}\.png (exists and|is a folder).*another --output'):
      check(own, tmp_path / f'{name}.png')
