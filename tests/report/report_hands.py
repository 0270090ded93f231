"""Hands and photos for a report: the free hand in random small poses."""

import functools

import jax.numpy as jnp
import numpy as np

from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward
from hand_jax.report.content import ReportHand, ReportPhoto, ReportPicture
from hand_jax.types import HandParameters


@functools.cache
def posed_hand(seed: int, side: str):
  """The free hand, bent a little and seen from the palm or the back; wrist at the origin."""
  random = np.random.default_rng(seed)
  model = load_mano_model(side=side)
  parameters = HandParameters(
    jnp.asarray([np.pi / 2, 0, 0], jnp.float32),
    jnp.asarray(random.normal(0, 0.15, 45), jnp.float32),
    jnp.zeros(model.shapedirs.shape[-1]),
    jnp.zeros(3),
  )
  mesh = mano_forward(model, parameters)
  wrist = np.asarray(mesh.joints[0])
  return np.asarray(mesh.vertices) - wrist, np.asarray(mesh.joints) - wrist, np.asarray(mesh.faces)


def made_hand(seed: int = 0, side: str = 'right', name: str = 'photo', **changes) -> ReportHand:
  """A hand of a report whose sigma grows with the distance from the wrist."""
  vertices, joints, faces = posed_hand(seed, side)
  picture = np.random.default_rng(seed).integers(0, 256, (48, 96, 3)).astype(np.uint8)
  hand = ReportHand(
    name=name,
    side=side,
    score=0.973,
    side_score=0.88,
    box_xywh=np.array([20.0, 30.0, 210.0, 180.0]),
    vertices=vertices,
    joints=joints,
    faces=faces,
    vertex_sigma_mm=3 + 20 * np.linalg.norm(vertices, axis=1),
    joint_sigma_mm=3 + 20 * np.linalg.norm(joints, axis=1),
    vertex_visible=vertices[:, 0] > 0,
    vertex_colors=np.clip(0.6 + 3 * vertices, 0, 1),
    wrist_camera=np.array([0.02, -0.03, 0.55]),
    depth_sigma_m=0.06,
    focal_length_px=1123.4,
    focal_source='given',
    hand_model='free hand 3',
    pictures=(ReportPicture('Photo and mesh', picture),),
    files=(f'{name}.glb', f'{name}.npz'),
  )
  return hand._replace(**changes)


def made_photo(path: str = 'folder/photo.jpg', *hands: ReportHand, **changes) -> ReportPhoto:
  """A photo of these hands, whose picture is smooth colours."""
  ramp = np.linspace(60, 200, 120, dtype=np.uint8)
  picture = np.broadcast_to(ramp[None, :, None], (90, 120, 3)).copy()
  return ReportPhoto(path, picture, hands, 2.34, None)._replace(**changes)
