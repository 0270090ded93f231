"""Renders hands with masks and vertex colours once, and keeps them in files to learn from.

A pass that was stopped goes on where it was.
"""

import io
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.files.writing import write_whole
from hand_jax.synthetic.hands import render_hand

SHARD_SIZE = 64


class RenderedHands(NamedTuple):
  """Rendered right hands with what a photo does not tell: the mask, the mesh and its colours."""

  images: UInt8[np.ndarray, 'hands side side 3']
  masks: Bool[np.ndarray, 'hands side side']
  """True where the hand is seen: no forearm, and no object before the hand."""
  joints_image: Float[np.ndarray, 'hands 21 2']
  """Pixels."""
  vertices_image: Float[np.ndarray, 'hands vertices 2']
  """Pixels."""
  vertices_camera: Float[np.ndarray, 'hands vertices 3']
  """Metres, camera axes."""
  vertex_colors: UInt8[np.ndarray, 'hands vertices 3']
  """Display RGB that each vertex would have in the photo if nothing hid it."""


class RenderPlan(NamedTuple):
  """Says which hands are rendered: the first `count` of a seed and split."""

  hands: str
  split: str
  seed: int
  count: int
  image_size: int = 256

  @property
  def name(self) -> str:
    """Names the folder that keeps the hands, whatever their number."""
    return f'{self.hands}_{self.split}_{self.seed}_{self.image_size}px'


def rendered_hands(
  plan: RenderPlan,
  folder: str | os.PathLike,
  report: Callable[[int, int], None] = lambda done, count: None,
) -> RenderedHands:
  """Renders the hands of a plan. Files that are there already are taken as they are.

  Args:
    plan: which hands.
    folder: keeps the hands, in a subfolder of the plan's name.
    report: is told how many hands are done, and of how many.
  """
  parts = []
  for start in range(0, plan.count, SHARD_SIZE):
    stop = min(start + SHARD_SIZE, plan.count)
    path = pathlib.Path(folder) / plan.name / f'{start:06d}-{stop:06d}.npz'
    if not path.exists():
      _save(path, _render(plan, range(start, stop)))
    parts.append(_load(path))
    report(stop, plan.count)
  return joined(parts)


def joined(parts: Sequence[RenderedHands]) -> RenderedHands:
  """Puts hands one after the other."""
  return RenderedHands(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _render(plan: RenderPlan, indices: Iterable[int]) -> RenderedHands:
  rows = []
  for index in indices:
    hand = render_hand(plan.seed, plan.split, index, plan.image_size, plan.hands)
    example = hand.example
    vertices, intrinsics = example.vertices_camera, example.intrinsics
    assert vertices is not None and intrinsics is not None
    seen = vertices @ intrinsics.T
    rows.append(
      (
        example.image,
        example.hand_mask,
        example.joints_image.astype(np.float32),
        (seen[:, :2] / seen[:, 2:]).astype(np.float32),
        vertices.astype(np.float32),
        np.round(255 * hand.vertex_colors).astype(np.uint8),
      )
    )
  return RenderedHands(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))


def _save(path: pathlib.Path, hands: RenderedHands) -> None:
  buffer = io.BytesIO()
  np.savez(buffer, **hands._replace(masks=np.packbits(hands.masks, axis=-1))._asdict())
  write_whole(path, buffer.getvalue())


def _load(path: pathlib.Path) -> RenderedHands:
  with np.load(path) as file:
    hands = RenderedHands(**{name: file[name] for name in RenderedHands._fields})
  side = hands.images.shape[1]
  return hands._replace(masks=np.unpackbits(hands.masks, axis=-1)[..., :side].astype(bool))
