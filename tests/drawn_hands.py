"""Draws hands as dots with exact labels, as a data source for tests that needs no renderer."""

from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.examples import HandExample
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import HandParameters, ManoModel


class DrawnSource:
  """A source of `count` bent, turned and shifted hands before a dark background."""

  def __init__(self, model: ManoModel, count: int, size: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    parameters = HandParameters(
      global_orient=rng.normal(scale=0.5, size=(count, 3)).astype(np.float32),
      hand_pose=rng.normal(scale=0.2, size=(count, 45)).astype(np.float32),
      betas=rng.normal(scale=0.5, size=(count, model.shapedirs.shape[-1])).astype(np.float32),
      transl=rng.uniform([-0.05, -0.05, 0.45], [0.05, 0.05, 0.6], (count, 3)).astype(np.float32),
    )

    def pose(parameters):
      vertices = mano_forward(model, parameters).vertices
      return vertices, regress_joints(model, vertices)

    vertices, joints = jax.jit(jax.vmap(pose))(jax.tree.map(jnp.asarray, parameters))
    self._vertices, self._joints = np.asarray(vertices), np.asarray(joints)
    self._orientations = parameters.global_orient
    self._size = size
    self.loaded: list[int] = []

  def __len__(self) -> int:
    return len(self._vertices)

  def load(self, indices: Sequence[int]) -> list[HandExample]:
    self.loaded += list(indices)
    return [self._draw(int(index)) for index in indices]

  def _draw(self, index: int) -> HandExample:
    size, focal = self._size, 1.3 * self._size
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32)
    points = project(intrinsics, self._vertices[index])
    image = np.full((size, size, 3), 20, np.uint8)
    for number, point in enumerate(points):
      color = (60 + number % 190, 60 + number // 5, 255 - number // 4)
      center = tuple(np.round((point - 0.5) * 16).astype(int).tolist())
      cv2.circle(image, center, 16, color, -1, cv2.LINE_AA, shift=4)
    low, high = points.min(0), points.max(0)
    return HandExample(
      example_id=f'drawn-{index}',
      image=image,
      side='right' if index % 3 else 'left',
      box_xywh=np.array([*low, *(high - low)], np.float32),
      joints_image=project(intrinsics, self._joints[index]).astype(np.float32),
      joint_confidence=np.ones(len(self._joints[index]), np.float32),
      intrinsics=intrinsics,
      vertices_camera=self._vertices[index],
      joints_camera=self._joints[index],
      global_orient=self._orientations[index],
      hand_mask=image.max(-1) > 60,
    )


class Killed(Exception):
  """Simulates a killed process."""


class KilledSource(DrawnSource):
  """Fails after 12 examples, while the fourth batch of four is made."""

  def load(self, indices: Sequence[int]) -> list[HandExample]:
    if len(self.loaded) >= 12:
      raise Killed
    return super().load(indices)


def project(intrinsics: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Projects camera-space points to pixels, independently of `hand_jax.geometry.cameras`."""
  homogeneous = points.astype(np.float64) @ np.asarray(intrinsics, np.float64).T
  return homogeneous[:, :2] / homogeneous[:, 2:]
