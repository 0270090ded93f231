"""Flags that hold paths: a leading `~` means the user's home folder, wherever it stands."""

from absl import flags

from hand_jax.files.outputs import OVERWRITE_HELP
from hand_jax.files.paths import expand_path

# Flags belong to the command that asks for them: its --help shows them.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
  def parse(self, argument: str) -> str:
    return expand_path(super().parse(argument))

  def flag_type(self) -> str:
    return 'path'


def define_path(
  name: str,
  default: str | None,
  help_text: str,
  required: bool = False,
  values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder:
  """Defines a flag that names one file or folder."""
  return flags.DEFINE(
    _PathParser(),
    name,
    default,
    help_text,
    values,
    serializer=flags.ArgumentSerializer(),
    required=required,
  )


def define_compilation_cache(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flag of the folder that keeps compiled programs; `start` of a launch reads it."""
  define_path(
    'compilation_cache_dir',
    None,
    'Folder that keeps compiled programs for later calls. Default: hand-jax in $XDG_CACHE_HOME or '
    '~/.cache; an empty name keeps nothing.',
    values=values,
  )


def define_overwrite(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flag of commands whose outputs may replace any file; see `check_outputs`."""
  flags.DEFINE_bool('overwrite', False, OVERWRITE_HELP, flag_values=values)


def define_paths(
  name: str, help_text: str, values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder:
  """Defines a flag that may be repeated, each time with one file or folder."""
  serializer = flags.ArgumentSerializer()
  return flags.DEFINE_multi(_PathParser(), serializer, name, [], help_text, flag_values=values)
