"""Compares the free hand's bone lengths with published ones, and its joints with true ones.

  python -m tools.measure_free_hand [--hand=FILE.npz] [--source=FOLDER]

The tool prints the table of docs/free_hand.md. `--source` names a folder of annotated photos (the
hand_photos format) whose entries have `joints_camera`. The hand is then also fitted to the true
joints, with the prior of the default fit and evidence of 2 mm. The mean offset that remains at a
joint, in axes that turn with its bones, does not come from the pose. It shows that the data set
places the joint elsewhere.
"""

import numpy as np
from absl import flags
from jaxtyping import Float

from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_path
from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.fitting.evidence import PointErrors, hand_evidence
from hand_jax.fitting.refine import refine_hands
from hand_jax.fitting.released_weights import load_release
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import BONES, JOINT_NAMES
from hand_jax.mano.model import regress_joints
from hand_jax.readers.hand_photos import PhotoEntry, read_annotations
from hand_jax.types import ManoModel
from tools.free_hand.proportions import BONES_MM

_MM_PER_M = 1000.0
_EVIDENCE_SIGMA_MM = 2.0
_FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')
_PARENTS = {child: parent for parent, child in BONES}


def define_flags() -> None:
  """Defines the flags when the tool runs, so that tests can import several tools at once."""
  define_path('hand', None, 'File of a hand model. Default: the free hand of this package.')
  define_path('source', None, 'Folder in the hand_photos format.')


def bone_lengths_mm(model: ManoModel) -> Float[np.ndarray, '5 4']:
  """Measures the mean hand's bones from the wrist to the skin of the fingertip, thumb first."""
  joints = np.asarray(regress_joints(model, model.v_template), np.float64)
  chains = [[0, *range(1 + 4 * k, 5 + 4 * k)] for k in range(5)]
  bones = [np.diff(joints[chain], axis=0) for chain in chains]
  return _MM_PER_M * np.linalg.norm(np.array(bones), axis=-1)


def length_lines(model: ManoModel) -> list[str]:
  """Writes a Markdown table of our lengths, those of X-rays, and their shares.

  The shares are relative to the middle finger's proximal and middle phalanx.
  """
  lengths = bone_lengths_mm(model)
  ours_unit = lengths[2, 1:3].sum()
  theirs_unit = sum(BONES_MM['middle'][1:3])
  lines = ['| bone | ours, mm | X-rays, mm | share, ours | share, X-rays | ratio |']
  lines.append('| --- | ---: | ---: | ---: | ---: | ---: |')
  for finger, own in zip(_FINGERS, lengths, strict=True):
    metacarpal, proximal, middle, distal, tissue = BONES_MM[finger]
    if finger == 'thumb':
      rows = {'metacarpal': (own[1], metacarpal), 'proximal': (own[2], proximal)}
    else:
      rows = {
        'wrist to knuckle, metacarpal': (own[0], metacarpal),
        'proximal': (own[1], proximal),
        'middle': (own[2], middle),
      }
    rows['distal with skin'] = (own[3], distal + tissue)
    for name, (mine, published) in rows.items():
      shares = mine / ours_unit, published / theirs_unit
      lines.append(
        f'| {finger}, {name} | {mine:.1f} | {published:.1f} | {shares[0]:.3f} | {shares[1]:.3f} | '
        f'{shares[0] / shares[1]:.2f} |'
      )
  return lines


def fitted_entries(folder: str) -> list[PhotoEntry]:
  """Reads the entries of a folder whose joints are all known.

  Raises:
    ValueError: no entry of the folder has all joints.
  """
  entries = read_annotations(folder, needs_keypoints=False)
  entries = [e for e in entries if e.joint_confidence.all() and np.isfinite(e.joints_camera).all()]
  if not entries:
    raise ValueError(f'{folder}: no entry has all 21 keypoints and all 21 joints_camera.')
  return entries


def fit_lines(model: ManoModel, entries: list[PhotoEntry]) -> list[str]:
  """Fits the hand to true joints, and describes the mean error and each joint's constant offset."""
  fitted = np.stack([_fit(model, entry) for entry in entries])
  true = np.stack([_as_right_hand(entry) for entry in entries])
  errors = np.linalg.norm(procrustes_align(fitted, true) - true, axis=-1)
  left_over = procrustes_align(true, fitted) - fitted
  constant = np.mean(np.einsum('njab,nja->njb', bone_axes(fitted), left_over), axis=0)
  distances = _MM_PER_M * np.linalg.norm(constant, axis=-1)
  lines = [
    f'Fitted to the true joints of {len(entries)} hands: PA-MPJPE {_MM_PER_M * errors.mean():.2f} '
    f'mm; constant offset of a joint {distances.mean():.2f} mm on average.'
  ]
  for name, offset, distance in zip(JOINT_NAMES, _MM_PER_M * constant, distances, strict=True):
    along, aside, back = offset
    lines.append(
      f'  {name:11s} {distance:4.1f} mm: {along:5.1f} along the bone, {aside:5.1f} to the index '
      f'side, {back:5.1f} to the back'
    )
  return lines


def _as_right_hand(entry: PhotoEntry) -> np.ndarray:
  mirror = -1.0 if entry.side == 'left' else 1.0
  return np.asarray(entry.joints_camera, np.float64) * [mirror, 1.0, 1.0]


def _fit(model: ManoModel, entry: PhotoEntry) -> np.ndarray:
  """Fits the hand to true joints, which an assumed camera projects, and returns its joints."""
  joints = _as_right_hand(entry)
  pixels = 500 * joints[:, :2] / joints[:, 2:] + 250
  errors = PointErrors(_EVIDENCE_SIGMA_MM, _EVIDENCE_SIGMA_MM, np.inf)
  intrinsics = np.array([[500.0, 0, 250], [0, 500, 250], [0, 0, 1]])
  evidence = hand_evidence(pixels[None], joints[None], (500, 500), errors, intrinsics)
  return np.asarray(refine_hands(model, evidence, load_release().prior).joints[0], np.float64)


def bone_axes(joints: Float[np.ndarray, '*batch 21 3']) -> Float[np.ndarray, '*batch 21 3 3']:
  """Returns axes (columns) at each joint: along its bones, to the index finger's side, to the back.

  At a joint between two bones the first axis is their mean direction. That of the wrist points at
  the middle of the knuckles.
  """
  palm = _unit(joints[..., [5, 9, 13, 17], :].mean(axis=-2) - joints[..., 0, :])
  side = joints[..., 5, :] - joints[..., 17, :]
  axes = []
  for joint in range(21):
    along = palm
    if joint:
      along = _unit(joints[..., joint, :] - joints[..., _PARENTS[joint], :])
      if joint % 4:
        along = _unit(along + _unit(joints[..., joint + 1, :] - joints[..., joint, :]))
    aside = _unit(side - (side * along).sum(axis=-1, keepdims=True) * along)
    axes.append(np.stack([along, aside, np.cross(along, aside)], axis=-1))
  return np.stack(axes, axis=-3)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main(argv: list[str]) -> None:
  """Prints the table, and with --source what the fit leaves."""
  start(argv)
  model, source = load_mano_model(flags.FLAGS.hand), flags.FLAGS.source
  entries = fitted_entries(source) if source else []
  print_lines(length_lines(model))
  if entries:
    print_lines(fit_lines(model, entries))


if __name__ == '__main__':
  define_flags()
  launch(main)
