"""Trains an experiment: python -m experiments.train --config=toy --workdir=runs/toy."""

import dataclasses
from collections.abc import Sequence

import jax
from absl import flags

from experiments.configs.names import get_config
from experiments.launching import launch, start
from experiments.path_flags import define_compilation_cache, define_path, define_paths
from hand_jax.config import ExperimentConfig, validate_config
from hand_jax.config_text import apply_overrides
from hand_jax.runs.hand_models import load_training_model
from hand_jax.training.loop import train_and_evaluate

FLAGS = flags.FLAGS
flags.DEFINE_string('config', None, 'Named experiment; `python -m experiments.configs` lists them.')
define_path('workdir', None, 'Folder of the run; a run found there is continued.')
flags.DEFINE_multi_string('set', [], 'A setting, as a.b=value; may be repeated.')
flags.DEFINE_bool(
  'extend',
  False,
  'Trains a run found there for more steps than it was made for: training.num_steps of all. The '
  "learning rate's schedule is restated for them, so that it rises and falls once more.",
)
define_paths(
  'init_from',
  'Folder of a run whose newest parameters a new run takes by name; may be repeated, the first '
  'goes before the others.',
)
define_path(
  'camera_prior',
  None,
  "Folder of the run whose camera model is the frozen prior of loss.kind='elbo'.",
)
define_path(
  'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
)
define_compilation_cache()
flags.DEFINE_bool('distributed', False, 'Join the other hosts of a multi-host run first.')
flags.DEFINE_string('coordinator', None, 'host:port of process 0, where no cluster tells it.')
flags.DEFINE_integer('num_processes', None, 'Number of hosts, where no cluster tells it.')
flags.DEFINE_integer('process_id', None, "This host's number, where no cluster tells it.")
flags.mark_flags_as_required(['config', 'workdir'])


def choose_config(
  name: str, settings: Sequence[str], init_from: Sequence[str], camera_prior: str | None
) -> ExperimentConfig:
  """The named experiment with its settings, and the runs it starts from where flags name them.

  Raises:
    ValueError: see `apply_overrides`; or what a flag gives is also given as a setting.
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
  """Reads the flags, then one call."""
  start(argv, 'settings are given as --set a.b=value')
  if FLAGS.distributed:
    jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
  config = choose_config(FLAGS.config, FLAGS.set, FLAGS.init_from, FLAGS.camera_prior)
  workdirs = (FLAGS.workdir, *config.training.init_from)
  model = load_training_model(config.data.dataset, FLAGS.mano_dir, workdirs)
  train_and_evaluate(config, FLAGS.workdir, model, extend=FLAGS.extend)


if __name__ == '__main__':
  launch(main, failures=[FloatingPointError])
