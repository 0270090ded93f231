"""Where examples come from: a prepared split, or hands rendered on the fly."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hand_jax.config import DataConfig
from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import HandExample

# Rendered examples are kept for later epochs if all of them fit into this many bytes.
CACHE_BYTES = 2 << 30


@runtime_checkable
class ExampleSource(Protocol):
  """A split of numbered examples, which are the same whenever they are asked for.

  Several threads may call `load` at once.
  """

  def __len__(self) -> int: ...

  def load(self, indices: Sequence[int]) -> list[HandExample]:
    """Returns the examples with these numbers, in this order."""
    ...


class SyntheticSource:
  """A split of hands rendered on the fly.

  Example i depends only on the seed, the split and i.

  Args:
    seed: seed of the examples.
    split: name of the split, which also seeds them.
    count: number of examples.
    image_size: side of a photo in pixels.
    vertex_labels: also gives the vertices' colours and visibility, which nearly doubles the time.
    hands: name of the sampler of poses, see `render_examples`.
  """

  def __init__(
    self,
    seed: int,
    split: str,
    count: int,
    image_size: int,
    vertex_labels: bool = False,
    hands: str = 'classic',
  ):
    self._seed, self._split, self._count, self._image_size = seed, split, count, image_size
    self._vertex_labels, self._hands = vertex_labels, hands
    self._cache: dict[int, HandExample] | None = None
    if count * image_size**2 * 4 <= CACHE_BYTES:
      self._cache = {}

  def __len__(self) -> int:
    return self._count

  def load(self, indices: Sequence[int]) -> list[HandExample]:
    """Returns the examples with these numbers, rendered or from the cache."""
    if self._cache is None:
      return self._render(indices)
    missing = [index for index in dict.fromkeys(indices) if index not in self._cache]
    if missing:
      self._cache.update(zip(missing, self._render(missing), strict=True))
    return [self._cache[index] for index in indices]

  def _render(self, indices: Sequence[int]) -> list[HandExample]:
    from hand_jax.synthetic.hands import render_examples

    return render_examples(
      self._seed, self._split, list(indices), self._image_size, self._vertex_labels, self._hands
    )


def create_source(
  data: DataConfig, split: str, image_size: int, count: int = 0, vertex_labels: bool = False
) -> ExampleSource:
  """Creates the source of a split, prepared in `data.data_dir` or rendered where that is empty.

  Args:
    data: settings of the data.
    split: name of the split.
    image_size: side of a rendered photo in pixels, where `data.render_size` is 0.
    count: largest number of examples. 0 takes all that are prepared, and is refused for rendered
      ones.
    vertex_labels: gives rendered examples colours and visibility of their vertices. Prepared
      examples have the labels that they were prepared with.

  Raises:
    FileNotFoundError: `data.data_dir` does not hold the data set.
    ValueError: the split is rendered and `count` is 0, or see `PreparedSource`.
  """
  if data.data_dir:
    return PreparedSource(data.dataset, data.data_dir, split, count)
  if count <= 0:
    raise ValueError(f'Split {split!r} is rendered on the fly: say how many examples it has.')
  size = data.render_size or image_size
  return SyntheticSource(data.seed, split, count, size, vertex_labels, data.hands)


def create_training_source(data: DataConfig, image_size: int) -> ExampleSource:
  """Creates the source of the first `data.train_examples` (0: all) of the training split.

  `data.max_landmark_error` limits only this source, not what `create_source` gives to measure on.
  """
  if not data.data_dir:
    return create_source(data, data.train_split, image_size, data.train_examples)
  count, most = data.train_examples, data.max_landmark_error
  return PreparedSource(data.dataset, data.data_dir, data.train_split, count, most)
