"""Prepares the hands of the ablations, for training and measuring, where they are missing."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from experiments.ablations.grid import HANDS, SPLITS
from experiments.builders import load_builder
from hand_jax.config import DataConfig
from hand_jax.data.crop_features import settings_of_manifest
from hand_jax.data.prepared import hands_of_manifest, prepared_manifest
from hand_jax.preparing.data_sets import PrepareRequest, prepare_data_set

DATASET = 'synthetic_hands'
TRAIN_EXAMPLES, TEST_EXAMPLES = 8000, 500
BROAD, DISPLACED = HANDS
"""Hands to measure on are those of the first kind's folder."""

Prepare = Callable[[PrepareRequest], Any]


def data_folder(data_dir: str, hands: str) -> str:
  """Returns the folder in which the hands of a kind are prepared."""
  return str(pathlib.Path(data_dir) / hands)


def prepare_request(data_dir: str, hands: str) -> PrepareRequest:
  """Returns all settings of the hands of a kind, as the flags of `experiments.prepare_dataset`."""
  measured = TEST_EXAMPLES if hands == BROAD else 0
  return PrepareRequest(
    data_folder(data_dir, hands),
    workers=2,
    train_examples=TRAIN_EXAMPLES,
    validation_examples=300,
    test_examples=measured,
    test_mismatch_examples=measured,
    hands=hands,
    image_size=224,
    seed=0,
    with_features=True,
    feature_crops=2,
    feature_maps=16,
  )


def prepare_hands(request: PrepareRequest) -> None:
  """Prepares hands as `experiments.prepare_dataset` does. This is the `prepare` of the others."""
  prepare_data_set(DATASET, load_builder(DATASET), request)


def prepare_missing(data_dir: str, kinds: Iterable[str], prepare: Prepare = prepare_hands) -> None:
  """Prepares the kinds of hands that are not there yet, and checks those that are.

  Prepared hands may differ from `prepare_request` in their number.

  Args:
    data_dir: folder that has a folder for each kind.
    kinds: the kinds that runs train on. The first of `HANDS` is always needed, to measure on.
    prepare: prepares hands.

  Raises:
    ValueError: a folder holds hands of another kind, without features of upright crops or without
      a split.
  """
  for hands in dict.fromkeys((BROAD, *kinds)):
    folder = data_folder(data_dir, hands)
    try:
      manifest = prepared_manifest(DATASET, folder)[1]
    except FileNotFoundError:
      print(f'Preparing {hands} hands in {folder}.', flush=True)
      prepare(prepare_request(data_dir, hands))
      continue
    needed = ('train', 'validation', *(SPLITS.values() if hands == BROAD else ()))
    missing = [split for split in needed if not manifest['examples'].get(split)]
    found = hands_of_manifest(manifest)
    features = settings_of_manifest(manifest)
    if found != hands or missing or features is None or not features.upright:
      raise ValueError(
        f'{folder} should hold {hands} hands with features of upright crops and the splits '
        f'{", ".join(needed)}; it holds {found} hands and {json.dumps(manifest["examples"])}. Move '
        'it away, or name another --data_dir, in which missing hands are prepared.'
      )


def count_training_examples(data_dir: str, hands: str) -> int:
  """Counts the prepared training examples of a kind.

  Raises:
    FileNotFoundError: there are no prepared hands.
  """
  folder = data_folder(data_dir, hands)
  return prepared_manifest(DATASET, folder)[1]['examples'][DataConfig().train_split]
