"""Prepares data sets of drawn hands with the landmark network's features, for tests."""

import functools
import pathlib
import sys
from typing import NamedTuple

import jax

from hand_jax.data.crop_features import CropFeatureSettings
from hand_jax.models.backbone import HandLandmarkBackbone, normalize_image
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.preparing.building import Prepared, prepare
from hand_jax.types import ManoModel
from tests.drawn_hands import DrawnSource

SETTINGS = CropFeatureSettings(crops=2, maps=5, crop_factor=1.7)
COUNTS = {'train': 3, 'validation': 2}


class FeaturedSet(NamedTuple):
  """A prepared data set, the folder to name in `data.data_dir`, and the examples behind it."""

  prepared: Prepared
  data_dir: str
  sources: dict[str, DrawnSource]


def render_drawn(sources, seed, split, indices, image_size, hands):
  """Replaces the renderer of `SyntheticHands`."""
  return sources[split].load(indices)


def prepare_featured(folder: pathlib.Path, model: ManoModel, **settings) -> FeaturedSet:
  """Prepares the drawn hands as `synthetic_hands`."""
  sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'datasets'))
  from synthetic_hands.synthetic_hands_dataset_builder import SyntheticHands

  sources = {split: DrawnSource(model, count, seed=count) for split, count in COUNTS.items()}
  settings = {'examples': COUNTS, **settings}
  render = functools.partial(render_drawn, sources)
  return FeaturedSet(prepare(SyntheticHands, folder, settings, render=render), str(folder), sources)


@functools.cache
def landmark_backbone():
  """Compiles the backbone on uint8 crops, separately from the program that prepares features."""
  variables = load_bundled_parameters('hand_landmark')

  @jax.jit
  def apply(crops):
    images = normalize_image(crops, 'hand_landmark')
    return HandLandmarkBackbone().apply(variables, images, False)

  return lambda crops: jax.device_get(apply(crops))
