"""Checks which flags of an evaluation go together.

An evaluation is either of a run or of a file of predictions, and each form has flags of its own.
"""

from collections.abc import Collection

from hand_jax.evaluation.evaluate_run import RunRequest

# These flags belong to one form alone. Both forms have `dataset`, `output` and `pck`.
_RUN_FLAGS = tuple(name for name in RunRequest._fields if name != 'dataset')
_FILE_FLAGS = ('predictions', 'ground_truth', 'test_time_augmentation', 'allow_implausible')


def check_forms(given: Collection[str]) -> None:
  """Checks that the given flags belong to one form and are enough for it.

  Raises:
    ValueError: flags of both forms are given, or a flag that is needed is missing.
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
