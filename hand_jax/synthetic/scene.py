"""What is random about one synthetic hand: person, pose, viewpoint, framing, forearm."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.synthetic.geometry import ArmPose

BETA_LIMIT = 2.5


class SplitKind(NamedTuple):
  """What is special about a split: a pose sampler of its own, meshes outside the shape space."""

  hands: str | None = None  # of POSE_SAMPLERS; None: as asked for
  is_displaced: bool = False


SPLITS = {
  'train': SplitKind(),
  'validation': SplitKind(),
  'test': SplitKind(),
  'test_broad': SplitKind('broad'),
  'test_mismatch': SplitKind('broad', is_displaced=True),
}


def pose_sampler_of(split: str, hands: str) -> str:
  """The name of the sampler that poses a split's hands, where `hands` is asked for."""
  return SPLITS[split].hands or hands


class ViewHabit(NamedTuple):
  """How hands are shown: the share of viewpoints round the palm's or the back's normal.

  `spread` is that of the normal's coordinates, a deviation before its length is made 1.
  """

  frontal_share: float
  spread: float


# People show a gesture by turning palm or back to the camera; the classic hands are seen from
# everywhere, as hands at work are.
VIEW_HABITS = {'classic': ViewHabit(0.38, 0.38), 'broad': ViewHabit(0.75, 0.25)}

# From the hand towards the elbow in MANO's axes; a camera there would look along the forearm.
_ELBOW = np.array([1.0, 0.0, 0.0])
_ELBOW_COSINE = 0.8


class HandScene(NamedTuple):
  """The sampled numbers of one hand and its view; metres, radians, camera axes."""

  pose_seed: int
  betas: np.ndarray  # (10,)
  rotation: np.ndarray  # (3, 3) hand frame to camera axes
  arm: ArmPose
  distance: float
  view_tangent: np.ndarray  # (2,) where the hand is seen, off the optical axis
  box_fraction: float  # the hand box's larger side over the image's side
  box_center: np.ndarray  # (2,) in fractions of the image's side


def example_generator(seed: int, split: str, index: int) -> np.random.Generator:
  """The generator of one example; examples of other seeds, splits or indices share nothing."""
  return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def sample_scene(rng: np.random.Generator, hands: str = 'classic') -> HandScene:
  """Draws a scene; see docs/synthetic_hands.md for the distributions.

  `hands` is the name of the poses' sampler, whose hands are shown as `VIEW_HABITS` says.
  """
  return HandScene(
    pose_seed=int(rng.integers(2**31)),
    betas=np.clip(rng.normal(0, 1, 10), -BETA_LIMIT, BETA_LIMIT).astype(np.float32),
    rotation=sample_view_rotation(rng, VIEW_HABITS[hands]),
    arm=_sample_arm(rng),
    distance=np.exp(rng.uniform(np.log(0.35), np.log(1.0))),
    view_tangent=np.clip(rng.normal(0, 0.12, 2), -0.3, 0.3),
    box_fraction=rng.uniform(0.45, 0.75),
    box_center=np.clip(0.5 + rng.normal(0, 0.05, 2), 0.4, 0.6),
  )


def sample_view_rotation(rng: np.random.Generator, habit: ViewHabit) -> Float[np.ndarray, '3 3']:
  """Hand frame to camera axes: a viewpoint anywhere but along the forearm, then the in-plane turn.

  Fingers point up in the image most often, and in every direction sometimes.
  """
  while True:
    to_camera = rng.normal(0, 1, 3)
    if rng.uniform() < habit.frontal_share:
      to_camera = np.array([0.0, rng.choice([-1.0, 1.0]), 0.0]) + rng.normal(0, habit.spread, 3)
    to_camera /= np.linalg.norm(to_camera)
    if to_camera @ _ELBOW < _ELBOW_COSINE:
      break
  forward = -to_camera
  up = -_ELBOW - (-_ELBOW @ forward) * forward
  up /= np.linalg.norm(up)
  down = -up
  rotation = np.stack([np.cross(down, forward), down, forward])
  turn = rng.normal(0, np.radians(42)) if rng.uniform() < 0.6 else rng.uniform(-np.pi, np.pi)
  cosine, sine = np.cos(turn), np.sin(turn)
  return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ rotation


def _sample_arm(rng: np.random.Generator) -> ArmPose:
  """Flexion up to about 55 degrees either way, deviation up to 20; half of the arms in sleeves."""
  flexion = np.clip(rng.normal(0, 0.38), -0.95, 0.95)
  deviation = np.clip(rng.normal(0, 0.16), -0.35, 0.35)
  sleeved = rng.uniform() < 0.5
  start = rng.uniform(0.118, 0.20) if sleeved else 1.0
  values = (rng.uniform(2.2, 3.0), start, rng.uniform(1.08, 1.5))
  bend = np.array([rng.normal(0, 0.1), deviation, flexion], np.float32)
  return ArmPose(bend, *(np.float32(value) for value in values))


class View(NamedTuple):
  """A framed hand: where its wrist-relative points go, and the camera that sees them."""

  translation: np.ndarray  # (3,) added to points in root axes to get camera coordinates
  focal_length: float  # pixels
  principal_point: np.ndarray  # (2,) pixels
  box_xywh: np.ndarray  # (4,) tight box of the projected hand vertices

  @property
  def intrinsics(self) -> np.ndarray:
    return np.array(
      [
        [self.focal_length, 0, self.principal_point[0]],
        [0, self.focal_length, self.principal_point[1]],
        [0, 0, 1],
      ]
    )


def frame_hand(scene: HandScene, vertices_root: Float[np.ndarray, 'vertices 3'], size: int) -> View:
  """Places the hand before a camera so that its box has the sampled size and place in the image."""
  low, high = vertices_root.min(0), vertices_root.max(0)
  place = scene.distance * np.array([*scene.view_tangent, 1.0])
  translation = place - (low + high) / 2
  points = vertices_root + translation
  rays = points[:, :2] / points[:, 2:]
  low, high = rays.min(0), rays.max(0)
  focal_length = scene.box_fraction * size / (high - low).max()
  principal_point = scene.box_center * size - focal_length * (low + high) / 2
  corner = focal_length * low + principal_point
  box = np.concatenate([corner, focal_length * (high - low)])
  return View(translation, float(focal_length), principal_point, box)


def project(view: View, points_camera: Float[np.ndarray, 'points 3']) -> np.ndarray:
  """Pixels of points in camera axes (points, 2)."""
  return points_camera[:, :2] / points_camera[:, 2:] * view.focal_length + view.principal_point
