"""Prints how the samplers' hands bend: shares, correlations, principal components, intersections.

python -m tools.pose_statistics --draws=8000
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float

from experiments.launching import launch, start
from hand_jax.mano.anatomy import pose_to_angles
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.gestures import POSE_SAMPLERS
from hand_jax.mano.joints import JOINT_NAMES, MANO_JOINT_NAMES, STANDARD_PARENTS
from hand_jax.mano.model import mano_forward
from hand_jax.types import HandParameters, ManoModel

DRAWS = flags.DEFINE_integer('draws', 8000, 'Number of poses of each sampler.', lower_bound=100)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of the poses.', lower_bound=0)

STRAIGHT_DEGREES, FOLDED_DEGREES = 30.0, 60.0
"""A finger is straight when MCP and PIP flexion are both below the first angle. It is folded when
PIP flexion is above the second. Other fingers are neither."""

_FINGERS = ('index', 'middle', 'ring', 'pinky')
_JOINTS = MANO_JOINT_NAMES[1:]


class PoseStatistics(NamedTuple):
  """Shares of poses, correlations of flexions, and how far parts of a hand intersect, in metres."""

  two_straight_two_folded: float
  index_alone_straight: float
  pinky_alone_straight: float
  all_straight: float
  pip_dip_correlation: float
  index_mcp_pip_correlation: float
  index_pinky_correlation: float
  five_components: float
  mean_penetration_m: float


def sample_poses(hands: str, draws: int, seed: int = 0) -> Float[Array, 'draws 45']:
  """Draws poses from a sampler.

  Args:
    hands: the name of the sampler in `POSE_SAMPLERS`.
    draws: how many poses to draw.
    seed: the seed of the poses.
  """
  keys = jax.random.split(jax.random.key(seed), draws)
  return jax.jit(jax.vmap(POSE_SAMPLERS[hands]))(keys)


def measure_poses(poses: Float[Array, 'draws 45'], model: ManoModel) -> PoseStatistics:
  """Measures the figures of `PoseStatistics` over poses."""
  flexion = np.asarray(pose_to_angles(poses))[:, :, 0]
  of_joint = {name: flexion[:, number] for number, name in enumerate(_JOINTS)}
  mcp, pip, dip = (
    np.stack([of_joint[f'{finger}_{joint}'] for finger in _FINGERS], axis=1)
    for joint in ('mcp', 'pip', 'dip')
  )
  straight = (mcp < STRAIGHT_DEGREES) & (pip < STRAIGHT_DEGREES)
  folded = pip > FOLDED_DEGREES
  only = np.eye(4, dtype=bool)
  variances = np.linalg.svd(flexion - flexion.mean(0), compute_uv=False) ** 2
  return PoseStatistics(
    two_straight_two_folded=np.mean(straight[:, :2].all(1) & folded[:, 2:].all(1)),
    index_alone_straight=np.mean((straight == only[0]).all(1)),
    pinky_alone_straight=np.mean((straight == only[3]).all(1)),
    all_straight=np.mean(straight.all(1)),
    pip_dip_correlation=np.mean([_correlation(pip[:, k], dip[:, k]) for k in range(4)]),
    index_mcp_pip_correlation=_correlation(mcp[:, 0], pip[:, 0]),
    index_pinky_correlation=_correlation(pip[:, 0], pip[:, 3]),
    five_components=variances[:5].sum() / variances.sum(),
    mean_penetration_m=float(deepest_penetrations(poses, model).mean()),
  )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
  return float(np.corrcoef(first, second)[0, 1])


class Capsules(NamedTuple):
  """Bones with a thickness, and the pairs of bones that cannot be in the same place.

  The four bones of the palm represent it. Neighbours that always touch are no pair. These are bones
  of one finger, and palm bones with the bones that begin at them.
  """

  ends: np.ndarray  # (bones, 2) standard joints
  radii: np.ndarray  # (bones,) metres
  pairs: np.ndarray  # (pairs, 2) bones


def hand_capsules(model: ManoModel) -> Capsules:
  """Builds the capsules of a model's mean shape: 14 finger bones and 4 bones of the palm.

  The radius of a finger bone is the median distance of the vertices that move with it.
  """
  zero = jnp.zeros(3)
  hand = mano_forward(model, HandParameters(zero, jnp.zeros(45), jnp.zeros(10), zero))
  vertices, joints = np.asarray(hand.vertices), np.asarray(hand.joints)
  owner = np.asarray(model.lbs_weights).argmax(1)
  ends, radii, fingers, is_palm = [], [], [], []
  for child in range(1, len(JOINT_NAMES)):
    parent = STANDARD_PARENTS[child]
    name = JOINT_NAMES[child]
    if name == 'thumb_cmc':
      continue
    ends.append((parent, child))
    fingers.append(name.split('_')[0])
    is_palm.append(parent == 0)
    own = vertices[owner == MANO_JOINT_NAMES.index(JOINT_NAMES[parent])]
    start, end = joints[parent], joints[child]
    along = np.clip((own - start) @ (end - start) / np.sum((end - start) ** 2), 0.15, 0.85)
    distance = np.linalg.norm(own - start - along[:, None] * (end - start), axis=1)
    radii.append(np.median(distance))
  # This is half of the thickness of the palm. The median above would reach to the palm's sides.
  fingers, is_palm, radii = np.asarray(fingers), np.asarray(is_palm), np.asarray(radii)
  radii[is_palm] = 1.2 * radii[~is_palm & (fingers != 'thumb')].max()
  pairs = [
    (a, b)
    for a in range(len(ends))
    for b in range(a + 1, len(ends))
    if _may_meet(JOINT_NAMES[ends[a][0]], JOINT_NAMES[ends[b][0]], fingers[a] == fingers[b])
  ]
  return Capsules(np.asarray(ends), radii, np.asarray(pairs))


def _may_meet(first: str, second: str, same_finger: bool) -> bool:
  """Returns whether two bones can be apart. They are named by the joints where they begin."""
  palm = [name == 'wrist' for name in (first, second)]
  if all(palm):
    return False
  if any(palm):
    other = second if palm[0] else first
    # The last bone of a finger may come back to the palm, even to the palm bone of that finger.
    return other.endswith(('_dip', '_ip'))
  return not same_finger


def deepest_penetrations(
  poses: Float[Array, 'draws 45'], model: ManoModel
) -> Float[Array, 'draws']:
  """Returns how deep the deepest pair of capsules of each hand intersects, in metres."""
  capsules = hand_capsules(model)
  first, second = capsules.pairs.T
  thickness = capsules.radii[first] + capsules.radii[second]

  def depth(pose: Float[Array, '45']) -> Float[Array, '']:
    zero = jnp.zeros(3)
    joints = mano_forward(model, HandParameters(zero, pose, jnp.zeros(10), zero)).joints
    segments = joints[capsules.ends]
    distance = segment_distance(segments[first], segments[second])
    return jnp.maximum(jnp.max(thickness - distance), 0.0)

  return jax.jit(jax.vmap(depth))(poses)


def segment_distance(
  first: Float[Array, 'pairs 2 3'], second: Float[Array, 'pairs 2 3']
) -> Float[Array, 'pairs']:
  """Returns the shortest distance between the segments of each pair, none of which is a point.

  The nearest place on one line is linear in the place on the other, so three clipped steps suffice.
  """
  along, other = first[:, 1] - first[:, 0], second[:, 1] - second[:, 0]
  gap = first[:, 0] - second[:, 0]
  a, b, c = (jnp.sum(u * v, -1) for u, v in ((along, along), (along, other), (other, other)))
  d, e = jnp.sum(along * gap, -1), jnp.sum(other * gap, -1)
  across = a * c - b * b
  s = jnp.clip((b * e - c * d) / jnp.maximum(across, 1e-12), 0, 1)
  t = jnp.clip((b * s + e) / c, 0, 1)
  s = jnp.clip((b * t - d) / a, 0, 1)
  return jnp.linalg.norm(gap + s[:, None] * along - t[:, None] * other, axis=-1)


_ROWS = {
  'two_straight_two_folded': ('index and middle straight, ring and pinky folded', '{:.1%}'),
  'index_alone_straight': ('index alone straight', '{:.1%}'),
  'pinky_alone_straight': ('pinky alone straight', '{:.1%}'),
  'all_straight': ('all four straight', '{:.1%}'),
  'pip_dip_correlation': ('correlation of PIP and DIP, mean of four fingers', '{:.2f}'),
  'index_mcp_pip_correlation': ('correlation of MCP and PIP, index', '{:.2f}'),
  'index_pinky_correlation': ('correlation of PIP, index and pinky', '{:.2f}'),
  'five_components': ('first five principal components of all flexions', '{:.1%}'),
  'mean_penetration_m': ('deepest intersection of a hand, mean, mm', '{:.1f}'),
}


def table_lines(by_hands: dict[str, PoseStatistics]) -> Iterable[str]:
  """Yields the lines of a Markdown table with a column for each sampler."""
  yield f'| | {" | ".join(by_hands)} |'
  yield f'| --- |{" ---: |" * len(by_hands)}'
  for name, (title, form) in _ROWS.items():
    unit = 1000.0 if name.endswith('_m') else 1.0
    cells = (form.format(unit * getattr(found, name)) for found in by_hands.values())
    yield f'| {title} | {" | ".join(cells)} |'


def main(argv: list[str]) -> None:
  """Measures every sampler and prints the table."""
  start(argv)
  model = load_mano_model()
  found = {
    hands: measure_poses(sample_poses(hands, DRAWS.value, SEED.value), model)
    for hands in POSE_SAMPLERS
  }
  for line in table_lines(found):
    print(line)


if __name__ == '__main__':
  launch(main)
