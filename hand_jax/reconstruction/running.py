"""Reconstructs the photos that the flags name, and writes the files.

A mistake in the flags is reported before the first photo. If one photo fails, the failure is
reported, and the other photos are still processed.
"""

import errno
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from hand_jax.data.photos import check_box, photo_size, read_mask, read_photo
from hand_jax.files.outputs import check_output_folder
from hand_jax.fitting.released_weights import release_digest
from hand_jax.mano.assets import hand_model_name, is_free_hand
from hand_jax.models.bundled import bundled_digest
from hand_jax.reconstruction.camera_placement import check_focal_length, check_lens
from hand_jax.reconstruction.files import (
  OUTPUT_SUFFIXES,
  hand_files,
  output_suffixes,
  photo_files,
  write_together,
)
from hand_jax.reconstruction.folder_lock import locked_folder
from hand_jax.reconstruction.hand_reconstructor import (
  MAX_HANDS,
  HandReconstructor,
  PhotoRequest,
  read_request,
)
from hand_jax.reconstruction.numbers import side_score
from hand_jax.reconstruction.output_names import (
  check_names,
  check_reserved,
  hand_names,
  result_paths,
)
from hand_jax.reconstruction.reconstruction import Reconstruction
from hand_jax.reconstruction.records import Entry, OutputRecord, file_sha256
from hand_jax.reconstruction.tasks import PhotoOptions, PhotoTask, plan_tasks
from hand_jax.reconstruction.trained_network import check_mask
from hand_jax.runs.hand_models import hand_model_digest
from hand_jax.version import VERSION

# Remedies for errors of the operating system.
_REMEDIES: dict[int | None, str] = {
  errno.ENOSPC: '. Free some room, then run the same command again.',
  errno.ENAMETOOLONG: '. Rename the photo.',
}


class PhotoOutcome(NamedTuple):
  """The result of a photo, with a line of text for each hand."""

  lines: tuple[str, ...]
  failed: bool = False
  is_written: bool = False
  """Whether files of a hand were written."""


class PhotoRun(NamedTuple):
  """Photos that are ready to be reconstructed, after all flags were checked."""

  tasks: list[PhotoTask]
  options: PhotoOptions
  reconstructor: HandReconstructor
  record: OutputRecord

  def outcomes(self) -> Iterator[PhotoOutcome]:
    """Reconstructs one photo after the other, each when its outcome is asked for.

    Raises:
      BlockingIOError: another command writes to the output folder.
      OutputFolderError: nothing can be written there.
    """
    with locked_folder(self.record.folder):
      self.record.reload()  # another command may have ended since this one began
      for task in self.tasks:
        yield _try_photo(task, self)


def prepare_run(options: PhotoOptions) -> PhotoRun:
  """Loads the networks and checks everything that can be checked before the first photo.

  Args:
    options: the flags.

  Returns:
    The run, which has one outcome for each photo. A photo without hands is no failure. A photo that
    cannot be read, estimated or written has failed, and the photos after it are still processed.

  Raises:
    ValueError, OSError: an option is wrong. The message names it, and no photo is processed.
  """
  if options.focal is not None:
    check_focal_length(options.focal)
  tasks = plan_tasks(options)  # first, because most mistakes are found here
  output = pathlib.Path(str(options.output))
  check_output_folder(output)
  record = OutputRecord(output, options.overwrite)
  tasks = plan_tasks(options, result_paths(record))
  if options.focal is not None:
    _check_focal(tasks, options.focal)
  if options.bbox or options.hand_mask is not None:
    _check_against_photo(tasks[0])
  refine = options.refine == 'on'
  reconstructor = HandReconstructor(options.workdir, options.mano_dir, refine)
  network = reconstructor.network
  has_colors = network is None or network.config.model.texture.enabled
  suffixes = output_suffixes(has_colors, is_free_hand(reconstructor.model))
  photos = [task.path for task in tasks]
  check_names(photos, record, suffixes, MAX_HANDS, options.overwrite, _other_inputs(options))
  run = PhotoRun(tasks, options, reconstructor, record)
  if not options.overwrite:
    _check_same_settings(run)
  return run


def read_task(task: PhotoTask, focal_length_px: float | None) -> PhotoRequest:
  """Reads a task's photo and mask, and checks that boxes and mask fit the photo.

  Raises:
    FileNotFoundError, ValueError: the message names the file or the flag.
  """
  size = photo_size(task.path)
  if focal_length_px is not None:
    check_lens(focal_length_px, size, '--focal')
  request = read_request(task.path, focal_length_px)
  for box in task.boxes_xywh:
    try:
      check_box(box, *size, str(task.path))
    except ValueError as error:
      raise ValueError(f'--bbox: {error}') from None
  return request._replace(
    boxes_xywh=task.boxes_xywh,
    sides=task.sides,
    hand_mask=None if task.hand_mask is None else _read_mask(task, size),
  )


def _other_inputs(options: PhotoOptions) -> dict[str, str]:
  """The files and folders that are read besides the photos, and which flag names each."""
  named = {
    '--hand_mask': options.hand_mask,
    '--workdir': options.workdir,
    '--mano_dir': options.mano_dir,
    '$MANO_DIR': os.path.expanduser(os.environ.get('MANO_DIR', '')),
  }
  return {path: flag for flag, path in named.items() if path and os.path.exists(path)}


def _check_same_settings(run: PhotoRun) -> None:
  """Refuses a photo whose name has results of another photo or other settings."""
  for task in run.tasks:
    try:
      sha256 = file_sha256(task.path)
    except OSError:
      continue  # reported when its turn comes
    _check_same_results(task, run, sha256, _settings(task, run))


def _check_same_results(
  task: PhotoTask, run: PhotoRun, sha256: str, settings: dict[str, Any]
) -> None:
  differences = run.record.differences(task.path.stem, sha256, settings)
  if differences:
    raise FileExistsError(
      f'{run.record.folder} has other results for {task.path}: {", ".join(differences)}. They stay '
      'as they are. Name another --output, or replace them by --overwrite.'
    )


def _settings(task: PhotoTask, run: PhotoRun) -> dict[str, Any]:
  """Gathers everything but the photo itself that determines a photo's results."""
  model, network = run.reconstructor.model, run.reconstructor.network
  mask = None
  if task.hand_mask is not None:
    mask = hashlib.sha256(pathlib.Path(task.hand_mask).read_bytes()).hexdigest()
  return {
    'version': VERSION,
    'weights': release_digest() if network is None else network.digest,
    'mask_weights': bundled_digest('hand_mask'),
    'texture_weights': bundled_digest('hand_texture') if network is None else None,
    'hand_model': {'name': hand_model_name(model), 'sha256': hand_model_digest(model)},
    'boxes_xywh': [list(map(float, box)) for box in task.boxes_xywh],
    'sides': list(task.sides),
    'focal_length_px': run.options.focal,
    'hand_mask_sha256': mask,
    'axes': run.options.axes,
  }


def _check_focal(tasks: Sequence[PhotoTask], focal_length_px: float) -> None:
  """Raises a ValueError when no lens of any of the photos has the focal length.

  Where it fits some of the photos, the others are told in their turn.
  """
  first_misfit: ValueError | None = None
  for task in tasks:
    try:
      size = photo_size(task.path)
    except (ValueError, OSError):
      continue  # told in its turn
    try:
      check_lens(focal_length_px, size, '--focal')
    except ValueError as error:
      first_misfit = first_misfit or ValueError(f'{task.path}: {error}')
    else:
      return
  if first_misfit is not None:
    raise first_misfit


def _check_against_photo(task: PhotoTask) -> None:
  """Refuses a --bbox or --hand_mask that does not fit its photo."""
  try:
    read_request(task.path)
  except (ValueError, OSError):
    return  # the photo is damaged, which is reported when its turn comes
  read_task(task, None)


def _read_mask(task: PhotoTask, size: tuple[int, int]) -> Bool[np.ndarray, 'height width']:
  """Reads the mask of a photo's hand from an image of its size, see `read_mask`."""
  flag = f'--hand_mask={task.hand_mask}'
  try:
    mask = read_mask(str(task.hand_mask))
  except (ValueError, OSError) as error:
    raise ValueError(f'{flag}: {error}') from error
  check_mask(mask, *size, str(task.path), flag)
  if mask.all() or not mask.any():
    brightest = int(read_photo(str(task.hand_mask)).max())
    hint = f' Its highest value is {brightest}; white is 255.' if 0 < brightest < 128 else ''
    raise ValueError(
      f'{flag} marks {"every pixel" if mask.any() else "no pixel"}: expected white where the photo '
      'shows the hand and black elsewhere, or the hand cut out on transparency. Leave the flag '
      f'out if you do not have such a mask.{hint}'
    )
  return mask


def _try_photo(task: PhotoTask, run: PhotoRun) -> PhotoOutcome:
  """Reconstructs one photo, or reports why that is not possible."""
  path, entry = task.path, None
  try:
    settings = _settings(task, run)
    sha256 = file_sha256(path) if os.path.isfile(path) else ''
    if not run.options.overwrite and run.record.is_done(path.stem, sha256, settings):
      count = len(run.record.entries[path.stem]['hands'])
      hands = f'{count or "no"} hand{"s" * (count != 1)}'
      return PhotoOutcome((f'{path.name}: done before with the same settings, {hands}',))
    check_reserved(path, OUTPUT_SUFFIXES)
    if not run.options.overwrite:
      _check_same_results(task, run, sha256, settings)
    begin = time.perf_counter()
    request = read_task(task, run.options.focal)
    (hands,) = run.reconstructor.reconstruct([request])
    entry = _write_photo(task, run, hands, {'sha256': sha256, 'settings': settings}, begin)
    files = [hand['files'][0] for hand in entry['hands']]
    lines = [
      f'{_describe(path, hand)} -> {run.record.folder / file}'
      for hand, file in zip(hands, files, strict=True)
    ]
    lines += [f'{path.name}: no hand found{where}' for where in _empty_places(task, hands)]
    return PhotoOutcome(tuple(lines), is_written=bool(hands))
  except (ValueError, OSError) as error:
    reason = ' '.join(str(error).split()) + _REMEDIES.get(getattr(error, 'errno', None) or 0, '')
    line = reason if str(path) in reason else f'{path}: {reason}'
    return PhotoOutcome((_remember_failure(task, run, line),), failed=True)


def _write_photo(
  task: PhotoTask,
  run: PhotoRun,
  hands: list[Reconstruction],
  record: dict[str, Any],
  begin: float,
) -> Entry:
  """Writes all files of a photo at once, then its entry, and returns the entry."""
  stem, contents, described = task.path.stem, {}, []
  names = hand_names(stem, [hand.side for hand in hands])
  for name, hand in zip(names, hands, strict=True):
    made = {'photo_sha256': record['sha256'], 'settings': record['settings']}
    files = hand_files(hand, name, run.options.axes, made)
    contents |= files
    described.append(
      {
        'side': hand.side,
        'score': None if hand.detection is None else hand.detection.presence,
        'side_score': side_score(hand),
        'box_xywh': [float(value) for value in hand.box_xywh],
        'files': list(files),
        'sigma_mm_mean': float(hand.vertex_sigma_mm.mean()),
      }
    )
  if hands:
    contents |= photo_files(hands, stem)
    run.record.begin({'photo': str(task.path), 'files': list(contents), **record})
    write_together(run.record.folder, contents)
  seconds = (time.perf_counter() - begin) / max(len(hands), 1)
  described = [{**hand, 'seconds': seconds} for hand in described]
  entry = {'photo': str(task.path), 'hands': described, 'files': list(contents), **record}
  run.record.put(entry)
  return entry


def _remember_failure(task: PhotoTask, run: PhotoRun, line: str) -> str:
  """Records why a photo could not be done. Results from before stay."""
  entry = run.record.entries.get(task.path.stem, {})
  if entry.get('files') and 'error' not in entry:
    return line
  try:
    run.record.put({'photo': str(task.path), 'hands': [], 'files': [], 'error': line})
  except OSError as error:
    return f'{line} (That could not be recorded either: {error})'
  return line


def _empty_places(task: PhotoTask, hands: Sequence[Reconstruction]) -> list[str]:
  """Says of each given box without a hand which it is, or of a whole photo nothing more."""
  if not task.boxes_xywh:
    return [] if hands else ['']
  full = {hand.given_box for hand in hands}
  return [
    f' in --bbox={",".join(f"{value:g}" for value in box)}'
    for number, box in enumerate(task.boxes_xywh)
    if number not in full
  ]


def _describe(path: pathlib.Path, hand: Reconstruction) -> str:
  sigma = hand.vertex_sigma_mm
  certainty = ''
  if hand.detection is not None and hand.detection.side_score < 1:
    certainty = f' ({100 * hand.detection.side_score:.0f} % sure)'
  return (
    f'{path.name}: {hand.side} hand{certainty}, sigma {sigma.mean():.1f} mm on average '
    f'({sigma.min():.1f} to {sigma.max():.1f})'
  )
