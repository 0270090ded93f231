"""Prepares each data set by the flags of `experiments.prepare_dataset`."""

import functools
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hand_jax.data.crop_features import (
  CropFeatureSettings,
  bytes_per_example,
  settings_of_manifest,
)
from hand_jax.data.landmark_errors import read_errors_by_split
from hand_jax.data.manifests import MANIFEST_NAME
from hand_jax.mano.assets import load_mano_model, resolve_mano_dir
from hand_jax.mano.mano_files import find_mano_file
from hand_jax.preparing.building import Prepared, Progress, prepare, size_of_photos
from hand_jax.readers import freihand, hand_photos, ho3d_folder
from hand_jax.readers.annotation_files import files_digest

# The report shows how many examples this `data.max_landmark_error` keeps. Heads trained on such
# crops were the best.
_TOLD_LANDMARK_ERROR = 0.12
CreateBuilder = Callable[..., Any]
"""It is a tfds builder class of the folder `datasets`, see `prepare`."""


class PrepareRequest(NamedTuple):
  """The values of the flags of the same names. A data set uses only its `own_flags`."""

  data_dir: str
  source: str | None = None
  validation_fraction: float | None = None
  limit: int = 0
  strict: bool = False
  workers: int = 1
  mano_dir: str | None = None
  train_examples: int = 10000
  validation_examples: int = 500
  test_examples: int = 1000
  test_broad_examples: int = 0
  test_mismatch_examples: int = 0
  hands: str = 'classic'
  image_size: int = 224
  seed: int = 0
  with_features: bool = False
  feature_crops: int = 4
  feature_maps: int = 0
  feature_crop_factor: float = 1.4

  def feature_settings(self) -> dict[str, Any]:
    """Returns the builder's setting `crop_features`, or nothing without features."""
    if not self.with_features:
      return {}
    settings = CropFeatureSettings(
      crops=self.feature_crops, maps=self.feature_maps, crop_factor=self.feature_crop_factor
    )
    return {'crop_features': settings.as_manifest()}


def _prepare_synthetic_hands(create_builder: CreateBuilder, request: PrepareRequest) -> Prepared:
  examples = {
    'train': request.train_examples,
    'validation': request.validation_examples,
    'test': request.test_examples,
    'test_broad': request.test_broad_examples,
    'test_mismatch': request.test_mismatch_examples,
  }
  if not any(examples.values()):
    raise ValueError('Nothing to build: every split has 0 examples.')
  settings = {
    'examples': {split: count for split, count in examples.items() if count},
    'image_size': request.image_size,
    'seed': request.seed,
    'hands': request.hands,
    **request.feature_settings(),
  }
  data_dir = pathlib.Path(request.data_dir)
  return prepare(create_builder, data_dir, settings, workers=request.workers, report=Progress())


def _prepare_hand_photos(create_builder: CreateBuilder, request: PrepareRequest) -> Prepared:
  source = _source_of('hand_photos', request, 'with annotations.json in it')
  fraction = 0.1 if request.validation_fraction is None else request.validation_fraction
  digest = hand_photos.annotations_digest(source)
  settings = {'validation_fraction': fraction, 'annotations_sha256': digest}
  settings |= request.feature_settings()
  # A mistake that is found here costs no lock and no folder. The builder checks the photos too.
  hand_photos.split_entries(hand_photos.read_annotations(source), fraction)
  data_dir = pathlib.Path(request.data_dir)
  return prepare(create_builder, data_dir, settings, source=source, report=Progress())


def _source_of(dataset: str, request: PrepareRequest, content: str) -> str:
  if not request.source:
    raise ValueError(f'--dataset={dataset} needs --source=FOLDER, {content}.')
  return request.source


def _prepare_freihand(create_builder: CreateBuilder, request: PrepareRequest) -> Prepared:
  source = _source_of('freihand', request, 'the unpacked FreiHAND_pub_v2')
  halves = freihand.check_folder(source)
  _announce(source, halves)
  return _prepare_published(
    create_builder,
    request,
    _published_settings(request, freihand.annotations_digest(source)),
    photos=[list(pathlib.Path(source, half, 'rgb').glob('*.jpg')) for half in halves],
    source=source,
  )


def _prepare_ho3d(version: str, create_builder: CreateBuilder, request: PrepareRequest) -> Prepared:
  source = _source_of(f'ho3d_{version}', request, f'the unpacked HO3D_{version}')
  halves = ho3d_folder.check_folder(source, version)
  mano_dir = resolve_mano_dir(request.mano_dir)
  mano_sha256 = None
  if mano_dir is None:
    print(
      'No --mano_dir: the data set will have joints but no vertices, which HO3D gives as MANO '
      'parameters alone.',
      flush=True,
    )
  else:
    load_mano_model(mano_dir)  # A mistake that is found here costs no lock and no folder.
    file = find_mano_file(mano_dir, 'right') if os.path.isdir(mano_dir) else pathlib.Path(mano_dir)
    mano_sha256 = files_digest(file.parent, [file.name])
  _announce(source, halves)
  digest = ho3d_folder.annotations_digest(source)
  return _prepare_published(
    create_builder,
    request,
    _published_settings(request, digest) | {'mano_sha256': mano_sha256},
    photos=[_ho3d_photos(source, half, version) for half in halves],
    config=version,
    source=source,
    mano_dir=mano_dir,
  )


def _ho3d_photos(source: str, half: str, version: str) -> list[pathlib.Path]:
  folder, suffix = pathlib.Path(source, half), ho3d_folder.PHOTO_SUFFIX[version]
  frames = (frame.split('/') for frame in ho3d_folder.read_frame_list(source, half))
  return [folder / sequence / 'rgb' / (frame + suffix) for sequence, frame in frames]


def _announce(source: str, halves: Sequence[str]) -> None:
  """Prints the halves that were found, and why the next output takes a while."""
  print(f'{source}: {" and ".join(halves)} found. Reading the annotations ...', flush=True)


def _published_settings(request: PrepareRequest, digest: str) -> dict[str, Any]:
  """Collects the settings that decide the contents of a published data set."""
  fraction = request.validation_fraction
  return {
    'validation_fraction': 0.01 if fraction is None else fraction,
    'limit': request.limit,
    'annotations_sha256': digest,
    **request.feature_settings(),
  }


def _prepare_published(
  create_builder: CreateBuilder,
  request: PrepareRequest,
  settings: dict[str, Any],
  photos: Sequence[Sequence[pathlib.Path]],
  **build_settings: Any,
) -> Prepared:
  """Prepares a published data set, given the photos of each of its halves."""
  prepared = prepare(
    create_builder,
    pathlib.Path(request.data_dir),
    settings,
    needed_bytes=sum(size_of_photos(half, request.limit) for half in photos)
    + _size_of_features(request, photos),
    strict=request.strict,
    workers=request.workers,
    report=Progress(),
    **build_settings,
  )
  _refuse_skips(prepared, request.strict)
  return prepared


def _size_of_features(request: PrepareRequest, photos: Sequence[Sequence[pathlib.Path]]) -> int:
  """Estimates the bytes that the features of those photos will take."""
  stated = settings_of_manifest({'settings': request.feature_settings()})
  count = sum(min(len(half), request.limit or len(half)) for half in photos)
  return count * bytes_per_example(stated) if stated else 0


def _refuse_skips(prepared: Prepared, strict: bool) -> None:
  """Checks that a data set built for --strict has no skips, even if it was finished before."""
  skipped = prepared.manifest.get('skipped')
  if strict and skipped:
    counts = ', '.join(f'{part["count"]} of {split}' for split, part in skipped.items())
    raise ValueError(
      f'{prepared.folder} was built without --strict and left out {counts}; see its '
      f'{MANIFEST_NAME}, remove it or choose another --data_dir.'
    )


class Recipe(NamedTuple):
  """The function that prepares a data set, and the flags that it uses."""

  prepare: Callable[[CreateBuilder, PrepareRequest], Prepared]
  own_flags: tuple[str, ...]


_PUBLISHED_FLAGS = ('source', 'validation_fraction', 'limit', 'strict', 'workers')
RECIPES = {
  'synthetic_hands': Recipe(
    _prepare_synthetic_hands,
    (
      *('train_examples', 'validation_examples', 'test_examples'),
      *('test_broad_examples', 'test_mismatch_examples'),
      *('image_size', 'seed', 'hands', 'workers'),
    ),
  ),
  'hand_photos': Recipe(_prepare_hand_photos, ('source', 'validation_fraction')),
  'freihand': Recipe(_prepare_freihand, _PUBLISHED_FLAGS),
  **{
    f'ho3d_{version}': Recipe(
      functools.partial(_prepare_ho3d, version), (*_PUBLISHED_FLAGS, 'mano_dir')
    )
    for version in ('v2', 'v3')
  },
}


def prepare_data_set(
  dataset: str, create_builder: CreateBuilder, request: PrepareRequest
) -> Prepared:
  """Prepares one of `RECIPES`, or keeps it where it is finished already.

  Args:
    dataset: name of the data set.
    create_builder: the data set's tfds builder class.
    request: the values of the flags.

  Returns:
    The finished data set.

  Raises:
    OSError: the source or MANO is missing, or `data_dir` cannot be written to or has no room.
    RuntimeError: another build is running.
    ValueError: a flag, the source or a finished data set cannot be used.
  """
  return RECIPES[dataset].prepare(create_builder, request)


def refuse_flags_of_others(dataset: str, given: Collection[str]) -> None:
  """Checks that all given flags can have an effect on `dataset`.

  Raises:
    ValueError: a flag belongs to another data set. The message names the first one.
  """
  own_flags = RECIPES[dataset].own_flags
  for other, recipe in RECIPES.items():
    for name in recipe.own_flags:
      if name not in own_flags and name in given:
        own = ', '.join(f'--{own}' for own in own_flags)
        raise ValueError(f'--{name} belongs to --dataset={other}; --dataset={dataset} takes {own}.')


def refuse_idle_feature_flags(given: Collection[str], with_features: bool) -> None:
  """Checks that no flag describes features that are not asked for.

  Raises:
    ValueError: a flag does so. The message names it.
  """
  for name in given:
    if name.startswith('feature_') and not with_features:
      raise ValueError(f'--{name} describes stored features: it needs --with_features.')


def describe_prepared(prepared: Prepared, seconds: float) -> Iterator[str]:
  """Yields what to print about a finished data set: its size, and what was left out."""
  counts = ', '.join(f'{count} {split}' for split, count in prepared.manifest['examples'].items())
  took = f'; {seconds:.0f} s' if prepared.is_new else ''
  state = 'Complete' if prepared.is_new else 'Already complete, nothing to do'
  yield f'{state}: {prepared.folder} ({counts} examples{took}). Details in {MANIFEST_NAME}.'
  if features := settings_of_manifest(prepared.manifest):
    yield _describe_features(prepared, features)
    yield from _describe_landmark_errors(prepared)
  for split, skipped in prepared.manifest.get('skipped', {}).items():
    example, reason = next(iter(skipped['examples'].items()))
    yield f'{split}: {skipped["count"]} left out; the first, {example}: {reason}.'


def _describe_features(prepared: Prepared, features: CropFeatureSettings) -> str:
  """Describes the stored features, and the room that they and the data set take on disk."""
  each = bytes_per_example(features)
  together = each * sum(prepared.manifest['examples'].values())
  files = (path for path in prepared.folder.rglob('*') if path.is_file())
  on_disk = sum(path.stat().st_size for path in files)
  maps = f' with maps of {features.maps} channels' if features.maps else ''
  return (
    f'Features of {features.crops} crops each{maps}: {each / 1e3:.1f} kB per example, '
    f'{together / 1e6:.1f} MB in all (before compression); the data set takes '
    f'{on_disk / 1e6:.1f} MB on disk.'
  )


def _describe_landmark_errors(prepared: Prepared) -> Iterator[str]:
  """Yields how many examples of each split `data.max_landmark_error` would keep."""
  by_split = read_errors_by_split(prepared.folder)
  if not by_split:
    yield (
      'It holds no landmark errors (an older version prepared it): to use data.max_landmark_error, '
      'remove it and prepare it again.'
    )
  for split, errors in by_split.items():
    known = errors[~np.isnan(errors)]
    if not len(known):
      yield f'{split}: no landmark error is known.'
      continue
    kept = np.mean(errors <= _TOLD_LANDMARK_ERROR)
    unknown = (
      f'; {len(errors) - len(known)} without a known one' if len(known) < len(errors) else ''
    )
    yield (
      f'{split}: the median of the landmark errors is {np.median(known):.3f}; {100 * kept:.1f} % '
      f'of the examples have at most {_TOLD_LANDMARK_ERROR:g}{unknown}.'
    )
