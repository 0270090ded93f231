"""Finds damaged checkpoints by the list of their files, and moves them away."""

import json

from hand_jax.files.buckets import AnyPath, absolute_path, move_tree, open_path, remove_tree
from hand_jax.runs.sources import CHECKPOINTS_NAME, FILES_NAME, list_files, saved_steps

DAMAGED_NAME = 'damaged_checkpoints'


def find_damage(checkpoint: AnyPath) -> str:
  """Describes the damage of a checkpoint's files, or returns an empty text.

  Checkpoints of early versions have no list of their files. Orbax then finds the damage, but prints
  pages about it.
  """
  listed = checkpoint / FILES_NAME
  if not listed.exists():
    return ''
  try:
    expected = json.loads(listed.read_bytes())
  except ValueError:  # JSON and UTF-8 alike
    return f'{FILES_NAME} is cut short'
  found = list_files(checkpoint)
  for name, (size, checksum) in expected.items():
    if name not in found:
      return f'{name} is missing'
    if found[name][0] != size:
      return f'{name} has {found[name][0]} bytes, not {size}'
    if found[name][1] != checksum:
      return f'{name} has other content than was saved'
  return ''


def unreadable(checkpoint: AnyPath, reason: str) -> ValueError:
  """Makes the error about a checkpoint that cannot be read."""
  return ValueError(
    f'Checkpoint {checkpoint} cannot be read; it is damaged or incomplete ({reason}). '
    'Remove that folder to continue from an earlier one.'
  )


def set_damaged_aside(workdir: str) -> list[str]:
  """Moves away damaged checkpoints that are newer than the newest whole one.

  The run then continues from the whole one and saves those steps again. If none is whole, nothing
  is moved, so that the run does not silently start from the beginning.

  Returns:
    One line about each checkpoint that was moved.

  Raises:
    ValueError: all checkpoints are damaged. The message names the newest.
  """
  folder = absolute_path(workdir) / CHECKPOINTS_NAME
  damages: dict[int, str] = {}
  for step in sorted(saved_steps(folder), reverse=True):
    if not (damage := find_damage(folder / str(step))):
      break
    damages[step] = damage
  else:
    if damages:
      newest = max(damages)
      raise ValueError(
        f'All checkpoints in {folder} are damaged, the newest, {newest}, because '
        f'{damages[newest]}. They stay as they are. Restore one, or train in another --workdir.'
      )
  aside = open_path(workdir) / DAMAGED_NAME
  for step in damages:
    aside.mkdir(exist_ok=True)
    remove_tree(aside / str(step))
    move_tree(folder / str(step), aside / str(step))
  return [
    f'Checkpoint {folder / str(step)} is damaged ({damage}). It lies in {aside} now, and the one '
    'before is used.'
    for step, damage in damages.items()
  ]
