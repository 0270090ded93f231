"""The official evaluations written out naively: one sample, one point and one threshold at a time.

Everything in metres, in the files' own order and axes; figures in cm where the scripts print cm.
"""

import math

import numpy as np
import scipy.linalg
import scipy.spatial


def align(target, predicted):
  """Similarity of the orthogonal kind: a mirror image counts as a rotation."""
  target_centre = sum(target) / len(target)
  predicted_centre = sum(predicted) / len(predicted)
  a, b = target - target_centre, predicted - predicted_centre
  a_size = math.sqrt(sum(x * x for row in a for x in row)) + 1e-8
  b_size = math.sqrt(sum(x * x for row in b for x in row)) + 1e-8
  rotation, scale = scipy.linalg.orthogonal_procrustes(a / a_size, b / b_size)
  return np.array([scale * a_size * (rotation @ row) / b_size + target_centre for row in b])


def align_rigidly(target, predicted):
  """Similarity with a proper rotation, by scipy's Kabsch, least-squares scale."""
  a, b = target - target.mean(0), predicted - predicted.mean(0)
  if np.abs(b).max() == 0:
    return np.zeros_like(b) + target.mean(0)
  rotation, _ = scipy.spatial.transform.Rotation.align_vectors(a, b)
  turned = rotation.apply(b)
  return turned * np.sum(turned * a) / np.sum(turned * turned) + target.mean(0)


def align_by_bone(target, predicted):
  """HO3D's scale and translation, from the bone between joints 0 and 4."""
  length = math.dist(predicted[0], predicted[4])
  scale = math.dist(target[0], target[4]) / length if length > 0 else math.dist(*target[[0, 4]])
  return np.array([scale * (joint - predicted[0]) + target[0] for joint in predicted])


def align_other_mesh(target_joints, joints, vertices):
  """The rule for meshes of another vertex count: the joints' transform, unnormalised."""
  target_centre, centre = sum(target_joints) / 21, sum(joints) / 21
  a, b = target_joints - target_centre, joints - centre
  a_size, b_size = np.linalg.norm(a) + 1e-8, np.linalg.norm(b) + 1e-8
  rotation, scale = scipy.linalg.orthogonal_procrustes(a / a_size, b / b_size)
  middle = sum(vertices) / len(vertices)
  shift = target_centre - centre
  return np.array([scale * a_size * (rotation @ (v - middle)) + shift + middle for v in vertices])


def f_score(target, predicted, threshold):
  distances = [[math.dist(p, t) for t in target] for p in predicted]
  matched = sum(min(row) < threshold for row in distances) / len(predicted)
  covered = sum(min(column) < threshold for column in zip(*distances, strict=True)) / len(target)
  return 2 * matched * covered / (matched + covered) if matched + covered else 0.0


def mean_and_auc(targets, predictions):
  """Mean error in cm and area under the PCK curve: per point over the samples, then over points."""
  thresholds = [0.05 * step / 99 for step in range(100)]
  thresholds[-1] = 0.05
  means, areas = [], []
  for point in range(len(targets[0])):
    errors = [math.dist(t[point], p[point]) for t, p in zip(targets, predictions, strict=True)]
    means.append(sum(errors) / len(errors))
    curve = [sum(error <= limit for error in errors) / len(errors) for limit in thresholds]
    area = 0.0
    for step in range(99):
      area += (curve[step] + curve[step + 1]) / 2 * (thresholds[step + 1] - thresholds[step])
    areas.append(area / 0.05)
  return 100 * sum(means) / len(means), sum(areas) / len(areas)


def evaluate(joints, vertices, true_joints, true_vertices, ho3d):
  """All official figures of a list of samples, by name."""
  pairs = list(zip(true_joints, joints, strict=True))
  meshes = list(zip(true_vertices, vertices, strict=True))
  same_mesh = len(vertices[0]) == len(true_vertices[0])
  series = {'xyz': (true_joints, joints)}
  if ho3d:
    series['xyz_procrustes_al'] = (true_joints, [align(*pair) for pair in pairs])
    series['xyz_scale_trans_al'] = (true_joints, [align_by_bone(*pair) for pair in pairs])
  else:
    series['xyz_al'] = (true_joints, [align(*pair) for pair in pairs])
  if same_mesh:
    aligned = [align(*mesh) for mesh in meshes]
    series |= {'mesh': (true_vertices, vertices), 'mesh_al': (true_vertices, aligned)}
  else:
    hands = zip(pairs, vertices, strict=True)
    aligned = [align_other_mesh(*pair, mesh) for pair, mesh in hands]
  figures = {}
  for name, (targets, predictions) in series.items():
    figures[f'{name}_mean3d'], figures[f'{name}_auc3d'] = mean_and_auc(targets, predictions)
  if not same_mesh:
    figures |= dict.fromkeys(('mesh_mean3d', 'mesh_auc3d', 'mesh_al_mean3d', 'mesh_al_auc3d'), -1.0)
  for millimetres in (5, 15):
    for name, predictions in (('f_score', vertices), ('f_al_score', aligned)):
      scores = [
        f_score(target, predicted, millimetres / 1000)
        for target, predicted in zip(true_vertices, predictions, strict=True)
      ]
      figures[f'{name}_{millimetres}'] = sum(scores) / len(scores)
  return figures
