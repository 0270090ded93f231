"""Reports on a run by metrics in JSON lines and TensorBoard, a progress line, and overlays."""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.writing import append_line, write_whole
from hand_jax.geometry.cameras import denormalize_points
from hand_jax.mano.joints import BONES
from hand_jax.training.board import Board
from hand_jax.types import RenderedHand

METRICS_NAME = 'metrics.jsonl'
TILE_SIDE = 256
_TRUTH_COLOR, _ESTIMATE_COLOR = (60, 220, 60), (255, 70, 70)
# These metrics are no loss terms, so the progress line does not list them among the terms.
_NOT_TERMS = (
  *('step', 'total', 'learning_rate', 'gradient_norm', 'skipped_steps', 'examples_per_second'),
)


class RunLog:
  """A log that writes a workdir's `metrics.jsonl` and TensorBoard files, and prints progress.

  A killed run may have written metrics after its last checkpoint. Opening the log at `start_step`
  first drops the lines of later steps, since a resumed run writes them again.
  """

  def __init__(self, workdir: str, start_step: int, num_steps: int):
    self._path = open_path(workdir) / METRICS_NAME
    self._num_steps = num_steps
    _drop_later_lines(self._path, start_step)
    self._board = Board(self._path.parent / 'tensorboard', start_step + 1)

  def write(self, metrics: dict[str, float | int]) -> None:
    """Writes one line for one step. `metrics` holds `step` and every value by name."""
    append_line(self._path, json.dumps(metrics))
    for name, value in metrics.items():
      if name != 'step':
        self._board.add_scalar(name, value, int(metrics['step']))
    self._board.flush()
    print(progress_line(metrics, self._num_steps), flush=True)

  def write_image(self, name: str, image: UInt8[np.ndarray, 'height width 3'], step: int) -> None:
    """Saves a picture as `overlays/NAME_STEP.png` and into TensorBoard.

    Args:
      name: name of the picture.
      image: the picture in RGB.
      step: number of the step that it shows.
    """
    picture = cv2.imencode('.png', image[..., ::-1])[1].tobytes()
    write_whole(self._path.parent / 'overlays' / f'{name}_{step:07d}.png', picture)
    self._board.add_image(name, image, step)

  def close(self) -> None:
    """Closes the TensorBoard files."""
    self._board.close()

  def __enter__(self) -> 'RunLog':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def progress_line(metrics: dict[str, float | int], num_steps: int) -> str:
  """Formats step, total, loss terms, validation figures, examples per second and time left.

  The validation figures are the total and PA-MPJPE, or the 2D error where there is none in 3D.
  Skipped steps are listed if there are any.
  """
  parts = [f'step {metrics["step"]}/{num_steps}']
  if skipped := metrics.get('skipped_steps'):
    parts.append(f'{skipped} step(s) skipped')
  if 'total' in metrics:  # It is missing if all steps were skipped.
    parts.append(f'total {metrics["total"]:.4g}')
  terms = [
    f'{name} {value:.4g}'
    for name, value in metrics.items()
    if name not in _NOT_TERMS and not name.startswith(('validation', 'seconds'))
  ]
  if terms:
    parts.append(', '.join(terms))
  validation = {name: value for name, value in metrics.items() if name.startswith('validation')}
  has_3d = any(name.endswith('pa_mpjpe_mm') for name in validation)
  error = 'pa_mpjpe_mm' if has_3d else 'joints_2d_px'
  parts += [
    f'{name.replace("_", " ")} {value:.4g}'
    for name, value in validation.items()
    if name.endswith(('total', error))
  ]
  parts.append(f'{metrics["examples_per_second"]:.1f} examples/s')
  parts.append(f'{format_duration(metrics["seconds_left"])} left')
  return ' | '.join(parts)


def validation_metrics(results: dict[str, Any]) -> dict[str, float]:
  """Flattens the results of `evaluate_batches` to names that begin with `validation_`.

  The posterior, or the only branch, has this prefix. A prior beside a posterior has
  `validation_prior_`. The 2D error is `..._joints_2d_px`. Errors that the data have no labels for
  are left out.
  """
  pixels = results.get('joints_2d', {})
  has_posterior = 'posterior' in results or 'posterior_px' in pixels
  prior_prefix = 'validation_prior_' if has_posterior else 'validation_'
  metrics = {}
  for branch, prefix in (('posterior', 'validation_'), ('prior', prior_prefix)):
    metrics |= {f'{prefix}{name}': value for name, value in results.get(branch, {}).items()}
    if f'{branch}_px' in pixels:
      metrics[f'{prefix}joints_2d_px'] = pixels[f'{branch}_px']
  return metrics


def format_duration(seconds: float) -> str:
  """Formats hours, minutes and seconds as 1:02:03, or as 2:03 below an hour."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


class Stopwatch:
  """Measures examples per second and time left, from the steps since the last reading.

  The first step includes the compilation. It counts only if there are no others.

  Args:
    batch_size: number of examples in a step.
    num_steps: number of steps of the whole run.
    saved: the result of `to_json` in the checkpoint that the run continues from, or nothing.
  """

  def __init__(self, batch_size: int, num_steps: int, saved: Sequence[float] = ()):
    self._batch_size, self._num_steps = batch_size, num_steps
    steps, self._seconds = saved or (0, 0.0)
    self._steps = int(steps)
    self._first_seconds = math.nan
    self._last = time.monotonic()

  def to_json(self) -> list[float]:
    """Returns the steps and seconds since the last reading."""
    return [float(number) for number in self._measured()]

  def restart(self) -> None:
    """Forgets the time since the last step, which went into validation or a checkpoint."""
    self._last = time.monotonic()

  def step(self) -> None:
    """Counts a step that has just finished."""
    now = time.monotonic()
    if math.isnan(self._first_seconds):
      self._first_seconds = now - self._last
    else:
      self._steps += 1
      self._seconds += now - self._last
    self._last = now

  def read(self, step: int) -> dict[str, float]:
    """Returns `examples_per_second` and `seconds_left` at a step, and starts the next interval."""
    steps, seconds = self._measured()
    rate = steps / max(seconds, 1e-9)
    self._steps, self._seconds = 0, 0.0
    return {
      'examples_per_second': rate * self._batch_size,
      'seconds_left': (self._num_steps - step) / rate,
    }

  def _measured(self) -> tuple[int, float]:
    if self._steps or math.isnan(self._first_seconds):
      return self._steps, self._seconds
    return 1, self._first_seconds


def draw_skeleton(
  image: UInt8[np.ndarray, 'height width 3'],
  joints_image: Float[np.ndarray, 'joints 2'],
  color: tuple[int, int, int],
) -> None:
  """Draws the hand's bones into the image, in place and anti-aliased.

  Args:
    image: the picture to draw into, RGB.
    joints_image: joints in pixels. A joint that is not finite is unknown, and its bones are left
      out.
    color: colour of the bones, RGB.
  """
  known = np.all(np.isfinite(joints_image), axis=-1)
  # OpenCV counts from pixel centres. It takes four binary digits of sub-pixel position here.
  points = np.round((joints_image - 0.5) * 16)
  points = np.clip(np.where(known[:, None], points, 0), -(2**20), 2**20).astype(int)
  for parent, child in BONES:
    if not (known[parent] and known[child]):
      continue
    start, end = tuple(map(int, points[parent])), tuple(map(int, points[child]))
    cv2.line(image, start, end, color, 1, cv2.LINE_AA, shift=4)


def overlay_sheet(
  images: UInt8[np.ndarray, 'batch side side 3'],
  joints_normalized: Float[np.ndarray, 'batch joints 2'],
  truth_normalized: Float[np.ndarray, 'batch joints 2'],
  columns: int = 4,
) -> UInt8[np.ndarray, 'height width 3']:
  """Draws labelled skeletons in green and estimated ones in red over crops in a grid.

  Args:
    images: crops in RGB.
    joints_normalized: estimated joints in [-1, 1] over the crop.
    truth_normalized: labelled joints in the same unit, NaN where they are unknown.
    columns: number of crops in a row.
  """
  tiles = []
  for image, joints, truth in zip(images, joints_normalized, truth_normalized, strict=True):
    tile = cv2.resize(image, (TILE_SIDE, TILE_SIDE), interpolation=cv2.INTER_CUBIC)
    draw_skeleton(tile, np.asarray(denormalize_points(truth, TILE_SIDE)), _TRUTH_COLOR)
    draw_skeleton(tile, np.asarray(denormalize_points(joints, TILE_SIDE)), _ESTIMATE_COLOR)
    tiles.append(tile)
  return _grid(tiles, columns)


def texture_sheet(
  images: UInt8[np.ndarray, 'batch side side 3'], rendered: RenderedHand, columns: int = 4
) -> UInt8[np.ndarray, 'height width 3']:
  """Draws crops in a grid, each above the same crop with the coloured hand drawn over it.

  Args:
    images: crops in RGB.
    rendered: the hands of these crops, drawn into them.
    columns: number of crops in a row.
  """
  rgb = np.round(255 * np.clip(np.asarray(rendered.rgb), 0, 1)).astype(np.uint8)
  drawn = np.where(np.asarray(rendered.silhouette)[..., None], rgb, images)
  pairs = [
    cv2.resize(np.concatenate(pair), (TILE_SIDE, 2 * TILE_SIDE), interpolation=cv2.INTER_CUBIC)
    for pair in zip(images, drawn, strict=True)
  ]
  return _grid(pairs, columns)


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
  """Arranges tiles of one size in rows, and fills the last row up with black."""
  tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
  rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
  return np.concatenate(rows)


def _drop_later_lines(path: AnyPath, step: int) -> None:
  """Keeps the rows up to a step, and drops lines that are no rows, such as one cut by a kill."""
  if not path.exists():
    return
  lines = path.read_bytes().decode(errors='replace').splitlines()
  write_whole(path, ''.join(f'{line}\n' for line in lines if _is_row_until(line, step)))


def _is_row_until(line: str, step: int) -> bool:
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return False
  return isinstance(row, dict) and isinstance(row.get('step'), int) and row['step'] <= step
