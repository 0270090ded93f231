"""Exports a run as a program, with a JSON file that describes its inputs and outputs."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import export
from jax.extend import core

from hand_jax.config import ExperimentConfig
from hand_jax.exporting.crop_program import OUTPUTS, create_crop_program, program_inputs
from hand_jax.exporting.folding import trace_folded
from hand_jax.mano.assets import hand_model_name, is_free_hand
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.runs.hand_models import hand_model_digest
from hand_jax.types import ManoModel
from hand_jax.version import VERSION

Format = Literal['stablehlo', 'onnx']
PLATFORMS = ('cpu', 'cuda', 'tpu')
_NAME = 'hand_network'


class ExportedRun(NamedTuple):
  """The parts of a run that are exported."""

  config: ExperimentConfig
  variables: dict[str, Any]
  model: ManoModel


def file_names(format: Format, platforms: Sequence[str]) -> list[str]:
  """Lists the names of the files that `exported_files` makes, programs and descriptions."""
  programs = [_program_name(format, platform) for platform in _variants(format, platforms)]
  return [name for program in programs for name in (program, f'{program}.json')]


def exported_files(
  run: ExportedRun, format: Format, platforms: Sequence[str] = ('cpu',)
) -> dict[str, bytes]:
  """Exports a run for each platform.

  Args:
    run: config, variables and hand model.
    format: 'stablehlo' for `jax.export.deserialize`, or 'onnx'.
    platforms: some of `PLATFORMS`. An ONNX file serves all platforms and does not depend on them.

  Returns:
    The contents of the files by their names.

  Raises:
    ModuleNotFoundError: the format needs a package that is not installed.
    ValueError: the network has an operation that the format does not know.
  """
  files = {}
  for platform in _variants(format, platforms):
    name = _program_name(format, platform)
    files[name] = _onnx(run) if format == 'onnx' else stablehlo(run, platform)
    text = json.dumps(describe(run, name, platform), indent=1, allow_nan=False)
    files[f'{name}.json'] = f'{text}\n'.encode()
  return files


def stablehlo(run: ExportedRun, platform: str) -> bytes:
  """Makes the content of a file that `jax.export.deserialize` reads, for one platform."""
  inputs = tuple(program_inputs(run.config).values())
  program = create_crop_program(*run)
  names = sorted(OUTPUTS)  # A dictionary's leaves come in the order of its sorted names.
  folded = core.jaxpr_as_fun(trace_folded(program, inputs, platform))

  def hand_network(crops: jax.Array, is_left: jax.Array) -> dict[str, jax.Array]:
    return dict(zip(names, folded(crops, is_left), strict=True))

  exported = export.export(jax.jit(hand_network), platforms=[platform])(*inputs)
  return bytes(exported.serialize())


def describe(run: ExportedRun, program: str, platform: str) -> dict[str, Any]:
  """Describes the origin, the inputs and the outputs of an exported program.

  Args:
    run: the exported run.
    program: name of the program's file.
    platform: the platform of the program, or an empty text for all platforms.
  """
  config, model = run.config, run.model
  side, vertices = config.model.image_size, len(model.v_template)
  shapes = {
    'vertices': [vertices, 3],
    'joints': [len(JOINT_NAMES), 3],
    'vertex_sigma_mm': [vertices],
    'joint_sigma_mm': [len(JOINT_NAMES)],
    'joints_image': [len(JOINT_NAMES), 2],
    'camera': [3],
  }
  return {
    'program': program,
    'platform': platform or 'any',
    'hand_jax': VERSION,
    'experiment': config.name,
    'inputs': {
      'crops': {
        'shape': ['batch', side, side, 3],
        'dtype': 'uint8',
        'meaning': 'RGB 0 to 255, rows from the top. Nothing else is to be normalised.',
      },
      'is_left': {
        'shape': ['batch'],
        'dtype': 'bool',
        'meaning': 'whether the crop shows a left hand. The program mirrors the crop and what '
        'comes out, so that its outputs belong to the crop as it is.',
      },
    },
    'outputs': {
      name: {'shape': ['batch', *shapes[name]], 'dtype': 'float32', 'meaning': meaning}
      for name, meaning in OUTPUTS.items()
    },
    'preprocessing': _preprocessing(config),
    'joint_names': list(JOINT_NAMES),
    'hand_model': {
      'name': hand_model_name(model),
      'sha256': hand_model_digest(model),
      'licence': 'CC0-1.0'
      if is_free_hand(model)
      else "MANO's: the program contains the model, and may be passed on only as far as the model",
    },
    'faces': np.asarray(model.faces).tolist(),
    'faces_meaning': 'vertices of each face of a right hand, which turn counter-clockwise seen '
    'from outside. Reverse them for a left hand.',
  }


def _preprocessing(config: ExperimentConfig) -> dict[str, Any]:
  side, factor = config.model.image_size, config.data.crop_factor
  square = f'a square round the centre of the box of the hand, {factor} times as long as the '
  square += f'longer side of the box, resampled to {side} x {side} pixels'
  turned = (
    'turned so that the base of the middle finger lies straight above the wrist. Outputs are in '
    'the axes of the turned crop'
  )
  return {
    'crop': square,
    'crop_factor': factor,
    'upright': config.data.upright,
    'turn': turned if config.data.upright else 'none',
  }


def _onnx(run: ExportedRun) -> bytes:
  # Import here, because the package onnx is optional.
  from hand_jax.exporting.to_onnx.program import onnx_program

  # Not every ONNX runtime supports the operators for bfloat16.
  settings = dataclasses.replace(run.config.model, compute_dtype='float32')
  config = dataclasses.replace(run.config, model=settings)
  program = create_crop_program(config, run.variables, run.model)
  return onnx_program(program, program_inputs(config))


def _variants(format: Format, platforms: Sequence[str]) -> Sequence[str]:
  return ('',) if format == 'onnx' else platforms


def _program_name(format: Format, platform: str) -> str:
  return f'{_NAME}.onnx' if format == 'onnx' else f'{_NAME}_{platform}.stablehlo'


def load_exported_run(workdir: str | os.PathLike, mano_dir: str | None = None) -> ExportedRun:
  """Loads the newest checkpoint of a run and the hand model that it was trained with.

  Raises:
    FileNotFoundError, ValueError: the run, its checkpoint or its hand model is missing or damaged.
  """
  # Import here, because Orbax takes a third of a second.
  from hand_jax.runs.checkpoints import load_for_inference
  from hand_jax.runs.hand_models import load_run_model

  config, variables = load_for_inference(str(workdir))
  return ExportedRun(config, variables, load_run_model(workdir, mano_dir))
