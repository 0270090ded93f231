"""The paper's losses as plain loops over numbers (supplementary eqs. 4 to 19): slow, obvious."""

import math

import numpy as np


def nll(value, mean, sigma):
  """Eq. 4 with sigma a standard deviation, summed over coordinates."""
  total = 0.0
  for x, m, s in zip(np.ravel(value), np.ravel(mean), np.ravel(sigma), strict=True):
    total += 0.5 * ((x - m) / s) ** 2 + math.log(math.sqrt(2 * math.pi) * s)
  return total


def kl_letter(mean_q, sigma_q, mean_p, sigma_p):
  """Eq. 5 as printed: its sigmas stand where a KL has variances."""
  log_product, dimension, total = 0.0, 0, 0.0
  for mq, sq, mp, sp in zip(
    np.ravel(mean_q), np.ravel(sigma_q), np.ravel(mean_p), np.ravel(sigma_p), strict=True
  ):
    log_product += math.log(sp / sq)
    dimension += 1
    total += (sq + (mp - mq) ** 2) / sp
  return 0.5 * (log_product - dimension + total)


def kl_true(mean_q, sigma_q, mean_p, sigma_p):
  """KL between normals of these standard deviations, summed over coordinates."""
  total = 0.0
  for mq, sq, mp, sp in zip(
    np.ravel(mean_q), np.ravel(sigma_q), np.ravel(mean_p), np.ravel(sigma_p), strict=True
  ):
    total += math.log(sp / sq) + (sq**2 + (mq - mp) ** 2) / (2 * sp**2) - 0.5
  return total


def regress(matrix, values):
  """B x, one joint and coordinate at a time."""
  joints, vertices = matrix.shape
  result = np.zeros((joints, 3))
  for k in range(joints):
    for i in range(3):
      for v in range(vertices):
        result[k, i] += matrix[k, v] * values[v, i]
  return result


def project(joints, scale, rotation, translation):
  """First two coordinates of s x R + T; scale in crop units per unit of the joints."""
  result = np.zeros((len(joints), 2))
  for k in range(len(joints)):
    for j in range(2):
      turned = sum(joints[k, i] * rotation[i, j] for i in range(3))
      result[k, j] = scale * turned + translation[j]
  return result


def project_variance(variance, scale, rotation):
  """Variances of the projection for independent coordinates: s^2 (Var)(R∘R)."""
  result = np.zeros((len(variance), 2))
  for k in range(len(variance)):
    for j in range(2):
      for i in range(3):
        result[k, j] += scale**2 * variance[k, i] * rotation[i, j] ** 2
  return result


def branch_moments(mean, sigma, matrix, scale, rotation, translation, convention):
  """(mean, sigma) of vertices, joints and projected joints; lengths and 1/scale in one unit."""
  joints_mean = regress(matrix, mean)
  joints_2d_mean = project(joints_mean, scale, rotation, translation)
  if convention == 'paper':
    joints_sigma = regress(matrix, sigma)
    variance_2d = project_variance(joints_sigma, scale, rotation)
  else:
    variance = regress(matrix**2, sigma**2)
    joints_sigma = np.sqrt(variance)
    variance_2d = project_variance(variance, scale, rotation)
  return {
    'vertices': (mean, sigma),
    'joints': (joints_mean, joints_sigma),
    'joints_2d': (joints_2d_mean, np.sqrt(variance_2d)),
  }


def loss_terms(posterior, prior, labels, convention):
  """Terms by name of one fully labelled hand: eqs. 6, 15 and 19, in two parts each."""
  divergence = kl_letter if convention == 'paper' else kl_true
  terms = {}
  for name, label in labels.items():
    terms[f'{name}_nll'] = nll(label, *posterior[name])
    terms[f'{name}_kl'] = divergence(*posterior[name], *prior[name])
  return terms


# The weakly supervised objective (eqs. 24 and 25).


def orthonormal_columns(camera):
  """The first two columns of R by Gram-Schmidt on the stored six numbers."""
  first, second = np.array(camera[:3], float), np.array(camera[3:6], float)
  first = first / math.sqrt(sum(number**2 for number in first))
  second = second - sum(a * b for a, b in zip(first, second, strict=True)) * first
  second = second / math.sqrt(sum(number**2 for number in second))
  return np.stack([first, second], axis=1)


def sampled_nll(
  label, weight, vertices, sigma, camera, matrix, convention, unit, tau, projection='orthonormal'
):
  """-ln P(J2D | sample), joint by joint; `vertices` is a sample in units, `sigma` that of Q."""
  columns = orthonormal_columns(camera)
  # Crop units per unit of length: stored per decimetre.
  scale, translation = 10 * float(camera[9]) * unit, np.array(camera[6:8], float)
  moments = branch_moments(vertices, sigma, matrix, scale, columns, translation, convention)
  mean, sigma_2d = moments['joints_2d']
  if projection == 'affine':
    stored = np.stack([camera[:3], camera[3:6]], axis=1)
    mean = project(moments['joints'][0], scale, stored, translation)
  if convention == 'exact':
    sigma_2d = np.full_like(mean, tau)
  total = 0.0
  for k in range(len(label)):
    if weight[k] > 0 and np.isfinite(label[k]).all():
      total += weight[k] * nll(label[k], mean[k], sigma_2d[k])
  return total


def linear_evidence(design, prior_mean, prior_variance, label, tau):
  """(ln P(label), posterior mean, posterior precision) for label = design x + tau noise."""
  covariance = design @ np.diag(prior_variance) @ design.T + tau**2 * np.eye(len(label))
  residual = label - design @ prior_mean
  evidence = -0.5 * (
    len(label) * math.log(2 * math.pi)
    + np.linalg.slogdet(covariance)[1]
    + residual @ np.linalg.solve(covariance, residual)
  )
  precision = np.diag(1 / prior_variance) + design.T @ design / tau**2
  mean = prior_mean + np.linalg.solve(precision, design.T @ residual) / tau**2
  return evidence, mean, precision


def kl_to_full(mean, variance, full_mean, full_precision):
  """KL from independent normals to correlated ones given by their precision matrix."""
  difference = mean - full_mean
  return 0.5 * (
    np.diag(full_precision) @ variance
    - len(mean)
    - np.log(variance).sum()
    - np.linalg.slogdet(full_precision)[1]
    + difference @ full_precision @ difference
  )


def linear_expected_nll(design, mean, variance, label, tau):
  """E over independent x of -ln N(label; design x, tau^2), row by row."""
  total = 0.0
  for row, value in zip(design, label, strict=True):
    spread = sum(row**2 * variance)
    total += 0.5 * math.log(2 * math.pi * tau**2)
    total += 0.5 * ((value - sum(row * mean)) ** 2 + spread) / tau**2
  return total
