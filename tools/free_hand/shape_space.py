"""Computes the shape components of the flat hand, and the joint regressor that follows them."""

import dataclasses
import re

import numpy as np

from tools.free_hand import layout, phenotypes, proportions, reading, skeleton
from tools.free_hand.cutting import Patch, boundary_loop, cut_limb, triangulate

# People differ by these standard deviations beyond the size of the hand. They are those of the
# length of each bone, of the fingers against the palm, and of the palm's length and width.
_PHALANX_DEVIATION = 0.045
# The middle phalanges of ring and little finger vary together by as much more. Without this they
# would vary about half as much as on X-rays (see `proportions.BONES_MM`).
_OUTER_MIDDLE_DEVIATION = 0.1
_FINGER_DEVIATION = 0.04
_PALM_DEVIATION = 0.035
_OUTER_FINGERS = [layout.FINGER_NAMES.index(name) for name in ('ring', 'pinky')]
# Each joint counts as much as this many vertices, so that the components describe proportions.
_NODE_WEIGHT = 36.0
_POSED_WEIGHT = 0.3  # weight of a posed hand in the joint regressor. A shape component has 1.
_WRIST_LOOP = 0.08  # decimetres from the rig's wrist. The moved wrist joint is at about 0.21.


@dataclasses.dataclass(frozen=True)
class HandSource:
  """The cut hand at full resolution, with all that is needed to shape it."""

  patch: Patch
  weights: np.ndarray  # (P, 16)
  base: np.ndarray  # base vertices in decimetres, those of the patch before those of joint cubes
  cubes: list[np.ndarray]  # the rows of `base` whose mean is a joint or tip
  targets: reading.TargetReader


@dataclasses.dataclass(frozen=True)
class ShapeSamples:
  """Flat hands of many adults in metres, with the wrist at `layout.WRIST_POSITION`."""

  vertices: np.ndarray  # (S, P, 3)
  nodes: np.ndarray  # (S, 21, 3), 16 joints and 5 tips
  rig_offsets: np.ndarray  # (21, 3)
  """The offsets from these nodes to the rig's, to which the source's weights belong."""


def hand_weights(skin_weights: dict, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
  """Collects MANO-like weights (N, 16) of the body's vertices, and each vertex's total weight.

  The weights of the metacarpals and of the lower arm count as those of the wrist.
  """
  weights, total = np.zeros((num_vertices, 16)), np.zeros(num_vertices)
  for bone, (ids, values) in skin_weights.items():
    np.add.at(total, ids, values)
    if bone in layout.BONE_NAMES:
      weights[ids, layout.BONE_NAMES.index(bone)] += values
    elif re.fullmatch(r'metacarpal\d\.R|lowerarm0\d\.R', bone):
      weights[ids, 0] += values
  return weights, total


def read_hand(root) -> HandSource:
  """Cuts the right hand out of the body along an edge loop around the wrist."""
  body = reading.read_body(root)
  weights, total = hand_weights(reading.read_skin_weights(root), len(body.vertices))
  groups = [body.groups[name] for name in layout.JOINT_GROUPS + layout.TIP_GROUPS]
  wrist, knuckle = (body.vertices[groups[i]].mean(axis=0) for i in (0, 4))
  along = (body.vertices - wrist) @ skeleton.normalize(knuckle - wrist)
  eligible = weights.sum(axis=1) > 0.5 * np.maximum(total, 1e-9)
  chosen = cut_limb(body.quads, eligible, along, start=-0.9, stop=_WRIST_LOOP)
  patch = triangulate(body.vertices, body.quads[chosen], body.texture_quads[chosen])
  helper_ids = np.unique(np.concatenate(groups))
  ids = np.concatenate([patch.vertex_ids, helper_ids])
  row = {int(v): i + len(patch.vertex_ids) for i, v in enumerate(helper_ids)}
  cubes = [np.array([row[int(v)] for v in group]) for group in groups]
  skin = weights[patch.vertex_ids]
  # The forearm joins at the loop, which therefore moves rigidly with the wrist.
  skin[boundary_loop(patch.triangles)] = np.eye(16)[0]
  skin = skin / skin.sum(axis=1, keepdims=True)
  return HandSource(patch, skin, body.vertices[ids], cubes, reading.TargetReader(root, ids))


def flat_hand(source: HandSource, phenotype: phenotypes.Phenotype):
  """Makes a phenotype's flat hand: its vertices, and 21 joints and tips, wrist at the origin."""
  shaped = phenotypes.shape_vertices(source.base, source.targets, phenotype)
  nodes = np.stack([shaped[rows].mean(axis=0) for rows in source.cubes])
  points = shaped[: len(source.patch.vertex_ids)]
  points, joints, tips = skeleton.to_hand_axes(points, nodes[:16], nodes[16:])
  points, nodes = skeleton.flatten(points, joints, tips, source.weights)
  return skeleton.centre_joints(points, nodes)


def sample_hands(source: HandSource, count: int, seed: int = 0) -> ShapeSamples:
  """Draws adult hands with random bone lengths, scaled to the layout's mean length and deviation.

  The legacy generator is used because its stream is the same in all versions of NumPy.

  Args:
    source: the cut hand.
    count: how many hands to draw.
    seed: the seed of the generator.
  """
  random, outer_random = np.random.RandomState(seed), np.random.RandomState(seed + 1)
  vertices, nodes = [], []
  base = flat_hand(source, phenotypes.Phenotype())
  average = proportions.fit_proportions(*base, source.weights)
  for _ in range(count):
    points, joints = flat_hand(source, phenotypes.sample_phenotype(random))
    points, joints, _ = proportions.apply_proportions(points, joints, source.weights, average)
    factors = _PHALANX_DEVIATION * random.normal(size=(5, 3)) + _FINGER_DEVIATION * random.normal()
    factors[_OUTER_FINGERS, 1] += _OUTER_MIDDLE_DEVIATION * outer_random.normal()
    points, joints = skeleton.scale_phalanges(points, joints, source.weights, factors)
    longer, wider = _PALM_DEVIATION * random.normal(size=2)
    points, joints = proportions.scale_palm(points, joints, source.weights, longer, wider)
    vertices.append(points)
    nodes.append(joints)
  vertices, nodes = np.stack(vertices), np.stack(nodes)
  middle_tip = source.weights[:, layout.chain_of(layout.FINGER_NAMES.index('middle'))[2]] > 0.5
  length = np.linalg.norm(vertices[:, middle_tip] - nodes[:, None, 0], axis=-1).max(axis=1)
  standard = (length - length.mean()) / length.std()
  wanted = layout.HAND_LENGTH_M + layout.HAND_LENGTH_DEVIATION_M * standard
  factor = (wanted / length)[:, None, None]
  points, moved, rig = proportions.apply_proportions(*base, source.weights, average)
  size = layout.HAND_LENGTH_M / proportions.hand_length(points, moved, source.weights)
  return ShapeSamples(
    vertices * factor + layout.WRIST_POSITION,
    nodes * factor + layout.WRIST_POSITION,
    (rig - moved) * size,
  )


def shape_components(samples: ShapeSamples, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Computes mean and components of vertices and nodes together, in which nodes weigh more."""
  weight = np.sqrt(_NODE_WEIGHT)
  together = np.concatenate([samples.vertices, weight * samples.nodes], axis=1)
  mean, components = principal_components(together, count)
  split = samples.vertices.shape[1]
  for array in (mean[None], components):
    array[:, split:] /= weight
  return mean, components


def principal_components(samples: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Computes the mean (...) and the components (count, ...) of samples.

  The components are scaled so that their coefficients have unit variance. The sign of a component
  makes its largest entry positive.
  """
  flat = samples.reshape(len(samples), -1)
  mean = flat.mean(axis=0)
  _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
  components = rows[:count] * (singular[:count, None] / np.sqrt(len(samples)))
  largest = components[np.arange(count), np.argmax(np.abs(components), axis=1)]
  components = components * np.sign(largest)[:, None]
  return mean.reshape(samples.shape[1:]), components.reshape(count, *samples.shape[1:])


def nonnegative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Finds argmin |A x - b| over x >= 0 by the active set method of Lawson and Hanson."""
  gram, right = matrix.T @ matrix, matrix.T @ target
  x, active = np.zeros(len(gram)), np.zeros(len(gram), bool)
  tolerance = 1e-10 * np.abs(right).max()
  for _ in range(10 * len(gram)):
    slope = right - gram @ x
    slope[active] = -np.inf
    if slope.max() <= tolerance:
      break
    active[np.argmax(slope)] = True
    while True:
      trial = np.zeros(len(gram))
      trial[active] = np.linalg.solve(gram[np.ix_(active, active)], right[active])
      negative = active & (trial <= 0)
      if not negative.any():
        break
      step = np.min(x[negative] / (x[negative] - trial[negative]))
      x += step * (trial - x)
      active &= x > 1e-14
    x = trial
  return x


def fit_joint_regressor(
  template: np.ndarray,
  joints: np.ndarray,
  shape_directions: np.ndarray,
  joint_directions: np.ndarray,
  posed: list[tuple[np.ndarray, np.ndarray]],
  neighbours: int = 70,
) -> np.ndarray:
  """Fits sparse non-negative rows with sum 1 whose joints follow mean, components and bending.

  Args:
    template: (V, 3) mean hand, metres.
    joints: (16, 3) joints of the mean hand.
    shape_directions: (10, V, 3) displacements of the vertices by a unit step of each component.
    joint_directions: (10, 16, 3) displacements of the joints by the same steps.
    posed: skinned vertices (V, 3) with their joints (16, 3). The rows should fit them as well, so
      that joints read off a posed mesh stay close to those of the kinematic chain.
    neighbours: how many of the nearest vertices each joint may use.
  """
  regressor = np.zeros((len(joints), len(template)))
  mean_weight, sum_weight, ridge = 10.0, 10.0, 1e-4
  for joint, position in enumerate(joints):
    distance = np.linalg.norm(template - position, axis=1)
    near = np.sort(np.argsort(distance, kind='stable')[:neighbours])
    rows = [mean_weight * (template[near] - position).T, sum_weight * np.ones((1, neighbours))]
    values = [np.zeros(3), [sum_weight]]
    rows += [direction[near].T for direction in shape_directions]
    values += [direction[joint] for direction in joint_directions]
    rows += [_POSED_WEIGHT * (vertices[near] - chain[joint]).T for vertices, chain in posed]
    values += [np.zeros(3)] * len(posed)
    matrix = np.concatenate([*rows, ridge * np.eye(neighbours)])
    weights = nonnegative_least_squares(matrix, np.concatenate([*values, np.zeros(neighbours)]))
    regressor[joint, near] = weights / weights.sum()
  return regressor
