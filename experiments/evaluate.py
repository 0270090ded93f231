"""Measures a trained run: python -m experiments.evaluate --workdir=DIR --dataset=... --split=..."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from absl import app, flags, logging

from hand_jax.config import DataConfig, ExperimentConfig
from hand_jax.data.pipeline import create_source, evaluation_batches
from hand_jax.evaluation.evaluate import (
  BRANCHES,
  evaluate_batches,
  format_table,
  make_estimate_fn,
)
from hand_jax.evaluation.mean_hand import (
  MeanHand,
  cached_mean_hand,
  prepared_root_vertices,
  rendered_root_vertices,
)
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import naming_misfits
from hand_jax.training.checkpoints import load_for_inference
from hand_jax.training.hand_models import load_run_model
from hand_jax.types import HandBatch

RENDERED_DATASET = 'synthetic_hands'
RENDERED_EXAMPLES = 500

FLAGS = flags.FLAGS


def data_to_measure(config: ExperimentConfig, dataset: str, data_dir: str | None) -> DataConfig:
  """The run's data settings, pointed at `dataset`.

  Raises:
    ValueError: a data set that cannot be rendered, and no folder to read it from.
  """
  if data_dir is None:
    data_dir = config.data.data_dir if dataset == config.data.dataset else ''
  if not data_dir and dataset != RENDERED_DATASET:
    raise ValueError(
      f'--dataset={dataset} needs --data_dir, the folder it was prepared in; only '
      f'{RENDERED_DATASET} can be rendered on the fly.'
    )
  return dataclasses.replace(config.data, dataset=dataset, data_dir=data_dir)


def has_meshes(data: DataConfig, count: int) -> bool:
  """Whether one of the first `count` training examples has the vertices a mean hand is made of.

  Data sets that hold nothing to train on, or 2D joints alone, have no such baseline.
  """
  if not data.data_dir:
    return True
  try:
    create_source(data, data.train_split, image_size=0)
  except ValueError:  # no such split
    return False
  meshes = prepared_root_vertices(data.dataset, data.data_dir, data.train_split, count)
  return any(True for _ in meshes)


def mean_hand_of(workdir: str, data: DataConfig, count: int) -> MeanHand | None:
  """The baseline of the training split: of its first `count` examples, kept in the workdir.

  None where they have no 3D labels.
  """
  if not has_meshes(data, count):
    return None
  split = data.train_split
  if data.data_dir:
    place = str(pathlib.Path(data.data_dir).resolve())
  else:
    place = f'rendered with seed {data.seed}'
    count = min(count, data.train_examples) if data.train_examples else count

  def vertices() -> Iterable[Any]:
    if data.data_dir:
      return prepared_root_vertices(data.dataset, data.data_dir, split, count)
    return rendered_root_vertices(data.seed, split, count)

  description = f'first {count} examples of {data.dataset}, split {split}, {place}'
  path = pathlib.Path(workdir) / 'evaluation' / f'{data.dataset}-mean_hand.npz'
  return cached_mean_hand(path, description, vertices)


def with_progress(batches: Iterable[HandBatch], total: int) -> Iterator[HandBatch]:
  """The batches, with a line on the terminal that counts their examples."""
  done = 0
  for batch in batches:
    yield batch
    done += int((~batch.is_padding).sum())
    if sys.stdout.isatty():
      print(f'Measured {done} of {total} examples', end='\r', flush=True)


def evaluate(
  workdir: str,
  dataset: str,
  split: str,
  data_dir: str | None = None,
  limit: int = 0,
  mean_hand_examples: int = 2000,
  mano_dir: str | None = None,
) -> tuple[dict[str, Any], pathlib.Path]:
  """Measures a run on a split; writes and returns the results, with their path.

  They are those of `evaluate_batches` with `dataset`, `split` and `mean_hand_examples`: 0 where the
  training split has no 3D labels, and so no baseline.

  Raises:
    FileNotFoundError, ValueError: no run, checkpoint, data set, split or hand model to be read.
  """
  config, variables = load_for_inference(workdir)
  data = data_to_measure(config, dataset, data_dir)
  count = limit or (0 if data.data_dir else RENDERED_EXAMPLES)
  source = create_source(data, split, config.model.image_size, count)
  model = load_run_model(workdir, mano_dir)
  mean_hand = mean_hand_of(workdir, data, mean_hand_examples)
  config = dataclasses.replace(config, data=data)
  make_batches = evaluation_batches(source, config, len(model.v_template))
  with make_batches as batches, naming_misfits(workdir):
    results = evaluate_batches(
      make_estimate_fn(config, variables, model),
      with_progress(batches, len(source)),
      extended_joint_regressor(model),
      mean_hand=mean_hand,
    )
  results = {'dataset': dataset, 'split': split} | results
  results['mean_hand_examples'] = mean_hand.examples if mean_hand else 0
  path = pathlib.Path(workdir) / 'evaluation' / f'{dataset}-{split}.json'
  path.parent.mkdir(exist_ok=True)  # without a mean hand nothing has made it yet
  unfinished = path.with_suffix('.unfinished')
  unfinished.write_text(json.dumps(results, indent=2) + '\n')
  unfinished.replace(path)
  return results, path


def summary(results: dict[str, Any]) -> str:
  """The two lines that say what the table means: the baseline, and the gain over it."""
  if not results['examples']:
    joints_2d = results['joints_2d']
    branch = next(name for name in BRANCHES if f'{name}_px' in joints_2d)
    return (
      'No example of the split has 3D labels: there is neither an error in mm nor a baseline.\n'
      f"The {branch}'s projected joints are {joints_2d[f'{branch}_px']:.2f} px from their labels "
      f'in crops of {joints_2d["crop_size_px"]} px.'
    )
  branch = next(name for name in BRANCHES if name in results)
  ours = results[branch]['pa_mpjpe_mm']
  if 'mean_hand' not in results:
    return (
      f'There is no baseline: no training example of {results["dataset"]} has 3D labels to make a '
      f'mean hand of.\nThe {branch} has a PA-MPJPE of {ours:.2f} mm.'
    )
  baseline = results['mean_hand']['pa_mpjpe_mm']
  gain = 100 * (1 - ours / baseline)
  return (
    f'The mean hand of {results["mean_hand_examples"]} training examples has a PA-MPJPE of '
    f'{baseline:.2f} mm.\nThe {branch} has {ours:.2f} mm, '
    f'{abs(gain):.1f} % {"below" if gain >= 0 else "above"} the mean hand.'
  )


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
  flags.DEFINE_string('dataset', None, 'Data set to measure on.', required=True)
  flags.DEFINE_string('split', 'test', 'Split to measure on.')
  flags.DEFINE_string(
    'data_dir',
    None,
    "Folder of prepared data sets. Default: the run's; without one, rendered hands.",
  )
  flags.DEFINE_integer(
    'limit', 0, f'Examples, from the first; 0: all ({RENDERED_EXAMPLES} rendered ones).', 0
  )
  flags.DEFINE_integer('mean_hand_examples', 2000, 'Training examples that make the mean hand.', 1)
  flags.DEFINE_string(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  try:
    results, path = evaluate(
      FLAGS.workdir,
      FLAGS.dataset,
      FLAGS.split,
      FLAGS.data_dir,
      FLAGS.limit,
      FLAGS.mean_hand_examples,
      FLAGS.mano_dir,
    )
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  print(f'{FLAGS.workdir} on {FLAGS.dataset}, split {FLAGS.split}:')
  print(format_table(results))
  print(summary(results))
  print(f'Written to {path}.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
