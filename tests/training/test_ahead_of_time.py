"""Steps compiled for absent devices: their shapes, what is read from programs, and the command."""

import dataclasses
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from experiments import compile_for
from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.data.example_sources import create_training_source
from hand_jax.data.pipeline import Slot, make_batch
from hand_jax.models.hand_network import create_network
from hand_jax.training import ahead_of_time
from hand_jax.training.accelerators import ACCELERATORS, Accelerator, estimate_roofline
from hand_jax.training.ahead_of_time import (
  CompiledStep,
  Topology,
  batch_shapes,
  compile_step,
  find_topology,
  largest_batch,
  read_all_reduces,
  step_arguments,
)
from hand_jax.training.objective import create_objective
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step

PROGRAM = """
  %all-reduce.1 = (f32[64,3]{1,0}, bf16[10]{0}) all-reduce(%a, %b), replica_groups={}
  %fusion = f32[7]{0} fusion(%all-reduce.1), kind=kLoop
  ROOT %all-reduce-start = f32[] all-reduce-start(%c), to_apply=%add
  %all-reduce-done = f32[] all-reduce-done(%all-reduce-start)
"""


def shapes_of(tree):
  return jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), tree)


def test_all_reduces_are_counted_with_what_they_carry():
  assert read_all_reduces(PROGRAM) == (2, 64 * 3 * 4 + 10 * 2 + 4)


def test_a_roofline_is_the_longer_of_arithmetic_and_memory_and_then_the_network():
  chip = Accelerator(
    'made up', 1, bfloat16_flops=1e12, hbm_bytes_per_second=1e9, link_bytes_per_second=1e8
  )
  roofline = estimate_roofline(chip, flops=2e12, bytes_accessed=3e9, reduced_bytes=1e8, devices=4)
  np.testing.assert_allclose(roofline, (2000, 3000, 1500))
  assert roofline.step_ms == 4500
  alone = estimate_roofline(chip, 2e12, 3e9, 1e8, devices=1)
  assert alone.network_ms == 0
  # Two devices that share a chip have half of its rates each.
  shared = estimate_roofline(chip, 2e12, 3e9, 1e8, devices=4, devices_per_chip=2)
  np.testing.assert_allclose(shared, 2 * np.array(roofline))


@pytest.mark.parametrize(('limit', 'largest'), [(0, 0), (7, 0), (8, 8), (100, 96), (128, 128)])
def test_the_largest_batch_is_found_and_no_batch_is_tried_twice(limit, largest):
  tried = []

  def fits(batch):
    tried.append(batch)
    return batch <= limit

  assert largest_batch(fits) == largest
  assert len(set(tried)) == len(tried) <= 10
  assert largest_batch(lambda batch: True, most=64) == 64


def test_batches_have_the_shapes_of_the_input_pipeline(model):
  config = get_config('toy')
  source = create_training_source(config.data, config.model.image_size)
  batch = make_batch(source, [Slot(0, 0, False)], config, len(model.v_template), seed=0)
  made = batch_shapes(config, 1, len(model.v_template))
  expected = shapes_of(batch._replace(example_id=None))
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made) == expected


def test_cached_batches_have_the_shapes_of_the_input_pipeline(featured, toy_model):
  config = get_config('synthetic_features')
  attention = dataclasses.replace(config.model.attention, map_channels=5)
  data = dataclasses.replace(
    config.data, data_dir=featured.data_dir, crop_factor=1.7, hands='classic'
  )
  config = dataclasses.replace(
    config, model=dataclasses.replace(config.model, attention=attention), data=data
  )
  source = create_training_source(config.data, config.model.image_size)
  batch = make_batch(source, [Slot(0, 0, False)], config, len(toy_model.v_template), seed=0)
  made = batch_shapes(config, 1, len(toy_model.v_template))
  expected = shapes_of(batch._replace(example_id=None))
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made) == expected


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('v9:2x2', 'expected one of v4, v5e, v5p, v6e with a shape, such as v5e:16x16, or cpu:2'),
    ('v5e', 'expected one of v4'),
    ('cpu:0', 'a number of devices up to 2'),
    ('cpu:many', 'a number of devices up to 2'),
  ],
)
def test_unknown_topologies_are_named(name, message):
  with pytest.raises(ValueError, match=f'--topology={name}') as error:
    find_topology(name)
  assert message in str(error.value)


def test_a_missing_compiler_for_tpus_is_named(monkeypatch):
  from jax.experimental import topologies

  def fail(platform, topology_name):
    raise RuntimeError("Unable to load libtpu.so\n for 'tpu'")

  monkeypatch.setattr(topologies, 'get_topology_desc', fail)
  with pytest.raises(ValueError, match=r"pip install 'hand-jax\[tpu-aot\]'.*Unable to load"):
    find_topology('v5e:2x2')


def test_a_compiler_that_is_not_installed_is_told_without_other_reasons(monkeypatch):
  from jax.experimental import topologies

  def fail(platform, topology_name):
    raise RuntimeError('JAX TPU support not installed; cannot generate TPU topology. See https://')

  monkeypatch.setattr(topologies, 'get_topology_desc', fail)
  with pytest.raises(ValueError, match=r"in a checkout pip install -e '\.\[tpu-aot\]'\.$"):
    find_topology('v5e:2x2')


def test_two_devices_may_share_a_chip(monkeypatch):
  from jax.experimental import topologies

  devices = [types.SimpleNamespace(coords=(n // 2, 0, 0)) for n in range(8)]
  found = types.SimpleNamespace(devices=devices)
  monkeypatch.setattr(topologies, 'get_topology_desc', lambda platform, topology_name: found)
  topology = find_topology('v4:2x2x1')
  assert topology.devices_per_chip == 2 and len(topology.devices) == 8
  message = 'RESOURCE_EXHAUSTED: ... Used 16.50G of 15.75G hbm. Exceeded by ...'
  step = ahead_of_time._too_large(RuntimeError(message), topology)
  assert step == CompiledStep(False, int(16.5 * 2**30), int(15.75 * 2**30))
  with pytest.raises(RuntimeError, match='another'):
    ahead_of_time._too_large(RuntimeError('another error'), topology)


@pytest.mark.slow
def test_a_step_compiles_for_two_devices_and_averages_once(model):
  """Gradients of all parameters, and the toy backbone's statistics, go over the network."""
  config = get_config('toy_prior_weak')  # which compiles in half of the time
  step = compile_step(config, model, find_topology('cpu:2'), 2)
  assert step.fits and step.hbm_bytes is None and step.roofline is None
  parameters = sum(
    leaf.size for leaf in jax.tree.leaves(step_arguments(config, model, 1).state.params)
  )
  # XLA leaves out what no term reaches, and adds metrics and statistics.
  assert 3.8 * parameters <= step.reduced_bytes <= 4.2 * parameters
  assert step.flops > 0 and step.bytes_accessed > 0
  # Arguments alone are the parameters and Adam's two moments.
  assert step.peak_bytes > 3 * 4 * parameters


@pytest.mark.slow
@pytest.mark.parametrize('name', ['toy', 'toy_weak', 'toy_texture'])
def test_every_objective_lowers_for_a_gpu(name, model):
  """The supervised, the weakly supervised and the texture step hold nothing that GPUs lack."""
  config = get_config(name)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  prior = config if create_objective(config).needs_camera_prior else None
  step = make_train_step(config, network, optimizer, prior)
  arguments = step_arguments(config, model, 4)
  exported = jax.export.export(jax.jit(step), platforms=['cuda'])(*arguments)
  assert exported.platforms == ('cuda',)
  assert len(exported.mlir_module()) > 100_000


def test_the_command_simulates_the_cpu_devices_that_it_compiles_for():
  program = (
    'from experiments.compile_for import simulate_devices\n'
    'from hand_jax.training.ahead_of_time import find_topology\n'
    'simulate_devices("cpu:3")\n'
    'simulate_devices("cpu:999")\n'
    'simulate_devices("cpu:many")\n'
    'print(len(find_topology("cpu:3").devices))\n'
    'simulate_devices("cpu:5")  # too late, without an error\n'
  )
  alone = {key: text for key, text in os.environ.items() if key != 'JAX_NUM_CPU_DEVICES'}
  result = subprocess.run(
    [sys.executable, '-c', program],
    env={**alone, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert result.stdout == '3\n', result.stderr


FITS = CompiledStep(
  True,
  3 * 2**30,
  16 * 2**30,
  5e9,
  7e9,
  2,
  4_000_000,
  estimate_roofline(ACCELERATORS['v5e'], 5e9, 7e9, 4e6, 4),
)


def run_command(monkeypatch, capsys, step_of, *arguments) -> tuple[int, list[str]]:
  from absl import flags

  values = flags.FlagValues()
  monkeypatch.setattr(compile_for.flags, 'FLAGS', values)
  monkeypatch.setattr(compile_for, 'FLAGS', values)
  topology = Topology('v5e:2x2', [None] * 4, ACCELERATORS['v5e'], 1)
  monkeypatch.setattr(compile_for, 'find_topology', lambda name: topology)
  monkeypatch.setattr(compile_for, 'compile_step', lambda c, m, t, batch: step_of(c, batch))
  monkeypatch.setattr(compile_for, 'start', lambda argv, expected: None)
  compile_for.define_flags(values)
  values(['compile_for', '--topology=v5e:2x2', *arguments])
  code = compile_for.main(['compile_for'])
  return code, capsys.readouterr().out.splitlines()


def test_the_command_ends_with_a_line_of_json(monkeypatch, capsys):
  seen: list[ExperimentConfig] = []

  def step_of(config, batch):
    seen.append(config)
    return FITS

  code, lines = run_command(monkeypatch, capsys, step_of, '--config=toy', '--per_device_batch=32')
  assert code == 0 and seen[0].training.parallel == 'mesh'
  assert json.loads(lines[-1]) == {
    'config': 'toy',
    'topology': 'v5e:2x2',
    'devices': 4,
    'per_device_batch': 32,
    'fits': True,
    'peak_bytes_per_device': 3 * 2**30,
    'hbm_bytes': 16 * 2**30,
    'flops': 5e9,
    'bytes_accessed': 7e9,
    'all_reduces': 2,
    'step_ms_estimate': pytest.approx(FITS.roofline.step_ms, abs=1e-3),
  }
  assert 'Memory of each device: 3.00 GiB of 16.00 GiB.' in lines
  # 7e9 bytes at 819e9 a second, and 2 * 4e6 * 3/4 bytes at 200e9 a second.
  assert FITS.roofline.step_ms == pytest.approx(8.547 + 0.030, abs=1e-3)


def test_a_step_that_does_not_fit_is_a_result(monkeypatch, capsys):
  too_large = CompiledStep(False, 17 * 2**30, 16 * 2**30)
  code, lines = run_command(monkeypatch, capsys, lambda c, b: too_large, '--config=toy')
  result = json.loads(lines[-1])
  assert code == 3 and result['fits'] is False and result['step_ms_estimate'] is None
  assert 'Memory of each device: 17.00 GiB of 16.00 GiB: it does not fit.' in lines


def test_the_command_finds_the_largest_batch(monkeypatch, capsys):
  def step_of(config, batch):
    return FITS if batch <= 40 else CompiledStep(False, 17 * 2**30, 16 * 2**30)

  code, lines = run_command(monkeypatch, capsys, step_of, '--config=toy', '--largest')
  assert code == 0 and json.loads(lines[-1])['per_device_batch'] == 40
  assert lines[-2] == 'The largest batch of each device that fits: 40 (a multiple of 8).'
