"""Copies parameters of this project's networks into PyTorch modules with the same names."""

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers.attention import Attention, TokenEmbedding
from benchmarks.peers.backbones import ConvNorm


def copy_weights(module: nn.Module, variables: dict[str, Any]) -> nn.Module:
  """Fills a module with the parameters and statistics that lie at the same names, and returns it.

  Args:
    module: the PyTorch module.
    variables: Flax's collections 'params' and, with batch normalisation, 'batch_stats'.

  Raises:
    KeyError: a module has no parameters of its name.
  """
  _copy(module, variables['params'], variables.get('batch_stats', {}))
  return module


def _copy(module: nn.Module, params: Any, stats: Any) -> None:
  if isinstance(module, ConvNorm):
    _set(module.conv.weight, np.transpose(params['kernel'], (3, 2, 0, 1)))
    for target, value in (
      (module.norm.weight, params['scale']),
      (module.norm.bias, params['bias']),
      (module.norm.running_mean, stats['mean']),
      (module.norm.running_var, stats['var']),
    ):
      _set(target, value)
  elif isinstance(module, Attention):
    _copy_attention(module, params)
  elif isinstance(module, TokenEmbedding):
    _set(module.dense.weight, np.transpose(params['kernel']))
    _set(module.dense.bias, params['bias'])
  elif isinstance(module, nn.Linear | nn.Conv2d):
    kernel = np.transpose(params['kernel'])
    _set(module.weight, kernel.reshape(module.weight.shape))
    _set(module.bias, params['bias'])
  elif isinstance(module, nn.LayerNorm):
    _set(module.weight, params['scale'])
    _set(module.bias, params['bias'])
  else:
    for name, child in module.named_children():
      if any(parameter.requires_grad for parameter in child.parameters()):
        _copy(child, params[name], stats.get(name, {}))


def _copy_attention(module: Attention, params: Any) -> None:
  """Joins the projections of queries, keys and values as the module holds them."""
  width = module.output.weight.shape[0]
  kernels = {
    name: np.asarray(params[name]['kernel']).reshape(-1, width)
    for name in ('query', 'key', 'value')
  }
  biases = {name: np.asarray(params[name]['bias']).reshape(-1) for name in kernels}
  for target, names in module.projections():
    _set(target.weight, np.concatenate([kernels[name].T for name in names]))
    _set(target.bias, np.concatenate([biases[name] for name in names]))
  _set(module.output.weight, np.asarray(params['output']['kernel']).reshape(width, width).T)
  _set(module.output.bias, params['output']['bias'])


def _set(target: torch.Tensor, value: Any) -> None:
  value = torch.from_numpy(np.array(value, np.float32))
  if value.shape != target.shape:
    raise ValueError(f'a parameter has shape {tuple(value.shape)}, expected {tuple(target.shape)}')
  with torch.no_grad():
    target.copy_(value)
