"""Access by name to the branches of a network's estimate."""

from hand_jax.types import HandEstimate, HandGaussians

BRANCHES = ('posterior', 'prior')  # the better one first


def branches_of(estimate: HandEstimate) -> dict[str, HandGaussians]:
  """Lists the branches that an estimate has, by name in the order of `BRANCHES`."""
  found = {name: getattr(estimate, name) for name in BRANCHES}
  return {name: gaussians for name, gaussians in found.items() if gaussians is not None}


def best_branch(estimate: HandEstimate) -> HandGaussians:
  """Chooses the posterior, or the prior of a network without a posterior."""
  return next(iter(branches_of(estimate).values()))
