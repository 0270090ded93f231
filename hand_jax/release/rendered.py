"""Renders hands with masks and vertex colours once, and keeps them in files for training.

A pass that was stopped continues where it stopped.
"""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.release.parts import joined, load_arrays, made_in_parts
from hand_jax.synthetic.hands import render_hand

SHARD_SIZE = 64


class RenderedHands(NamedTuple):
  """Rendered right hands with labels that a photo lacks: the mask, the mesh and its colours."""

  images: UInt8[np.ndarray, 'hands side side 3']
  masks: Bool[np.ndarray, 'hands side side']
  """True where the hand is visible. Forearms and objects in front of the hand are False."""
  joints_image: Float[np.ndarray, 'hands 21 2']
  """Pixels."""
  vertices_image: Float[np.ndarray, 'hands vertices 2']
  """Pixels."""
  vertices_camera: Float[np.ndarray, 'hands vertices 3']
  """Metres, camera axes."""
  vertex_colors: UInt8[np.ndarray, 'hands vertices 3']
  """Display RGB that each vertex would have in the photo if nothing hid it."""


class RenderPlan(NamedTuple):
  """The hands to render, which are the first `count` of a seed and split."""

  hands: str
  split: str
  seed: int
  count: int
  image_size: int = 256

  @property
  def name(self) -> str:
    """Names the folder that keeps the hands. The name does not depend on `count`."""
    return f'{self.hands}_{self.split}_{self.seed}_{self.image_size}px'


def rendered_hands(
  plan: RenderPlan,
  folder: str | os.PathLike,
  report: Callable[[int, int], None] = lambda done, count: None,
) -> RenderedHands:
  """Renders the hands of a plan. Existing files are used as they are.

  Args:
    plan: the hands to render.
    folder: folder that keeps the hands, in a subfolder of the plan's name.
    report: called with the number of finished hands and the number of all hands.
  """
  paths = made_in_parts(
    lambda indices: _packed(_render(plan, indices)),
    pathlib.Path(folder) / plan.name,
    plan.count,
    SHARD_SIZE,
    report,
  )
  return joined(_unpacked(load_arrays(path, RenderedHands)) for path in paths)


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


def _packed(hands: RenderedHands) -> RenderedHands:
  """Stores eight pixels of a mask in a byte."""
  return hands._replace(masks=np.packbits(hands.masks, axis=-1))


def _unpacked(hands: RenderedHands) -> RenderedHands:
  side = hands.images.shape[1]
  return hands._replace(masks=np.unpackbits(hands.masks, axis=-1)[..., :side].astype(bool))
