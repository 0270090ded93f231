"""Measures the texture branch of a trained run on a split, and says what was found."""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from hand_jax.data.pipeline import create_source, evaluation_batches
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
  """What to measure, each field as the flag of its name of `experiments.evaluate_texture`."""

  workdir: str
  dataset: str = RENDERED_DATASET
  split: str = 'test'
  data_dir: str | None = None
  """Folder of prepared data sets. None: the run's own; empty: hands are rendered on the fly."""
  limit: int = 0
  """How many examples to measure, from the first; 0 means all."""
  use_masks: bool = True
  mano_dir: str | None = None
  output: str | None = None
  """File for a copy of the results."""
  overwrite: bool = False
  """Whether that may replace a file that this program did not write."""


def evaluate_textured_run(
  request: TexturedRunRequest, commit: str = 'unknown'
) -> tuple[dict[str, Any], pathlib.Path]:
  """Measures a textured run on a split; writes and returns the results, with their path.

  They are those of `evaluate_texture` with `dataset`, `split`, `rendered_with_seed` (None for
  prepared data), `config`, `step`, `crop_size_px`, `command` and `commit`, that of the code.
  Measured without masks they have a file of their own.

  Raises:
    FileNotFoundError, ValueError: no run, checkpoint, data set, split or hand model to be read, a
      run without a texture branch, or an output that cannot be a file.
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
  """Returns the shell line that measures this; it names the data even where that is a default."""
  line = ['python', '-m', 'experiments.evaluate_texture', f'--workdir={request.workdir}']
  line += [
    f'--dataset={request.dataset}',
    f'--split={request.split}',
    f'--data_dir={request.data_dir}',
  ]
  line += [f'--limit={request.limit}'] if request.limit else []
  line += [] if request.use_masks else ['--nouse_masks']
  line += [f'--mano_dir={request.mano_dir}'] if request.mano_dir else []
  line += [f'--output={request.output}'] if request.output is not None else []
  return shlex.join(line)


def advice(results: dict[str, Any]) -> str:
  """What to do about results without errors of vertices; empty where there is nothing to do."""
  if results['examples_with_vertex_colors'] or results['dataset'] != RENDERED_DATASET:
    return ''
  return 'Hands rendered on the fly have them: measure with --data_dir= (an empty one).'


def report_textured_run(request: TexturedRunRequest, commit: str) -> Iterator[str]:
  """Measures a textured run and yields what to print about it.

  Raises:
    OSError, ValueError: see `evaluate_textured_run`.
  """
  results, path = evaluate_textured_run(request, commit)
  yield f'{request.workdir} on {request.dataset}, split {request.split}:'
  yield texture_table(results)
  if text := advice(results):
    yield text
  yield f'Written to {path}{f" and {request.output}" if request.output is not None else ""}.'
