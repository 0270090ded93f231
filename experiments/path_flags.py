"""Defines flags that hold paths, and expands a leading `~` to the user's home folder.

Shells expand it themselves only at the start of a word, not after `=`.
"""

from collections.abc import Sequence

from absl import flags

from hand_jax.files.outputs import OVERWRITE_HELP
from hand_jax.files.paths import expand_path

# The flags count as those of the command that asks for them, so that its --help shows them.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
  # absl keeps one parser for equal arguments, if they can be hashed.
  def __init__(self, schemes: Sequence[str] = ()):
    super().__init__()
    self._schemes = tuple(schemes)

  def parse(self, argument: str) -> str:
    return expand_path(str(super().parse(argument)), self._schemes)

  def flag_type(self) -> str:
    return 'path'


def define_path(
  name: str,
  default: str | None,
  help_text: str,
  required: bool = False,
  values: flags.FlagValues = flags.FLAGS,
  schemes: Sequence[str] = (),
) -> flags.FlagHolder:
  """Defines a flag that names one file or folder.

  Args:
    name: the name of the flag.
    default: the value where the flag is not given.
    help_text: the explanation that --help prints.
    required: whether the command ends with an error where the flag is missing.
    values: the flags to which this one is added.
    schemes: kinds of buckets in which it may lie, such as `gs`. Other addresses are refused.

  Returns:
    The holder of the flag's value.
  """
  return flags.DEFINE(
    _PathParser(schemes),
    name,
    default,
    help_text,
    values,
    serializer=flags.ArgumentSerializer(),
    required=required,
  )


def define_compilation_cache(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flag of the folder that keeps compiled programs. `start` of a launch reads it."""
  define_path(
    'compilation_cache_dir',
    None,
    'Folder that keeps compiled programs for later calls. An empty name keeps nothing. Default: '
    'hand-jax in $XDG_CACHE_HOME or ~/.cache.',
    values=values,
  )


def define_overwrite(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flag that lets a command's outputs replace any file, see `check_outputs`."""
  flags.DEFINE_bool('overwrite', False, OVERWRITE_HELP, flag_values=values)


def define_paths(
  name: str,
  help_text: str,
  values: flags.FlagValues = flags.FLAGS,
  schemes: Sequence[str] = (),
) -> flags.FlagHolder:
  """Defines a flag that may be repeated, each time with one file or folder.

  Args:
    name: the name of the flag.
    help_text: the explanation that --help prints.
    values: the flags to which this one is added.
    schemes: kinds of buckets in which they may lie, such as `gs`. Other addresses are refused.

  Returns:
    The holder of the list of paths.
  """
  serializer = flags.ArgumentSerializer()
  parser = _PathParser(schemes)
  return flags.DEFINE_multi(parser, serializer, name, [], help_text, flag_values=values)
