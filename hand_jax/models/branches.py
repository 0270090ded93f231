"""Finds the branches of a network's estimate by their names."""

from typing import NamedTuple

from hand_jax.types import HandEstimate, HandGaussians

BRANCHES = ('posterior', 'prior')  # the better one first


class TwoBranches(NamedTuple):
  """The branches of an estimate that has both."""

  posterior: HandGaussians
  prior: HandGaussians


def branches_of(estimate: HandEstimate) -> dict[str, HandGaussians]:
  """Lists the branches that an estimate has, by name in the order of `BRANCHES`."""
  found = {name: getattr(estimate, name) for name in BRANCHES}
  return {name: gaussians for name, gaussians in found.items() if gaussians is not None}


def both_branches(estimate: HandEstimate) -> TwoBranches:
  """Returns posterior and prior of an estimate.

  Raises:
    ValueError: the network has one branch alone.
  """
  if estimate.posterior is None or estimate.prior is None:
    raise ValueError(
      "the estimate has one branch, and posterior and prior are needed: set model.branches='both'."
    )
  return TwoBranches(estimate.posterior, estimate.prior)


def best_branch(estimate: HandEstimate) -> HandGaussians:
  """Chooses the posterior, or the prior of a network without a posterior."""
  return next(iter(branches_of(estimate).values()))
