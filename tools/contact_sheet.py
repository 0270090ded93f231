"""Draws a contact sheet of synthetic hands, to be looked at by a person.

python -m tools.contact_sheet --output=docs/images/synthetic_hands.jpg
"""

import pathlib

import cv2
import numpy as np
from absl import flags

from experiments.launching import launch, start
from experiments.path_flags import define_path
from hand_jax.mano.gestures import POSE_SAMPLERS
from hand_jax.mano.joints import BONES
from hand_jax.synthetic.hands import render_examples
from hand_jax.synthetic.scene import SPLITS

OUTPUT = define_path('output', None, 'Image file to write.', required=True)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of the examples.')
SPLIT = flags.DEFINE_enum('split', 'train', list(SPLITS), 'Split of the examples.')
HANDS = flags.DEFINE_enum('hands', 'classic', list(POSE_SAMPLERS), 'Sampler of the poses.')
FIRST = flags.DEFINE_integer('first', 0, 'Index of the first example.')
ROWS = flags.DEFINE_integer('rows', 6, 'Rows of the sheet.', lower_bound=1)
COLUMNS = flags.DEFINE_integer('columns', 10, 'Columns of the sheet.', lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer('image_size', 160, 'Pixels of one image.')
LABELS = flags.DEFINE_bool('labels', False, 'Draws joints, box and hand mask over the images.')


def draw_labels(example) -> np.ndarray:
  """Draws the hand mask in green, the box and the bones over the image of an example."""
  image = example.image.copy()
  image[example.hand_mask, 1] = 128 + image[example.hand_mask, 1] // 2
  # In OpenCV whole numbers are the centres of pixels.
  joints = np.round(example.joints_image - 0.5).astype(int)
  for parent, child in BONES:
    cv2.line(image, joints[parent].tolist(), joints[child].tolist(), (255, 40, 40), 1, cv2.LINE_AA)
  x, y, width, height = np.round(example.box_xywh).astype(int).tolist()
  cv2.rectangle(image, (x, y), (x + width, y + height), (255, 255, 0), 1)
  return image


def main(argv: list[str]) -> None:
  """Renders the examples and writes the sheet."""
  start(argv)
  output = pathlib.Path(OUTPUT.value)
  if output.suffix.lower() not in ('.jpg', '.jpeg', '.png'):
    raise ValueError(f'{output}: expected a name that ends with .jpg or .png.')
  indices = range(FIRST.value, FIRST.value + ROWS.value * COLUMNS.value)
  examples = render_examples(SEED.value, SPLIT.value, indices, IMAGE_SIZE.value, hands=HANDS.value)
  tiles = [draw_labels(e) if LABELS.value else e.image for e in examples]
  rows = [np.hstack(tiles[k : k + COLUMNS.value]) for k in range(0, len(tiles), COLUMNS.value)]
  output.parent.mkdir(parents=True, exist_ok=True)
  options = [] if output.suffix.lower() == '.png' else [cv2.IMWRITE_JPEG_QUALITY, 82]
  _, encoded = cv2.imencode(output.suffix, np.vstack(rows)[..., ::-1], options)
  output.write_bytes(encoded.tobytes())
  print(f'{output}: {len(tiles)} examples, {output.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
  launch(main)
