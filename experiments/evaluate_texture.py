"""Measures a texture branch: python -m experiments.evaluate_texture --workdir=DIR.

The network's vertex colours beside two baselines without learning, see
`hand_jax/evaluation/texture_scores.py`.
"""

import dataclasses
import pathlib
import shlex
import sys
from typing import Any

from absl import app, flags, logging

from experiments.ablations.report import to_json
from experiments.ablations.running import current_commit
from experiments.evaluate import with_progress
from hand_jax.data.pipeline import create_source, evaluation_batches
from hand_jax.evaluation.run_data import RENDERED_DATASET, RENDERED_EXAMPLES, data_to_measure
from hand_jax.evaluation.texture_scores import (
  evaluate_texture,
  format_table,
  make_textured_estimate_fn,
)
from hand_jax.files.writing import write_whole
from hand_jax.models.hand_network import naming_misfits
from hand_jax.runs.checkpoints import load_network
from hand_jax.runs.hand_models import load_run_model

FLAGS = flags.FLAGS


def measure(
  workdir: str,
  dataset: str = RENDERED_DATASET,
  split: str = 'test',
  data_dir: str | None = None,
  limit: int = 0,
  use_masks: bool = True,
  mano_dir: str | None = None,
  output: str | None = None,
) -> tuple[dict[str, Any], pathlib.Path]:
  """Measures a textured run on a split; writes and returns the results, with their path.

  They are those of `evaluate_texture` with `dataset`, `split`, `rendered_with_seed` (None for
  prepared data), `config`, `step`, `crop_size_px`, `command` and `commit`. `output`: a file for a
  copy. Measured without masks they have a file of their own.

  Raises:
    FileNotFoundError, ValueError: no run, checkpoint, data set, split or hand model to be read, a
      run without a texture branch, or an output that cannot be a file.
  """
  saved = load_network(workdir)
  config = saved.config
  if not config.model.texture.enabled:
    raise ValueError(
      f'{workdir} (config {config.name}) has no texture branch: train one on top of it with python '
      f'-m experiments.train --config=..._texture --init_from={workdir} --workdir=ANOTHER.'
    )
  if output is not None:
    if pathlib.Path(output).is_dir():
      raise ValueError(f'--output={output} is a folder: name a file in it.')
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
  data = data_to_measure(config, dataset, data_dir)
  count = limit or (0 if data.data_dir else RENDERED_EXAMPLES)
  source = create_source(data, split, config.model.image_size, count, vertex_labels=True)
  model = load_run_model(workdir, mano_dir)
  config = dataclasses.replace(config, data=data)
  make_batches = evaluation_batches(source, config, len(model.v_template))
  with make_batches as batches, naming_misfits(workdir):
    results = evaluate_texture(
      make_textured_estimate_fn(config, saved.variables, model),
      with_progress(batches, len(source)),
      model.faces,
      use_masks=use_masks,
    )
  results |= {
    'dataset': dataset,
    'split': split,
    'rendered_with_seed': None if data.data_dir else data.seed,
    'config': config.name,
    'step': saved.step,
    'crop_size_px': config.model.image_size,
    'command': reproduce(
      workdir, dataset, split, data.data_dir, limit, use_masks, mano_dir, output
    ),
    'commit': current_commit(),
  }
  suffix = '' if use_masks else '-no_masks'
  path = pathlib.Path(workdir) / 'evaluation' / f'texture-{dataset}-{split}{suffix}.json'
  path.parent.mkdir(exist_ok=True)
  for place in (path, *([pathlib.Path(output)] if output is not None else [])):
    write_whole(place, to_json(results))
  return results, path


def reproduce(
  workdir: str,
  dataset: str,
  split: str,
  data_dir: str,
  limit: int,
  use_masks: bool,
  mano_dir: str | None,
  output: str | None,
) -> str:
  """The shell line that measures this again; it names the data even where a default was taken."""
  line = ['python', '-m', 'experiments.evaluate_texture', f'--workdir={workdir}']
  line += [f'--dataset={dataset}', f'--split={split}', f'--data_dir={data_dir}']
  line += [f'--limit={limit}'] if limit else []
  line += [] if use_masks else ['--nouse_masks']
  line += [f'--mano_dir={mano_dir}'] if mano_dir else []
  line += [f'--output={output}'] if output is not None else []
  return shlex.join(line)


def advice(results: dict[str, Any]) -> str:
  """What to do about results without errors of vertices; empty where there is nothing to do."""
  if results['examples_with_vertex_colors'] or results['dataset'] != RENDERED_DATASET:
    return ''
  return 'Hands rendered on the fly have them: measure with --data_dir= (an empty one).'


def define_flags(values: flags.FlagValues = FLAGS) -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  flags.DEFINE_string(
    'workdir', None, 'Folder of a run with a texture.', flag_values=values, required=True
  )
  flags.DEFINE_string('dataset', RENDERED_DATASET, 'Data set to measure on.', flag_values=values)
  flags.DEFINE_string('split', 'test', 'Split to measure on.', flag_values=values)
  flags.DEFINE_string(
    'data_dir',
    None,
    "Folder of prepared data sets. Default: the run's; without one, rendered hands.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    'limit',
    0,
    f'Examples, from the first; 0: all ({RENDERED_EXAMPLES} rendered ones).',
    0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'use_masks', True, 'Whether the colours may be made with the hand masks.', flag_values=values
  )
  flags.DEFINE_string(
    'mano_dir',
    None,
    'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.',
    flag_values=values,
  )
  flags.DEFINE_string('output', None, 'File for a copy of the results.', flag_values=values)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  try:
    results, path = measure(
      FLAGS.workdir,
      FLAGS.dataset,
      FLAGS.split,
      FLAGS.data_dir,
      FLAGS.limit,
      FLAGS.use_masks,
      FLAGS.mano_dir,
      FLAGS.output,
    )
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  print(f'{FLAGS.workdir} on {FLAGS.dataset}, split {FLAGS.split}:')
  print(format_table(results))
  if text := advice(results):
    print(text)
  print(f'Written to {path}{f" and {FLAGS.output}" if FLAGS.output is not None else ""}.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
