"""Puts the free hand together, mirrors it, and writes it so that equal input gives equal bytes."""

import io
import pathlib
import zipfile

import numpy as np

from hand_jax.files.writing import write_whole
from tools.free_hand import (
  appearance,
  layout,
  pose_space,
  reading,
  shape_space,
  skeleton,
  skinning,
)
from tools.free_hand.decimation import decimate

# Lengths are rounded to a tenth of a micrometre and weights to 2^-16, so that last-bit differences
# between linear algebra libraries do not reach the files and rows of weights sum to one exactly.
_LENGTH_STEP = 1e-7
_WEIGHT_STEPS = 65536
_REGRESSOR_POSES = 24
_NAIL_IMPORTANCE = 4.0  # keeps the rims of the nails as edges of the mesh


def round_rows(weights: np.ndarray, keep: int | None = None) -> np.ndarray:
  """Rounds rows of weights to non-negative multiples of 2^-16 with sum 1.

  Args:
    weights: non-negative weights.
    keep: how many of the largest weights of a row are kept, or None for all.
  """
  weights = weights.copy()
  if keep is not None:
    smallest = np.argsort(-weights, axis=1, kind='stable')[:, keep:]
    np.put_along_axis(weights, smallest, 0.0, axis=1)
  weights /= weights.sum(axis=1, keepdims=True)
  steps = np.round(weights * _WEIGHT_STEPS)
  largest = np.argmax(steps, axis=1)
  steps[np.arange(len(steps)), largest] += _WEIGHT_STEPS - steps.sum(axis=1)
  return steps / _WEIGHT_STEPS


def _round_length(values: np.ndarray) -> np.ndarray:
  return np.round(np.asarray(values) / _LENGTH_STEP) * _LENGTH_STEP


def build_right_hand(root, num_samples: int) -> dict[str, np.ndarray]:
  """Builds all arrays of the right hand's file, which `tools/build_free_hand.py` explains.

  Args:
    root: the data folder, see `reading.open_data`.
    num_samples: how many random adults give the shape components.
  """
  source = shape_space.read_hand(root)
  samples = shape_space.sample_hands(source, num_samples)
  mean, components = shape_space.shape_components(samples, layout.NUM_SHAPES)
  split = len(source.patch.vertex_ids)
  full = np.round(mean[:split], 9)
  uv = reading.read_body(root).texture_coordinates[source.patch.texture_ids]
  nail = appearance.nail_mask(reading.read_texture(root, 'mpfb_fingernails.jpg'), uv)
  kept, faces = decimate(
    full,
    source.patch.triangles,
    layout.NUM_VERTICES,
    layout.NUM_BOUNDARY_EDGES,
    importance=np.where(nail > 0.3, _NAIL_IMPORTANCE, 1.0),
  )
  template, directions = _round_length(full[kept]), _round_length(components[:, kept])
  nodes = mean[split:]
  moved = skinning.move_weights(full, source.weights, nodes + samples.rig_offsets, nodes)
  smooth = skinning.smooth_weights(moved, full, source.patch.triangles)
  weights = round_rows(smooth[kept], keep=4)
  posed = [
    skeleton.pose_hand(template, nodes[:16], weights, pose)
    for pose in pose_space.varied_poses(_REGRESSOR_POSES)
  ]
  regressor = shape_space.fit_joint_regressor(
    template, nodes[:16], directions, components[:, split : split + 16], posed
  )
  poses = pose_space.build_pose_space()
  forearm, forearm_faces, anchors = appearance.build_forearm(template, faces)
  return {
    'side': np.array('right'),
    'version': np.array(layout.VERSION, np.int32),
    'v_template': template.astype(np.float32),
    'shapedirs': directions.transpose(1, 2, 0).astype(np.float32),
    'joint_regressor': round_rows(regressor).astype(np.float32),
    'lbs_weights': weights.astype(np.float32),
    'faces': faces.astype(np.int32),
    'parents': np.array(layout.PARENTS, np.int32),
    'hands_mean': np.round(poses.mean, 6).astype(np.float32),
    'hands_components': np.round(poses.components, 7).astype(np.float32),
    'hands_standard_deviations': np.round(poses.deviations, 6).astype(np.float32),
    'flexion_axes': np.round(skeleton.flexion_axes(), 7).astype(np.float32),
    'fingertip_vertices': appearance.fingertip_vertices(template, nodes, weights).astype(np.int32),
    'uv': uv[kept].astype(np.float32),
    'nail': np.round(nail[kept], 4).astype(np.float32),
    'palm': np.round(appearance.palm_mask(template, faces, weights), 4).astype(np.float32),
    'forearm_vertices': _round_length(forearm).astype(np.float32),
    'forearm_faces': forearm_faces.astype(np.int32),
    'forearm_anchors': anchors.astype(np.int32),
  }


def mirror_hand(right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Mirrors the right hand to the left one.

  Positions change from x to -x, faces are reversed, and rotations (x, y, z) become (x, -y, -z).
  """
  left = dict(right, side=np.array('left'))
  position = np.array([-1, 1, 1], np.float32)
  rotation = np.array([1, -1, -1], np.float32)
  for name in ('v_template', 'forearm_vertices'):
    left[name] = right[name] * position
  left['shapedirs'] = right['shapedirs'] * position[:, None]
  for name in ('faces', 'forearm_faces'):
    left[name] = np.ascontiguousarray(right[name][:, ::-1])
  for name in ('hands_mean', 'hands_components', 'flexion_axes'):
    values = right[name]
    left[name] = (values.reshape(-1, 3) * rotation).reshape(values.shape)
  return {name: left[name] for name in right}


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an .npz whose members have a fixed order and fixed times and attributes.

  The file appears under its name when it is complete. It is stored without compression, because
  versions of zlib differ in their output and the files are small.
  """
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_STORED) as archive:
    for name in sorted(arrays):
      member = zipfile.ZipInfo(f'{name}.npy', date_time=(1980, 1, 1, 0, 0, 0))
      member.create_system = 3
      member.external_attr = 0o644 << 16
      content = io.BytesIO()
      np.lib.format.write_array(content, np.asarray(arrays[name]), allow_pickle=False)
      archive.writestr(member, content.getvalue())
  write_whole(path, buffer.getvalue())
