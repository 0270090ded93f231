"""The supervised objective of Algorithm 1 in PyTorch, in the paper's convention."""

import math
from typing import NamedTuple

import torch

from benchmarks.peers.hand_network import Branch, Estimate
from hand_jax.losses import TOTAL_SCALE


class Labels(NamedTuple):
  """Labels of a batch in which everything is known."""

  vertices: torch.Tensor
  """Metres, hand frame."""
  joints: torch.Tensor
  joints_2d: torch.Tensor
  """Crop units."""
  camera: torch.Tensor


def supervised_loss(estimate: Estimate, labels: Labels, length_unit_m: float) -> torch.Tensor:
  """Sums likelihoods, divergences (eq. 5) and the camera's squared error, and takes the mean.

  Args:
    estimate: the network's output.
    labels: the labels.
    length_unit_m: the unit of lengths behind the log-variances.
  """
  prior, posterior = (in_unit(b, length_unit_m) for b in (estimate.prior, estimate.posterior))
  known = (labels.vertices / length_unit_m, labels.joints / length_unit_m, labels.joints_2d)
  total = ((estimate.camera[0] - labels.camera) ** 2).sum(-1)
  for q, p, value in zip(posterior, prior, known, strict=True):
    total = total + (likelihood(q, value) + divergence(q, p)).sum((1, 2))
  return TOTAL_SCALE * total.mean()


def in_unit(branch: Branch, length_unit_m: float) -> Branch:
  """Converts lengths from metres."""
  shift = 2 * math.log(length_unit_m)
  vertices, joints = (
    (mean / length_unit_m, log_variance - shift) for mean, log_variance in branch[:2]
  )
  return Branch(vertices, joints, branch.joints_2d)


def likelihood(gaussian, value) -> torch.Tensor:
  """Computes -ln N(value) of each coordinate."""
  mean, log_variance = gaussian
  squared = (value - mean) ** 2 * torch.exp(-log_variance)
  return 0.5 * (math.log(2 * math.pi) + log_variance + squared)


def divergence(q, p) -> torch.Tensor:
  """Computes eq. 5 as printed, of each coordinate."""
  log_ratio = 0.5 * (q[1] - p[1])
  squared = (q[0] - p[0]) ** 2 * torch.exp(-0.5 * p[1])
  return 0.5 * (torch.expm1(log_ratio) - log_ratio + squared)
