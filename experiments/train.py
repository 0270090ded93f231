"""Trains an experiment.

python -m experiments.train --config=toy --workdir=runs/toy
"""

import dataclasses
from collections.abc import Sequence

import jax
from absl import flags

from experiments.configs.names import get_config
from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_compilation_cache, define_path, define_paths
from hand_jax.config import ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.files.paths import RUN_SCHEMES
from hand_jax.runs.hand_models import load_training_model
from hand_jax.setting_checks import validate_config
from hand_jax.training.dry_run import dry_run
from hand_jax.training.hosts import failing_together, join_hosts
from hand_jax.training.loop import train_and_evaluate
from hand_jax.training.profiling import parse_profiled_steps

FLAGS = flags.FLAGS
flags.DEFINE_string('config', None, 'An experiment. `python -m experiments.configs` lists them.')
define_path(
  'workdir',
  None,
  'Folder of the run, or gs://BUCKET/FOLDER. A run that is already there is continued.',
  schemes=RUN_SCHEMES,
)
flags.DEFINE_multi_string('set', [], 'A setting, as a.b=value. May be repeated.')
flags.DEFINE_bool(
  'extend',
  False,
  'Trains a run in --workdir for more steps than it was made for. training.num_steps counts its '
  'former steps too. The schedule of the learning rate is computed again for all steps, so that '
  'the rate jumps up.',
)
define_paths(
  'init_from',
  'Folder of a run whose newest parameters a new run copies where their names match. May be '
  'repeated, and earlier runs take precedence.',
  schemes=RUN_SCHEMES,
)
define_path(
  'camera_prior',
  None,
  "Folder of the run whose camera model is the frozen prior of loss.kind='elbo'.",
  schemes=RUN_SCHEMES,
)
define_path(
  'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
)
define_compilation_cache()
flags.DEFINE_bool(
  'dry_run', False, 'Checks config, data and memory, takes one step, and writes nothing.'
)
flags.DEFINE_string(
  'profile_steps', None, 'FIRST:LAST: steps to trace into WORKDIR/profile, for TensorBoard.'
)
flags.DEFINE_bool('distributed', False, 'Joins the other hosts of a multi-host run first.')
flags.DEFINE_string('coordinator', None, 'host:port of process 0. Default: detected by JAX.')
flags.DEFINE_integer('num_processes', None, 'Number of hosts. Default: detected by JAX.')
flags.DEFINE_integer('process_id', None, 'Number of this host. Default: detected by JAX.')
flags.mark_flags_as_required(['config', 'workdir'])


def choose_config(
  name: str, settings: Sequence[str], init_from: Sequence[str], camera_prior: str | None
) -> ExperimentConfig:
  """Returns the named experiment with its settings, and with the runs it starts from.

  Args:
    name: the name of the experiment.
    settings: overrides as `a.b=value`.
    init_from: folders of runs that give a new run its parameters, or nothing to keep the config's.
    camera_prior: folder of the run with the frozen camera model, or None to keep the config's.

  Raises:
    ValueError: a setting does not fit (see `apply_overrides`), or a flag and a setting give the
      same.
  """
  config = apply_overrides(get_config(name), settings)
  given = {}
  if init_from:
    given['init_from'] = tuple(init_from)
  if camera_prior is not None:
    given['camera_prior'] = camera_prior
  for key in given:
    if any(text.partition('=')[0].strip() == f'training.{key}' for text in settings):
      raise ValueError(f'--{key} and --set training.{key} are the same setting: give one of them.')
  training = dataclasses.replace(config.training, **given)
  return validate_config(dataclasses.replace(config, training=training))


def main(argv: list[str]) -> None:
  """Reads the flags and trains the experiment."""
  start(argv, 'settings are given as --set a.b=value')
  join_hosts(FLAGS.distributed, FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
  with failing_together():
    config = choose_config(FLAGS.config, FLAGS.set, FLAGS.init_from, FLAGS.camera_prior)
    workdirs = (FLAGS.workdir, *config.training.init_from)
    model = load_training_model(config.data.dataset, FLAGS.mano_dir, workdirs)
    steps, text = config.training.num_steps, FLAGS.profile_steps
    profile = None if text is None else parse_profiled_steps(text, steps)
  if FLAGS.dry_run:
    lines = dry_run(config, FLAGS.workdir, model, extend=FLAGS.extend)
    # Every host takes part, and the first one prints.
    print_lines(line for line in lines if jax.process_index() == 0)
    return
  train_and_evaluate(config, FLAGS.workdir, model, extend=FLAGS.extend, profile=profile)


if __name__ == '__main__':
  launch(main, failures=[FloatingPointError, MemoryError])
