"""Measures trained runs on each hand of splits whose features are computed once."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.ablations.grid import CONFIG, SPLITS
from experiments.ablations.prepared import BROAD, DATASET, TEST_EXAMPLES, data_folder
from experiments.configs.names import get_config
from hand_jax.config import DataConfig, ExperimentConfig
from hand_jax.data.example_sources import create_source
from hand_jax.data.manifests import data_digest
from hand_jax.evaluation.evaluate import RootHands, hand_metrics
from hand_jax.evaluation.featured_split import (
  FeaturedSplit,
  cached_split,
  featured_split,
  make_features_fn,
)
from hand_jax.evaluation.hand_errors import HandErrors, measure_hands
from hand_jax.evaluation.run_data import mean_hand_of
from hand_jax.examples import HandExample
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import naming_misfits
from hand_jax.readers.hand_photos import (
  PhotoEntry,
  annotations_digest,
  load_example,
  read_annotations,
)
from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.runs.hand_models import load_run_model
from hand_jax.types import ArrayLike

MEAN_HAND_EXAMPLES = 2000
_BLOCK = 16


class Measured(NamedTuple):
  """A run's errors on one split, and the PA-MPJPE of the mean hand there. Photos have none."""

  errors: HandErrors
  mean_hand_pa_mpjpe_mm: float | None = None


Measure = Callable[[str, Sequence[str], Sequence[str]], dict[str, Measured]]
"""Maps a run's folder, its splits, and the splits that need all metrics, to the measurements."""


class SplitMeasurer:
  """Measures runs on splits, each of which is prepared once and kept in memory and in a file.

  Args:
    workdir: folder of the ablations, which gets the files.
    data_dir: folder with the prepared hands of each kind.
    photos: folders in the hand_photos format by the names of their splits. They only measure.
  """

  def __init__(self, workdir: pathlib.Path, data_dir: str, photos: dict[str, str]):
    self._folder, self._data_dir, self._photos = workdir / 'measuring', data_dir, photos
    self._splits: dict[tuple, FeaturedSplit] = {}
    self._baselines: dict[str, float] = {}

  def measure(
    self, workdir: str, splits: Sequence[str], full: Sequence[str] = ()
  ) -> dict[str, Measured]:
    """Measures a trained run, see `Measure`.

    Raises:
      OSError, ValueError: the run or a split cannot be used.
    """
    config, variables = load_for_inference(workdir)
    model = load_run_model(workdir, None)
    estimate, regressor = (
      make_features_fn(config, variables, model),
      extended_joint_regressor(model),
    )
    measured = {}
    with naming_misfits(workdir):
      for name in splits:
        split = self._split(name, config, model.faces)
        errors = measure_hands(estimate, split, regressor, name in full, model.faces)
        baseline = self._baseline(name, split, np.asarray(regressor, np.float64))
        measured[name] = Measured(errors, baseline)
    return measured

  def _split(self, name: str, config: ExperimentConfig, faces: ArrayLike) -> FeaturedSplit:
    factor, upright = config.data.crop_factor, config.data.upright
    # A run that samples no maps ignores them, so it can read the same features as the others.
    maps = config.model.attention.map_channels or get_config(CONFIG).model.attention.map_channels
    drawn = None if name in self._photos else faces
    if (name, factor, upright, maps) not in self._splits:
      described = (
        f'{self._describe(name)}, {"upright " if upright else ""}crops of {factor} times the box, '
        f'maps of {maps} channels' + (', silhouettes' if drawn is not None else '')
      )
      path = self._folder / f'{name}-{maps}_map_channels.npz'
      self._splits[name, factor, upright, maps] = cached_split(
        path, described, lambda: featured_split(self._examples(name), factor, maps, upright, drawn)
      )
    return self._splits[name, factor, upright, maps]

  def _describe(self, name: str) -> str:
    if name in self._photos:
      return f'photos with annotations {annotations_digest(self._photos[name])}'
    digest = data_digest(DATASET, data_folder(self._data_dir, BROAD))
    return f'first {TEST_EXAMPLES} examples of split {SPLITS[name]} of {digest}'

  def _examples(self, name: str) -> Iterable[HandExample]:
    print(f'Computing the features of {name}, once for all runs.', flush=True)
    if name in self._photos:
      return map(photo_example, read_annotations(self._photos[name]))
    return _first_examples(self._data(), SPLITS[name])

  def _data(self) -> DataConfig:
    return DataConfig(dataset=DATASET, data_dir=data_folder(self._data_dir, BROAD), hands=BROAD)

  def _baseline(self, name: str, split: FeaturedSplit, regressor: np.ndarray) -> float | None:
    if split.vertices_root is None:
      return None
    if name not in self._baselines:
      mean_hand = mean_hand_of(str(self._folder), self._data(), MEAN_HAND_EXAMPLES)
      assert mean_hand is not None, 'rendered hands have meshes'
      vertices = np.broadcast_to(mean_hand.vertices_aligned, split.vertices_root.shape)
      target = RootHands(
        np.asarray(split.vertices_root, np.float64), np.asarray(split.joints_root, np.float64)
      )
      figures = hand_metrics(RootHands(vertices, regressor @ vertices), target, full=False)
      self._baselines[name] = float(figures['pa_mpjpe_mm'].mean())
    return self._baselines[name]


def _first_examples(data: DataConfig, split: str) -> Iterator[HandExample]:
  source = create_source(data, split, 0, TEST_EXAMPLES)
  for start in range(0, len(source), _BLOCK):
    yield from source.load(range(start, min(start + _BLOCK, len(source))))


def photo_example(entry: PhotoEntry) -> HandExample:
  """Reads an annotated photo with its joints in camera axes, to measure on.

  Raises:
    ValueError: a joint is unknown in camera axes. The message names the entry.
  """
  if not np.isfinite(entry.joints_camera).all():
    raise ValueError(
      f'{entry.where}, joints_camera: expected all 21 joints in metres, to measure errors in space.'
    )
  return load_example(entry)._replace(joints_camera=entry.joints_camera.astype(np.float32))


def parse_photos(texts: Sequence[str]) -> dict[str, str]:
  """Reads the folders of the flag, each as NAME=FOLDER.

  Raises:
    ValueError: a text has another form, or a name is given twice or is that of a rendered split.
  """
  photos: dict[str, str] = {}
  for text in texts:
    name, _, folder = text.partition('=')
    if not (name.isidentifier() and folder):
      raise ValueError(f'--photos should be NAME=FOLDER, got {text!r}.')
    if name in photos or name in SPLITS:
      raise ValueError(f'--photos={text}: {name} names another split; expected a new name.')
    photos[name] = folder
  return photos
