"""Measures a trained run, or a file of predictions as the official evaluations do.

python -m experiments.evaluate --workdir=DIR --dataset=... --split=...
python -m experiments.evaluate --predictions=pred.zip --dataset=freihand --ground_truth=DIR
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from absl import app, flags, logging

from hand_jax.data.pipeline import create_source, evaluation_batches
from hand_jax.data.prepared import prepared_manifest
from hand_jax.evaluation.evaluate import (
  BRANCHES,
  evaluate_batches,
  format_table,
  make_estimate_fn,
)
from hand_jax.evaluation.mean_hand import MeanHand
from hand_jax.evaluation.official.hands import BenchmarkRun, EstimateFn, PreparedLabels
from hand_jax.evaluation.official.rules import BENCHMARKS, NO_AUGMENTATION
from hand_jax.evaluation.official.score_files import (
  evaluate_predictions,
  official_summary,
  scores_record,
  write_curves,
)
from hand_jax.evaluation.official.submission import (
  check_split_is_whole,
  check_submission_path,
  write_submission,
)
from hand_jax.evaluation.run_data import RENDERED_EXAMPLES, data_to_measure, mean_hand_of
from hand_jax.evaluation.turns import augmentation_name, averaged_over_turns
from hand_jax.files.writing import write_whole
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import naming_misfits
from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.runs.hand_models import load_run_model
from hand_jax.types import HandBatch

# What the builders call the benchmarks' own evaluation split.
EVALUATION_SPLIT = 'test'

FLAGS = flags.FLAGS


def with_progress(batches: Iterable[HandBatch], total: int) -> Iterator[HandBatch]:
  """The batches, with a line on the terminal that counts their examples."""
  done = 0
  for batch in batches:
    yield batch
    done += int((~batch.is_padding).sum())
    print_progress(done, f'of {total} examples')


def print_progress(done: int, rest: str) -> None:
  """A line on the terminal that the next one replaces; nothing elsewhere."""
  if sys.stdout.isatty():
    print(f'Measured {done} {rest}', end='\r', flush=True)


def evaluate(
  workdir: str,
  dataset: str,
  split: str = 'test',
  data_dir: str | None = None,
  limit: int = 0,
  mean_hand_examples: int = 2000,
  mano_dir: str | None = None,
  submission: str | None = None,
  turns: int = 1,
) -> tuple[dict[str, Any], pathlib.Path]:
  """Measures a run on a split; writes and returns the results, with their path.

  They are those of `evaluate_batches` with `dataset`, `split`, `test_time_augmentation` and
  `mean_hand_examples`: 0 where the training split has no 3D labels, and so no baseline. On a
  benchmark (`BENCHMARKS`) they also hold the `official` scores, where its split is labelled, as
  `evaluate_predictions` gives them, and all predictions are written to `submission`, where given.
  With `turns` above 1 every estimate is the mean over that many (`averaged_over_turns`), and the
  results have a file of their own.

  Raises:
    FileNotFoundError, ValueError: no run, checkpoint, data set, split or hand model to be read, or
      a submission that would not be taken, or no turn at all.
  """
  benchmark = BENCHMARKS.get(dataset)
  check_submission_flags(dataset, submission, split, limit)
  augmentation = augmentation_name(turns)
  config, variables = load_for_inference(workdir)
  data = data_to_measure(config, dataset, data_dir)
  count = limit or (0 if data.data_dir else RENDERED_EXAMPLES)
  source = create_source(data, split, config.model.image_size, count)
  if submission:
    check_split_is_whole(submission, dataset, split, *prepared_manifest(dataset, data.data_dir))
  model = load_run_model(workdir, mano_dir)
  mean_hand = mean_hand_of(workdir, data, mean_hand_examples)
  config = dataclasses.replace(config, data=data)
  estimate_fn = averaged_over_turns(make_estimate_fn(config, variables, model), turns)
  run = None
  if benchmark:
    labels = PreparedLabels(data.dataset, data.data_dir, split)
    run = BenchmarkRun(benchmark, estimate_fn, model, labels)
  make_batches = evaluation_batches(source, config, len(model.v_template))
  with make_batches as batches, naming_misfits(workdir):
    results = measure(
      estimate_fn,
      run,
      with_progress(batches, len(source)),
      extended_joint_regressor(model),
      mean_hand,
    )
  results = {
    'dataset': dataset,
    'split': split,
    'test_time_augmentation': augmentation,
    **results,
  }
  if submission:
    results['submitted'] = len(source)
  results['mean_hand_examples'] = mean_hand.examples if mean_hand else 0
  if run and run.scores.samples:
    results['official'] = scores_record(
      dataset, run.scores, workdir=workdir, split=split, test_time_augmentation=augmentation
    )
  suffix = f'-{turns}_turns' if turns > 1 else ''
  path = pathlib.Path(workdir) / 'evaluation' / f'{dataset}-{split}{suffix}.json'
  write_whole(path, json.dumps(results, indent=2) + '\n')
  if run and benchmark and submission:
    hands = run.predictions()
    write_submission(submission, hands.joints, hands.vertices, benchmark, len(source))
  return results, path


def check_submission_flags(dataset: str, submission: str | None, split: str, limit: int) -> None:
  """Refuses a submission that no server would take, before anything is measured.

  Raises:
    ValueError: naming the flags.
  """
  if submission is None:
    return
  if dataset not in BENCHMARKS:
    raise ValueError(
      f'--submission={submission} needs --dataset one of {", ".join(BENCHMARKS)}, which have '
      f'servers for it; --dataset={dataset} has none.'
    )
  if split != EVALUATION_SPLIT:
    raise ValueError(
      f'--submission={submission} holds the evaluation split, which is {EVALUATION_SPLIT!r} here: '
      f'leave --split={split} out.'
    )
  if limit:
    raise ValueError(
      f'--submission={submission} holds every example of the split: leave --limit={limit} out.'
    )
  check_submission_path(submission)


def measure(
  estimate_fn: EstimateFn,
  run: BenchmarkRun | None,
  batches: Iterable[HandBatch],
  joint_regressor: Any,
  mean_hand: MeanHand | None,
) -> dict[str, Any]:
  """`evaluate_batches`, with the benchmark's predictions taken in on the way.

  A benchmark's split may have no labels at all, in which case there are `examples` of 0 alone.
  """
  if run is None:
    return evaluate_batches(estimate_fn, batches, joint_regressor, mean_hand=mean_hand)
  walk = run.walk(batches)
  try:
    return evaluate_batches(run.estimate, walk, joint_regressor, mean_hand=mean_hand)
  except ValueError:
    if run.has_batch_labels or not run.is_finished:
      raise
    return {'examples': 0}


def summary(results: dict[str, Any]) -> str:
  """The two lines that say what the table means: the baseline, and the gain over it."""
  if not results['examples'] and 'joints_2d' not in results:
    return 'No example of the split has labels: there is nothing to measure here.'
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


def submission_size(results: dict[str, Any]) -> str:
  """How many samples a submission has, and how many its server expects where they are others."""
  benchmark, samples = BENCHMARKS[results['dataset']], results['submitted']
  if samples == benchmark.samples:
    return f'{samples} samples'
  return (
    f'{samples} samples, which the server will not take: the genuine evaluation split of '
    f'{benchmark.title} has {benchmark.samples}'
  )


# Flags of one form of the command alone.
_RUN_FLAGS = (
  'workdir',
  'split',
  'data_dir',
  'limit',
  'mean_hand_examples',
  'mano_dir',
  'submission',
  'turns',
)
_FILE_FLAGS = ('predictions', 'ground_truth', 'test_time_augmentation', 'allow_implausible')


def check_forms(given: Collection[str]) -> None:
  """Whether the flags that were given belong to one form of the command.

  Raises:
    ValueError: naming those that do not go together, or what is missing.
  """
  run = [f'--{name}' for name in _RUN_FLAGS if name in given]
  file = [f'--{name}' for name in _FILE_FLAGS if name in given]
  if run and file:
    raise ValueError(
      f'{", ".join(run)} and {", ".join(file)} do not go together: give --workdir to measure a '
      'trained run, or --predictions and --ground_truth to measure a file.'
    )
  for other, needed in (('predictions', 'ground_truth'), ('ground_truth', 'predictions')):
    if other in given and needed not in given:
      raise ValueError(f'--{other} needs --{needed} beside it.')
  if not {'workdir', 'predictions'} & set(given):
    raise ValueError(
      'Say what to measure: --workdir, the folder of a trained run, or --predictions, a pred.json '
      'or pred.zip, with its --ground_truth.'
    )
  if 'dataset' not in given:
    raise ValueError('--dataset is missing: the data set to measure on.')


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  benchmarks = ', '.join(BENCHMARKS)
  flags.DEFINE_string('workdir', None, 'Folder of a trained run.')
  flags.DEFINE_string('dataset', None, f'Data set to measure on; of predictions: {benchmarks}.')
  flags.DEFINE_string('split', EVALUATION_SPLIT, 'Split to measure a run on.')
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
  flags.DEFINE_string(
    'submission', None, "File to write a run's predictions to, for the server: .json or .zip."
  )
  flags.DEFINE_integer(
    'turns', 1, 'Averages each estimate of a run over so many turns of its crop; tables say so.', 1
  )
  flags.DEFINE_string('predictions', None, 'pred.json or pred.zip to measure, without a run.')
  flags.DEFINE_string(
    'ground_truth', None, 'Folder with evaluation_xyz.json and evaluation_verts.json.'
  )
  flags.DEFINE_string(
    'test_time_augmentation',
    NO_AUGMENTATION,
    'What the predictions were averaged over, to name it.',
  )
  flags.DEFINE_bool(
    'allow_implausible', False, 'Measures predictions that look to be in another unit or axes.'
  )
  flags.DEFINE_string(
    'output', None, 'File to write the official scores to, for experiments.scoreboard.'
  )
  flags.DEFINE_string('pck', None, 'Folder to write the PCK curves to: pck.csv and pck.png.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  try:
    check_forms({name for name in FLAGS if FLAGS[name].present})
    scores = main_predictions() if FLAGS.predictions else main_run()
    if scores is None and (FLAGS.output or FLAGS.pck):
      raise ValueError(
        f'--output and --pck hold official scores; {FLAGS.dataset} has none, or no labels for them.'
      )
    if scores and FLAGS.output:
      write_whole(FLAGS.output, json.dumps(scores, indent=2) + '\n')
      print(f'Scores written to {FLAGS.output}.')
    if scores and FLAGS.pck:
      table, figure = write_curves(FLAGS.pck, scores)
      print(f'PCK curves written to {table} and {figure}.')
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')


def main_predictions() -> dict[str, Any]:
  """Measures the file that the flags name; the scores."""
  scores = evaluate_predictions(
    FLAGS.predictions,
    FLAGS.dataset,
    FLAGS.ground_truth,
    FLAGS.test_time_augmentation,
    FLAGS.allow_implausible,
    report=lambda done: print_progress(done, 'samples'),
  )
  print(f'{FLAGS.predictions} on {BENCHMARKS[FLAGS.dataset].title}:')
  print(official_summary(scores))
  return scores


def main_run() -> dict[str, Any] | None:
  """Measures the run that the flags name; the official scores, where there are any."""
  results, path = evaluate(
    FLAGS.workdir,
    FLAGS.dataset,
    FLAGS.split,
    FLAGS.data_dir,
    FLAGS.limit,
    FLAGS.mean_hand_examples,
    FLAGS.mano_dir,
    FLAGS.submission,
    FLAGS.turns,
  )
  print(f'{FLAGS.workdir} on {FLAGS.dataset}, split {results["split"]}:')
  if table := format_table(results):
    print(table)
  print(summary(results))
  scores = results.get('official')
  if scores:
    print(f'As the official evaluation of {BENCHMARKS[FLAGS.dataset].title} measures:')
    print(official_summary(scores))
  print(f'Written to {path}.')
  if FLAGS.submission:
    print(f'Submission written to {FLAGS.submission}: {submission_size(results)}.')
  return scores


if __name__ == '__main__':
  define_flags()
  app.run(main)
