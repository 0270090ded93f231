"""Applies networks whose variables do not change."""

from typing import Any

import flax.linen as nn


def apply_network(network: nn.Module, variables: Any, *inputs: Any, **options: Any) -> Any:
  """Applies a network and returns its output.

  Flax's own `apply` can return changed variables too, and its type says so for every call.

  Args:
    network: the module.
    variables: its variables by collection, such as `{'params': ...}`.
    *inputs: the positional arguments of the method.
    **options: the keyword arguments of the method. `method` names a method other than `__call__`.
  """
  return network.apply(variables, *inputs, **options)
