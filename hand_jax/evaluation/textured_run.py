"""Measures the texture branch of a trained run on a split, and describes the results."""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from hand_jax.data.example_sources import create_source
from hand_jax.data.pipeline import evaluation_batches
from hand_jax.evaluation.estimated_masks import estimate_crop_masks
from hand_jax.evaluation.progress import with_progress
from hand_jax.evaluation.run_data import RENDERED_DATASET, RENDERED_EXAMPLES, data_to_measure
from hand_jax.evaluation.texture_scores import (
  evaluate_texture,
  make_textured_estimate_fn,
  texture_table,
)
from hand_jax.files.outputs import Output, check_outputs, is_json_with
from hand_jax.files.writing import write_json
from hand_jax.models.hand_network import naming_misfits
from hand_jax.runs.checkpoints import load_network
from hand_jax.runs.hand_models import load_run_model


class TexturedRunRequest(NamedTuple):
  """The run, and the data to measure it on.

  Each field is the value of the flag of the same name of `experiments.evaluate_texture`.
  """

  workdir: str
  dataset: str = RENDERED_DATASET
  split: str = 'test'
  data_dir: str | None = None
  """Folder that holds prepared data sets.

  With None it is the folder that the run was trained from, if `dataset` is the same. An empty text
  means that hands are rendered on the fly.
  """
  limit: int = 0
  """How many examples to measure, counted from the first.

  With 0 all prepared examples are measured, or `RENDERED_EXAMPLES` rendered ones.
  """
  use_masks: bool = True
  """Whether the network and the baselines get the hand masks."""
  estimate_masks: bool = False
  """Whether to measure once more with masks that are estimated from the crops."""
  mano_dir: str | None = None
  """Folder or file of the MANO model, if the run was trained with it.

  With None it is found through $MANO_DIR.
  """
  output: str | None = None
  """File for a copy of the results."""
  overwrite: bool = False
  """Whether `output` may replace a file that this program did not write."""


def evaluate_textured_run(
  request: TexturedRunRequest, commit: str = 'unknown'
) -> tuple[dict[str, Any], pathlib.Path]:
  """Measures a textured run on a split and writes the results.

  Results without masks (`use_masks`) have a file of their own.

  Args:
    request: the run, and what to measure it on.
    commit: the commit of the code, which the results name.

  Returns:
    The results and the path of their file. They hold those of `evaluate_texture`, and `dataset`,
    `split`, `rendered_with_seed` (None for prepared data), `config`, `step`, `crop_size_px`,
    `command` and `commit`.

  Raises:
    FileNotFoundError: the run, its checkpoint, the data set or the hand model is missing.
    ValueError: one of them cannot be used, the split does not exist, the run has no texture
      branch, or masks cannot be estimated in its crops.
    OSError: the output cannot be written (see `check_outputs`).
  """
  workdir, output = request.workdir, request.output
  dataset, split = request.dataset, request.split
  saved = load_network(workdir)
  config = saved.config
  if not config.model.texture.enabled:
    raise ValueError(
      f'{workdir} (config {config.name}) has no texture branch: train one on top of it with python '
      f'-m experiments.train --config=..._texture --init_from={workdir} --workdir=ANOTHER.'
    )
  if request.estimate_masks and not config.data.upright:
    raise ValueError(
      f'{workdir} (config {config.name}) sees hands as they lie in the photo: masks are estimated '
      'in upright crops alone (data.upright).'
    )
  if output is not None:
    is_own = is_json_with('crop_size_px', 'command', 'commit')
    check_outputs([Output('--output', output, is_own)], overwrite=request.overwrite)
  data = data_to_measure(config, dataset, request.data_dir)
  count = request.limit or (0 if data.data_dir else RENDERED_EXAMPLES)
  source = create_source(data, split, config.model.image_size, count, vertex_labels=True)
  model = load_run_model(workdir, request.mano_dir)
  config = dataclasses.replace(config, data=data)
  make_batches = evaluation_batches(source, config, len(model.v_template))
  with make_batches as batches, naming_misfits(workdir):
    results = evaluate_texture(
      make_textured_estimate_fn(config, saved.variables, model),
      with_progress(batches, len(source)),
      model.faces,
      use_masks=request.use_masks,
      estimate_masks=estimate_crop_masks if request.estimate_masks else None,
    )
  results |= {
    'dataset': dataset,
    'split': split,
    'rendered_with_seed': None if data.data_dir else data.seed,
    'config': config.name,
    'step': saved.step,
    'crop_size_px': config.model.image_size,
    'command': texture_command(request._replace(data_dir=data.data_dir)),
    'commit': commit,
  }
  suffix = '' if request.use_masks else '-no_masks'
  path = pathlib.Path(workdir) / 'evaluation' / f'texture-{dataset}-{split}{suffix}.json'
  for place in (path, *([pathlib.Path(output)] if output is not None else [])):
    write_json(place, results)
  return results, path


def texture_command(request: TexturedRunRequest) -> str:
  """Writes the shell command that measures this. It names the data even where that is a default."""
  line = ['python', '-m', 'experiments.evaluate_texture', f'--workdir={request.workdir}']
  line += [
    f'--dataset={request.dataset}',
    f'--split={request.split}',
    f'--data_dir={request.data_dir}',
  ]
  line += [f'--limit={request.limit}'] if request.limit else []
  line += [] if request.use_masks else ['--nouse_masks']
  line += ['--estimate_masks'] if request.estimate_masks else []
  line += [f'--mano_dir={request.mano_dir}'] if request.mano_dir else []
  line += [f'--output={request.output}'] if request.output is not None else []
  return shlex.join(line)


def advice(results: dict[str, Any]) -> str:
  """Suggests how to get errors of vertices where the results have none.

  The text is empty where nothing helps or nothing is missing.
  """
  if results['examples_with_vertex_colors'] or results['dataset'] != RENDERED_DATASET:
    return ''
  return 'Hands rendered on the fly have them: measure with --data_dir= (an empty one).'


def report_textured_run(request: TexturedRunRequest, commit: str) -> Iterator[str]:
  """Measures a textured run and yields what to print about it.

  Raises:
    OSError: a file cannot be read or written (see `evaluate_textured_run`).
    ValueError: the request cannot be met (see `evaluate_textured_run`).
  """
  results, path = evaluate_textured_run(request, commit)
  yield f'{request.workdir} on {request.dataset}, split {request.split}:'
  yield texture_table(results)
  if text := advice(results):
    yield text
  yield f'Written to {path}{f" and {request.output}" if request.output is not None else ""}.'
