"""Iterates over examples as `HandBatch`es.

The order is seeded and can be resumed. Each host gets its own rows, and threads make batches ahead
of time.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.data.augmentation import (
  CropChange,
  add_picture,
  make_labels,
  sample_crop_change,
  upright_change,
)
from hand_jax.data.cached_rows import CachedRows, check_cached_features
from hand_jax.data.example_sources import ExampleSource
from hand_jax.data.prepared import EncodedPictures, PreparedSource
from hand_jax.data.silhouettes import SilhouetteMaker
from hand_jax.examples import HandExample, check_example, without_3d
from hand_jax.types import ArrayLike, HandBatch


class Slot(NamedTuple):
  """What one row of a batch shows.

  It is either an example in an epoch, which seeds the example's noise, or padding.
  """

  index: int
  epoch: int = 0
  is_padding: bool = False


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(count)


def training_slots(seed: int, count: int, start: int, size: int) -> list[Slot]:
  """Returns part of the endless stream of shuffled epochs.

  Args:
    seed: seed of the order.
    count: number of examples in an epoch.
    start: place of the first slot in the stream.
    size: number of slots.
  """
  slots = []
  for place in range(start, start + size):
    epoch, offset = divmod(place, count)
    slots.append(Slot(int(_epoch_order(seed, epoch, count)[offset]), epoch))
  return slots


def evaluation_slots(count: int, start: int, size: int) -> list[Slot]:
  """Returns part of the examples in order, each once, followed by padding.

  Args:
    count: number of examples.
    start: place of the first slot.
    size: number of slots.
  """
  return [
    Slot(place if place < count else 0, is_padding=place >= count)
    for place in range(start, start + size)
  ]


class BatchLoader(Iterator[HandBatch]):
  """An iterator over batches in order, which threads make ahead of time.

  `position` counts the batches already taken. A loader created at that position continues with
  exactly the batches that this one would have given. Use it in a `with` block, or `close` it.

  Args:
    make_batch: makes the batch with a given number. Several threads may call it at once.
    position: number of the first batch.
    num_batches: number at which the batches end, or None if they never end.
    workers: number of threads.
  """

  def __init__(
    self,
    make_batch: Callable[[int], HandBatch],
    position: int = 0,
    num_batches: int | None = None,
    workers: int = 1,
  ):
    self.position = position
    self._make_batch = make_batch
    self._end = num_batches
    self._next_submitted = position
    self._executor = ThreadPoolExecutor(max(1, workers), thread_name_prefix='batches')
    self._ahead = max(1, workers) + 1
    self._futures: collections.deque[Future[HandBatch]] = collections.deque()

  def __next__(self) -> HandBatch:
    while len(self._futures) < self._ahead and self._next_submitted != self._end:
      self._futures.append(self._executor.submit(self._make_batch, self._next_submitted))
      self._next_submitted += 1
    if not self._futures:
      raise StopIteration
    batch = self._futures.popleft().result()
    self.position += 1
    return batch

  def close(self) -> None:
    """Stops the threads, after they have finished the batches they are making."""
    self._executor.shutdown(wait=True, cancel_futures=True)

  def __enter__(self) -> 'BatchLoader':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def training_batches(
  source: ExampleSource,
  config: ExperimentConfig,
  num_vertices: int,
  position: int = 0,
  host_index: int = 0,
  host_count: int = 1,
  faces: ArrayLike | None = None,
) -> BatchLoader:
  """Iterates endlessly over shuffled and augmented batches, of which each host gets its own rows.

  With `data.labels` '2d' the batches carry only 2D joints. Prepared masks are left out then, and
  also where the model has no texture branch, because nothing else in training uses them and a mask
  takes as long to decode as a photo. Evaluation batches keep every label. A weight of
  `loss.silhouette` adds silhouettes to all of them, also with '2d'.

  An example's order and noise depend only on (training.seed, epoch, index), not on the batch size
  or the hosts.

  Args:
    source: the examples to train on.
    config: the run's config.
    num_vertices: number of vertices of the hand model.
    position: number of batches that the run has taken before.
    host_index: this host's number.
    host_count: number of hosts.
    faces: vertex ids of the hand model's faces. Without them batches have no silhouettes.

  Raises:
    ValueError: the source does not fit the config, or the batch size does not divide by the hosts.
  """
  check_cached_features(source, config)
  check_prepared_hands(source, config)
  check_landmark_limit(source, config)
  size, seed = config.training.batch_size, config.training.seed
  rows = _host_rows(size, host_index, host_count)
  silhouettes = _silhouette_maker(config, faces)
  cached = None
  if config.data.features == 'cached':
    cached = CachedRows(source, config, num_vertices, silhouettes)

  def make(number: int) -> HandBatch:
    slots = training_slots(seed, len(source), number * size, size)[rows]
    if cached is not None:
      return _stack_cached(cached, slots)
    return make_batch(source, slots, config, num_vertices, seed, silhouettes)

  return BatchLoader(make, position, workers=config.data.render_workers)


def evaluation_batches(
  source: ExampleSource,
  config: ExperimentConfig,
  num_vertices: int,
  host_index: int = 0,
  host_count: int = 1,
  faces: ArrayLike | None = None,
) -> BatchLoader:
  """Iterates over every example once, in order and without augmentation.

  The last batch is padded to full size.

  Args:
    source: the examples to measure on.
    config: the run's config.
    num_vertices: number of vertices of the hand model.
    host_index: this host's number.
    host_count: number of hosts.
    faces: vertex ids of the hand model's faces. Without them batches have no silhouettes.

  Raises:
    ValueError: the batch size does not divide by the hosts.
  """
  size = config.training.batch_size
  rows = _host_rows(size, host_index, host_count)
  silhouettes = _silhouette_maker(config, faces)

  def make(number: int) -> HandBatch:
    slots = evaluation_slots(len(source), number * size, size)[rows]
    return make_batch(source, slots, config, num_vertices, None, silhouettes)

  num_batches = -(-len(source) // size)
  return BatchLoader(make, num_batches=num_batches, workers=config.data.render_workers)


def stack_rows(rows: Sequence[HandBatch]) -> HandBatch:
  """Stacks rows, such as those of `make_row` in data/augmentation.py, into one batch.

  A field that is None in the rows is None in the batch.
  """
  return jax.tree.map(lambda *column: np.stack(column), *rows)


def _host_rows(batch_size: int, host_index: int, host_count: int) -> slice:
  if batch_size % host_count:
    raise ValueError(
      f'training.batch_size ({batch_size}) should be a multiple of the number of hosts '
      f'({host_count}).'
    )
  per_host = batch_size // host_count
  return slice(host_index * per_host, (host_index + 1) * per_host)


def make_batch(
  source: ExampleSource,
  slots: Sequence[Slot],
  config: ExperimentConfig,
  num_vertices: int,
  seed: int | None,
  silhouettes: SilhouetteMaker | None = None,
) -> HandBatch:
  """Makes the rows that the slots name, in order.

  Training with `data.features` 'cached' takes features of stored crops instead of pictures.

  Args:
    source: the examples.
    slots: which example, in which epoch, each row shows.
    config: the run's config.
    num_vertices: number of vertices of the hand model.
    seed: seed of the augmentation, for training. None makes plain rows, whose crops are turned
      only where `data.upright` says so.
    silhouettes: makes the rows' silhouettes, or None to leave them out.

  Raises:
    ValueError: an example cannot be used. The message names it.
  """
  if seed is not None and config.data.features == 'cached':
    return _stack_cached(CachedRows(source, config, num_vertices, silhouettes), slots)
  # All labels are made before all pictures. Python code and work on pixels each run faster when
  # they do not alternate, and a photo is cropped while it is still in the processor's cache.
  changes = [_draw_change(slot, config, seed) for slot in slots]
  labelled, pictures = [], []
  is_weak = seed is not None and config.data.labels == '2d'
  for slot, change, (whole, picture) in zip(
    slots, changes, _open(source, slots, config, seed, silhouettes is not None), strict=True
  ):
    example = without_3d(whole) if is_weak else whole
    size, factor = config.model.image_size, config.data.crop_factor
    example = check_example(example)
    change = upright_change(example, change) if config.data.upright else change
    labels = make_labels(example, slot.index, size, factor, num_vertices, change)
    labelled.append((labels[0]._replace(is_padding=np.bool_(slot.is_padding)), labels[1]))
    pictures.append((whole, picture))
  rows = []
  for (row, placement), (whole, picture) in zip(labelled, pictures, strict=True):
    photo, mask = _decoded(picture)
    row = add_picture(row, placement, photo, None if is_weak else mask)
    if silhouettes is not None:
      row = row._replace(silhouette=silhouettes(whole, mask, placement))
    rows.append(row)
  return stack_rows(rows)


def check_prepared_hands(source: ExampleSource, config: ExperimentConfig) -> None:
  """Checks that prepared hands are of the kind that `data.hands` names.

  Raises:
    ValueError: they are of another kind.
  """
  found = source.hands if isinstance(source, PreparedSource) else None
  if found not in (None, config.data.hands):
    raise ValueError(
      f'data.hands={config.data.hands!r}, but {config.data.dataset} in {config.data.data_dir!r} '
      f'holds {found} hands: set data.hands={found}, or prepare it in another folder with '
      f'--hands={config.data.hands}.'
    )


def check_landmark_limit(source: ExampleSource, config: ExperimentConfig) -> None:
  """Checks that the source was limited as `data.max_landmark_error` says.

  Raises:
    ValueError: the source has another limit or none.
  """
  selection = source.selection if isinstance(source, PreparedSource) else None
  found, wanted = selection.most if selection else 0.0, config.data.max_landmark_error
  if found != wanted:
    raise ValueError(
      f'data.max_landmark_error={wanted:g}, but the examples to train on were selected with '
      f'{found:g}: use create_training_source to select them.'
    )


def _stack_cached(cached: CachedRows, slots: Sequence[Slot]) -> HandBatch:
  return stack_rows(cached.rows([(slot.index, slot.epoch) for slot in slots]))


def _draw_change(slot: Slot, config: ExperimentConfig, seed: int | None) -> CropChange:
  if seed is None:
    return CropChange()
  rng = np.random.default_rng((seed, slot.epoch, slot.index))
  return sample_crop_change(config.data.augmentation, rng)


def _open(
  source: ExampleSource,
  slots: Sequence[Slot],
  config: ExperimentConfig,
  seed: int | None,
  needs_masks: bool,
) -> Sequence[tuple[HandExample, EncodedPictures | HandExample]]:
  """Opens the slots' examples, each with what holds its photo and mask."""
  indices = [slot.index for slot in slots]
  if not isinstance(source, PreparedSource):
    return [(example, example) for example in source.load(indices)]
  textured = config.model.texture.enabled and config.data.labels != '2d'
  return source.open(indices, seed is None or textured or needs_masks)


def _silhouette_maker(config: ExperimentConfig, faces: ArrayLike | None) -> SilhouetteMaker | None:
  """Makes what makes silhouettes, where the objective asks for them and the faces are known."""
  if not config.loss.silhouette or faces is None:
    return None
  return SilhouetteMaker(config.loss.silhouette_side, faces)


def _decoded(picture: EncodedPictures | HandExample) -> tuple[np.ndarray, np.ndarray | None]:
  if isinstance(picture, HandExample):
    return picture.image, picture.hand_mask
  return picture.photo(), picture.hand_mask()
