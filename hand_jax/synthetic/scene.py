"""The random numbers of one synthetic hand: person, pose, viewpoint, framing and forearm."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.synthetic.geometry import ArmPose

BETA_LIMIT = 2.5


class HandKind(NamedTuple):
  """Which hands are rendered, under a name that `data.hands` may have."""

  poses: str
  """Name of the pose sampler in `POSE_SAMPLERS`, which decides the viewpoints too."""
  is_displaced: bool = False
  """Whether the meshes lie outside the shape space (`hand_jax/synthetic/mismatch.py`)."""


HANDS = {
  'classic': HandKind('classic'),
  'broad': HandKind('broad'),
  'displaced': HandKind('broad', is_displaced=True),
}
# The kind of hands of each split. None means the kind that is asked for.
SPLITS = {
  'train': None,
  'validation': None,
  'test': None,
  'test_broad': 'broad',
  'test_mismatch': 'displaced',
}


def hands_of_split(split: str, hands: str) -> str:
  """Returns the name of the kind of hands in a split when `hands` is asked for."""
  return SPLITS[split] or hands


class ViewHabit(NamedTuple):
  """How people show their hands to the camera."""

  frontal_share: float
  """Share of viewpoints round the palm's or the back's normal."""
  spread: float
  """Standard deviation of the noise on the normal's coordinates."""


# People show a gesture by turning palm or back to the camera. The classic hands are seen from
# everywhere, like hands at work.
VIEW_HABITS = {'classic': ViewHabit(0.38, 0.38), 'broad': ViewHabit(0.75, 0.25)}

# The direction from the hand to the elbow in MANO's axes. A camera there would look along the
# forearm.
_ELBOW = np.array([1.0, 0.0, 0.0])
_ELBOW_COSINE = 0.8


class HandScene(NamedTuple):
  """The sampled numbers of one hand and its view, in metres, radians and camera axes."""

  pose_seed: int
  """Seed of the hand pose."""
  betas: np.ndarray  # (10,)
  """Shape coefficients."""
  rotation: np.ndarray  # (3, 3)
  """Matrix from hand frame to camera axes, for column vectors."""
  arm: ArmPose
  """Pose and sleeve of the forearm."""
  distance: float
  """Depth of the middle of the hand's bounding box."""
  view_tangent: np.ndarray  # (2,)
  """Where the hand is seen off the optical axis, as tangents in x and y."""
  box_fraction: float
  """The hand box's larger side as a fraction of the image's side."""
  box_center: np.ndarray  # (2,)
  """Centre of the hand box, in fractions of the image's side."""


def example_generator(seed: int, split: str, index: int) -> np.random.Generator:
  """Returns the random generator of one example.

  Examples of other seeds, splits or indices share no random numbers with it.

  Args:
    seed: seed of the data set.
    split: name of the split.
    index: number of the example within the split.
  """
  return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def sample_scene(rng: np.random.Generator, poses: str = 'classic') -> HandScene:
  """Draws a scene. See docs/synthetic_hands.md for the distributions.

  `poses` is the name of the pose sampler, which determines the viewpoints by `VIEW_HABITS`.
  """
  return HandScene(
    pose_seed=int(rng.integers(2**31)),
    betas=np.clip(rng.normal(0, 1, 10), -BETA_LIMIT, BETA_LIMIT).astype(np.float32),
    rotation=sample_view_rotation(rng, VIEW_HABITS[poses]),
    arm=_sample_arm(rng),
    distance=np.exp(rng.uniform(np.log(0.35), np.log(1.0))),
    view_tangent=np.clip(rng.normal(0, 0.12, 2), -0.3, 0.3),
    box_fraction=rng.uniform(0.45, 0.75),
    box_center=np.clip(0.5 + rng.normal(0, 0.05, 2), 0.4, 0.6),
  )


def sample_view_rotation(rng: np.random.Generator, habit: ViewHabit) -> Float[np.ndarray, '3 3']:
  """Draws the matrix from hand frame to camera axes, for column vectors.

  The viewpoint is anywhere but along the forearm, and an in-plane turn follows. Fingers point up in
  the image most often, and sometimes in any other direction.
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
  """Draws a forearm.

  Flexion goes up to about 55 degrees either way, deviation up to 20. Half of the arms wear sleeves.
  """
  flexion = np.clip(rng.normal(0, 0.38), -0.95, 0.95)
  deviation = np.clip(rng.normal(0, 0.16), -0.35, 0.35)
  sleeved = rng.uniform() < 0.5
  start = rng.uniform(0.118, 0.20) if sleeved else 1.0
  values = (rng.uniform(2.2, 3.0), start, rng.uniform(1.08, 1.5))
  bend = np.array([rng.normal(0, 0.1), deviation, flexion], np.float32)
  return ArmPose(bend, *(np.asarray(value, np.float32) for value in values))


class View(NamedTuple):
  """A framed hand: its place before the camera, and the camera."""

  translation: np.ndarray  # (3,)
  """Added to points in root axes to get camera coordinates, metres."""
  focal_length: float
  """Focal length, pixels."""
  principal_point: np.ndarray  # (2,)
  """Principal point, pixels."""
  box_xywh: np.ndarray  # (4,)
  """Tight box (left, top, width, height) of the projected hand vertices, pixels."""

  @property
  def intrinsics(self) -> np.ndarray:
    """Builds the 3 x 3 intrinsics of the camera, for column vectors."""
    return np.array(
      [
        [self.focal_length, 0, self.principal_point[0]],
        [0, self.focal_length, self.principal_point[1]],
        [0, 0, 1],
      ]
    )


def frame_hand(scene: HandScene, vertices_root: Float[np.ndarray, 'vertices 3'], size: int) -> View:
  """Places a hand before a camera so that its box has the sampled size and place in the image.

  Args:
    scene: the sampled numbers of the hand.
    vertices_root: vertices in the root frame, metres.
    size: side of the image, pixels.
  """
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
  """Projects points in camera axes to pixels."""
  return points_camera[:, :2] / points_camera[:, 2:] * view.focal_length + view.principal_point
