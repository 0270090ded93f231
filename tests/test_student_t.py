"""Student's t against quadrature, sampled mixtures of Gaussians, and the Gaussian as its limit."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from hand_jax import student_t

DEGREES = [1.5, 3.66, 12.0]
NORMAL = scipy.stats.norm


@pytest.mark.parametrize('degrees', DEGREES)
@pytest.mark.parametrize('level', [0.5, NORMAL.cdf(1) - NORMAL.cdf(-1), 0.95])
def test_an_interval_holds_its_share_of_a_gaussian_with_uncertain_scale(degrees, level):
  """The share by quadrature over the precision, whose distribution is gamma."""
  sigma = 2.0
  width = sigma * student_t.interval_in_sigmas(level, degrees)
  scale = sigma / student_t.sigmas_per_scale(degrees)
  precision = scipy.stats.gamma(degrees / 2, scale=2 / degrees)

  def inside(share):
    root = np.sqrt(precision.ppf(share))
    return NORMAL.cdf(width * root / scale) - NORMAL.cdf(-width * root / scale)

  assert scipy.integrate.quad(inside, 0, 1)[0] == pytest.approx(level, abs=1e-5)


def test_one_sigma_is_half_of_the_68_percent_interval():
  for degrees in (*DEGREES, np.inf):
    share = NORMAL.cdf(1) - NORMAL.cdf(-1)
    assert student_t.interval_in_sigmas(share, degrees) == pytest.approx(1)
  assert student_t.interval_in_sigmas(0.95, np.inf) == pytest.approx(1.959964)
  assert student_t.interval_in_sigmas(0.95, 3.66) > 2.4


@pytest.mark.parametrize('level', [0.0, 1.0, 95.0, -0.1, float('nan')])
def test_a_level_that_is_no_share_is_refused(level):
  with pytest.raises(ValueError, match='level: expected a share between 0 and 1'):
    student_t.interval_in_sigmas(level, 3.7)


@pytest.mark.parametrize('degrees', DEGREES)
@pytest.mark.parametrize(('error', 'sigma'), [(0.0, 1.0), (1.7, 0.6), (-4.0, 2.5)])
def test_scores_match_quadrature(degrees, error, sigma):
  scale = sigma / student_t.sigmas_per_scale(degrees)
  law = scipy.stats.t(degrees, scale=scale)
  value = student_t.negative_log_density(np.array([error]), np.array([sigma]), degrees)
  np.testing.assert_allclose(value, -np.log(law.pdf(error)), rtol=1e-9)
  below = scipy.integrate.quad(lambda x: law.cdf(x) ** 2, -np.inf, error)[0]
  above = scipy.integrate.quad(lambda x: law.sf(x) ** 2, error, np.inf)[0]
  found = student_t.ranked_probability_score(np.array([error]), np.array([sigma]), degrees)
  np.testing.assert_allclose(found, below + above, rtol=1e-5)


def test_many_degrees_of_freedom_tend_to_the_gaussian():
  error, sigma = np.linspace(-3, 3, 7), np.full(7, 1.3)
  for score in (student_t.negative_log_density, student_t.ranked_probability_score):
    np.testing.assert_allclose(
      score(error, sigma, 1e6), score(error, sigma, np.inf), rtol=1e-4, atol=1e-6
    )
  for level in (0.68, 0.95):
    for width in (student_t.interval_in_sigmas, student_t.ellipsoid_in_sigmas):
      assert width(level, 1e6) == pytest.approx(width(level, np.inf), rel=1e-4)
