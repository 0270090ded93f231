"""Describes the memory and cost of a step that was compiled ahead of time, as text and as JSON."""

import json

from hand_jax.config import ExperimentConfig
from hand_jax.training.ahead_of_time import CompiledStep, Topology


def describe(step: CompiledStep, topology: Topology, config: ExperimentConfig, batch: int) -> str:
  """Describes a compiled step in lines of text."""
  devices = len(topology.devices)
  memory = f'Memory of each device: {step.peak_bytes / 2**30:.2f} GiB'
  if step.hbm_bytes is not None:
    memory += f' of {step.hbm_bytes / 2**30:.2f} GiB'
  lines = [
    f'{config.name} on {topology.name}: {devices} devices, {batch} examples each.',
    memory + ('.' if step.fits else ': it does not fit.'),
  ]
  if step.flops is not None and step.bytes_accessed is not None and step.reduced_bytes is not None:
    lines += [
      f'Each device: {step.flops / 1e9:.1f} GFLOP, {step.bytes_accessed / 1e9:.2f} GB read and '
      'written (the body of a loop counts once).',
      f'{step.all_reduces} all-reduces of {step.reduced_bytes / 1e6:.1f} MB.',
    ]
  if step.roofline is not None:
    lines += _describe_time(step, config, batch * devices)
  return '\n'.join(lines)


def _describe_time(step: CompiledStep, config: ExperimentConfig, batch: int) -> list[str]:
  roofline = step.roofline
  assert roofline is not None
  per_second = 1e3 * batch / roofline.step_ms
  lines = [
    f'At least {roofline.step_ms:.1f} ms a step: arithmetic {roofline.compute_ms:.1f}, memory '
    f'{roofline.memory_ms:.1f}, all-reduces {roofline.network_ms:.2f} ms, at peak rates. '
    'It was compiled, not run: a real step takes longer.',
    f'At most {per_second:.0f} examples/s.',
  ]
  if config.data.train_examples:
    seconds = config.data.train_examples / per_second
    lines.append(f'An epoch of {config.data.train_examples} examples: at least {seconds:.1f} s.')
  return lines


def as_json(step: CompiledStep, topology: Topology, config: str, batch: int) -> str:
  """Writes the figures as one line of JSON. The figures of a step that does not fit are null."""
  roofline = step.roofline
  return json.dumps(
    {
      'config': config,
      'topology': topology.name,
      'devices': len(topology.devices),
      'per_device_batch': batch,
      'fits': step.fits,
      'peak_bytes_per_device': step.peak_bytes,
      'hbm_bytes': step.hbm_bytes,
      'flops': step.flops,
      'bytes_accessed': step.bytes_accessed,
      'all_reduces': step.all_reduces,
      'step_ms_estimate': None if roofline is None else round(roofline.step_ms, 4),
    }
  )
