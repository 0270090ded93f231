"""Builds rendered hands with tfds. Example i depends on seed, split, i and the sampler."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from hand_jax.examples import HandExample, encode_example
from hand_jax.preparing.records import results_in_order, worker_processes
from hand_jax.preparing.streamed_builder import StreamedBuilder

CHUNK = 16  # examples a worker renders at a time
Render = Callable[[int, str, Sequence[int], int, str], Sequence[HandExample]]


def render_hands(seed: int, split: str, indices: Sequence[int], image_size: int, hands: str):
  """Calls `render_examples` of hand_jax.synthetic.hands, which is imported only for rendering."""
  from hand_jax.synthetic.hands import render_examples

  return render_examples(
    seed, split, list(indices), image_size, with_vertex_labels=True, hands=hands
  )


def render_records(
  render: Render, seed: int, split: str, image_size: int, hands: str, indices: range
) -> list[dict[str, Any]]:
  """Makes the records of the numbered examples. Worker processes run this."""
  return [encode_example(example) for example in render(seed, split, indices, image_size, hands)]


def chunks_of(count: int) -> Iterator[range]:
  """Divides 0 to count into the pieces that a worker renders at a time."""
  return (range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


class SyntheticHands(StreamedBuilder):
  """Builds the splits named in `examples` with that many pictures each.

  Records keep their order: number i of a split is the example rendered on the fly as number i.
  The number of workers changes nothing in the result.
  """

  name = 'synthetic_hands'
  # The first number is the free hand's version (FREE_HAND_VERSION).
  VERSION = tfds.core.Version('3.0.0')
  RELEASE_NOTES: ClassVar[dict[str, str]] = {
    '1.0.0': 'Rendered photos with exact labels.',
    '1.1.0': 'New feature vertex_colors; everything else is what it was.',
    '2.0.0': 'Rendered from free hand 2, whose joints lie where people have them.',
    '3.0.0': 'Rendered from free hand 3, whose ring and little fingers vary as those of people.',
  }

  def __init__(
    self,
    *,
    examples: dict[str, int] | None = None,
    image_size: int = 224,
    seed: int = 0,
    hands: str = 'classic',
    workers: int = 1,
    render: Render = render_hands,
    **kwargs,
  ):
    self._examples = dict(examples or {})
    self._settings = {'image_size': image_size, 'seed': seed, 'hands': hands}
    self._workers, self._render = workers, render
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs) -> None:
    """Builds all splits, with one set of worker processes."""
    with worker_processes(self._workers) as self._executor:
      super().download_and_prepare(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Rendered photos of hands with exact 3D labels; see README.md.',
      features=self._record_features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {
      split: self._generate_examples(split, count)
      for split, count in self._examples.items()
      if count
    }

  def _generate_examples(self, split: str, count: int):
    make = functools.partial(
      render_records,
      self._render,
      self._settings['seed'],
      split,
      self._settings['image_size'],
      self._settings['hands'],
    )
    records = results_in_order(make, chunks_of(count), self._executor, ahead=2 * self._workers)
    return self._numbered(split, records, count)
