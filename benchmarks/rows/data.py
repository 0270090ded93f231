"""Making training examples: crops of photos beside bare decoding, and rendered hands."""

import itertools
import os

import cv2
import numpy as np
import simplejpeg

from benchmarks.contest import Contest
from benchmarks.input_pipeline import drawn_examples, encode
from experiments.configs.names import get_config
from hand_jax.data.augmentation import change_colors, sample_crop_change
from hand_jax.data.prepared import EncodedPictures
from hand_jax.geometry.cameras import crop_affine
from hand_jax.geometry.warping import warp_image
from hand_jax.mano.assets import load_mano_model
from hand_jax.synthetic.hands import render_examples

SIDE = 224


def crops(count: int) -> Contest:
  """Compares decoding, cropping and augmenting JPEG photos of 640 x 480 with decoding them alone.

  Both run on one core.
  """
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  cv2.setNumThreads(1)
  data = get_config('synthetic_supervised').data
  examples = list(drawn_examples(load_mano_model(), count))
  pictures = [EncodedPictures(e.example_id, encode(e, '.jpg'), None) for e in examples]

  def ours():
    for number, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
      change = sample_crop_change(data.augmentation, np.random.default_rng(number))
      factor = data.crop_factor / change.scale
      box = example.box_xywh.astype(np.float64)
      affine = crop_affine(box, SIDE, factor, change.rotation, change.shift)
      change_colors(warp_image(picture.photo(), affine, SIDE), change)

  def decode():
    for picture in pictures:
      simplejpeg.decode_jpeg(picture.photo_file, 'RGB')

  return Contest(ours, {'simplejpeg, decoding alone': decode})


def rendered_hands(count: int) -> Contest:
  """Measures rendering photos of hands with all labels, other hands each time."""
  numbers = itertools.count(0, count)

  def call():
    start = next(numbers)
    return render_examples(0, 'train', range(start, start + count), SIDE, hands='classic')

  return Contest(call, {})
