"""Turns an official MANO file into a plain .npz, reading it without running anything in it.

python -m experiments.convert_mano --input=MANO_RIGHT.pkl --output=mano_right.npz
"""

from absl import flags, logging

from experiments.launching import launch, start
from experiments.path_flags import define_path
from hand_jax.mano.mano_files import read_official_mano, write_converted_mano

_INPUT = define_path('input', None, 'MANO_RIGHT.pkl or MANO_LEFT.pkl.', required=True)
_OUTPUT = define_path('output', None, 'The .npz file to write.', required=True)
_SIDE = flags.DEFINE_enum(
  'side', None, ['right', 'left'], "The hand's side; by default from the name of the input."
)


def main(argv: list[str]) -> None:
  start(argv)
  logging.set_verbosity(logging.INFO)
  side = _SIDE.value or ('left' if 'left' in _INPUT.value.rsplit('/', 1)[-1].lower() else 'right')
  arrays = read_official_mano(_INPUT.value, side)
  write_converted_mano(_OUTPUT.value, arrays, side)
  print(f'{_OUTPUT.value}: the {side} hand, {arrays["v_template"].shape[0]} vertices')


if __name__ == '__main__':
  launch(main)
