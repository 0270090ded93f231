"""Converts an official MANO file to a plain .npz, without running anything in the file.

python -m experiments.convert_mano --input=MANO_RIGHT.pkl --output=mano_right.npz
"""

from absl import flags, logging

from experiments.launching import launch, start
from experiments.path_flags import define_overwrite, define_path
from hand_jax.files.outputs import Output, check_outputs, is_npz_with
from hand_jax.mano.mano_files import read_official_mano, write_converted_mano

FLAGS = flags.FLAGS
_INPUT = define_path('input', None, 'MANO_RIGHT.pkl or MANO_LEFT.pkl.', required=True)
_OUTPUT = define_path('output', None, 'The .npz file to write.', required=True)
define_overwrite()
_SIDE = flags.DEFINE_enum(
  'side', None, ['right', 'left'], 'Side of the hand. Default: the name of the input tells it.'
)


def main(argv: list[str]) -> None:
  """Reads the flags and converts the file."""
  start(argv)
  logging.set_verbosity(logging.INFO)
  side = _SIDE.value or ('left' if 'left' in _INPUT.value.rsplit('/', 1)[-1].lower() else 'right')
  is_own = is_npz_with('side', 'v_template', 'joint_regressor')
  output = Output('--output', _OUTPUT.value, is_own)
  check_outputs([output], {_INPUT.value: '--input'}, FLAGS.overwrite)
  arrays = read_official_mano(_INPUT.value, side)
  write_converted_mano(_OUTPUT.value, arrays, side)
  print(f'{_OUTPUT.value}: the {side} hand, {arrays["v_template"].shape[0]} vertices')


if __name__ == '__main__':
  launch(main)
