"""Measures throughput and memory of prepared data.

  python -m benchmarks.input_pipeline

The benchmark draws its own photos of 640 x 480, which show a shaded hand in front of a noisy
background. It prepares them once as JPEG of quality 95 and once as PNG. In one run it measures:

- on one core, bare decoders, beside decoding, cropping and augmenting, and beside the whole path
  from a record to a row of a batch
- batches with one and with two workers
- memory over epochs
"""

import collections
import dataclasses
import io
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags
from PIL import Image

from benchmarks.interleave import compare
from experiments.configs.names import get_config
from experiments.launching import launch, refuse_arguments
from hand_jax.config import ExperimentConfig
from hand_jax.data.augmentation import change_colors, sample_crop_change
from hand_jax.data.pipeline import (
  Slot,
  make_batch,
  training_batches,
  training_slots,
)
from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import HandExample, encode_example, example_features
from hand_jax.geometry.cameras import crop_affine
from hand_jax.geometry.warping import warp_image
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import HandParameters, ManoModel

_EXAMPLES = flags.DEFINE_integer('examples', 200, 'Photos in each prepared data set.')
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Timed passes of each competitor.')
_WIDTH, _HEIGHT, _FOCAL = 640, 480, 600.0
_IMAGE_SIZE = 224
_BATCH = 32
_VERTICES = 778
_BAR = 0.6
_PICTURES = 'decode, crop, augment'
_ENCODINGS = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, 95], '.png': []}


def drawn_examples(model: ManoModel, count: int) -> Iterator[HandExample]:
  """Yields hands at arm's length in random poses, half of them left, with labels except colours."""
  rng = np.random.default_rng(0)
  parameters = HandParameters(
    global_orient=rng.normal(scale=1.0, size=(count, 3)).astype(np.float32),
    hand_pose=rng.normal(scale=0.3, size=(count, 45)).astype(np.float32),
    betas=rng.normal(scale=0.5, size=(count, model.shapedirs.shape[-1])).astype(np.float32),
    transl=rng.uniform([-0.15, -0.1, 0.5], [0.05, 0.1, 0.9], (count, 3)).astype(np.float32),
  )

  def pose(parameters):
    vertices = mano_forward(model, parameters).vertices
    return vertices, regress_joints(model, vertices)

  posed = jax.jit(jax.vmap(pose))(jax.tree.map(jnp.asarray, parameters))
  intrinsics = np.array([[_FOCAL, 0, _WIDTH / 2], [0, _FOCAL, _HEIGHT / 2], [0, 0, 1]], np.float32)
  for number, (vertices, joints) in enumerate(zip(*map(np.asarray, posed), strict=True)):
    points = _project(vertices, intrinsics)
    image, mask = _draw(vertices, points, np.asarray(model.faces), rng)
    low, high = points.min(0), points.max(0)
    yield HandExample(
      example_id=f'photo-{number}',
      image=image,
      side='right' if number % 2 else 'left',
      box_xywh=np.array([*low, *(high - low)], np.float32),
      joints_image=_project(joints, intrinsics),
      joint_confidence=np.ones(len(joints), np.float32),
      intrinsics=intrinsics,
      vertices_camera=vertices,
      joints_camera=joints,
      global_orient=parameters.global_orient[number],
      hand_mask=mask,
    )


def _project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
  homogeneous = points @ intrinsics.T
  return homogeneous[:, :2] / homogeneous[:, 2:]


def _draw(
  vertices: np.ndarray, points: np.ndarray, faces: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws faces from far to near over smooth noisy colours.

  It returns the photo (RGB) and the hand mask.
  """
  smooth = rng.integers(0, 255, (15, 20, 3), np.uint8)
  image = cv2.resize(smooth, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
  mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
  corners = vertices[faces]
  normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  light = np.abs(normals[:, 2]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)
  polygons = np.round(16 * (points[faces] - 0.5)).astype(np.int32)
  for face in np.argsort(-corners[:, :, 2].mean(1)):
    shade = float(0.4 + 0.6 * light[face])
    cv2.fillConvexPoly(image, polygons[face], (220 * shade, 170 * shade, 140 * shade), 8, 4)
    cv2.fillConvexPoly(mask, polygons[face], 255, 8, 4)
  noisy = image + rng.normal(scale=3.0, size=image.shape)
  return np.clip(np.round(noisy), 0, 255).astype(np.uint8), mask > 0


def encode(example: HandExample, extension: str) -> bytes:
  """Encodes the photo as a file with that extension."""
  bgr = cv2.cvtColor(example.image, cv2.COLOR_RGB2BGR)
  return cv2.imencode(extension, bgr, _ENCODINGS[extension])[1].tobytes()


class _Photos(tfds.core.GeneratorBasedBuilder):
  """A data set whose photos are stored as the encoded files that they would be on disk."""

  VERSION = tfds.core.Version('1.0.0')
  extension = ''
  examples: Sequence[HandExample] = ()

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=example_features())

  def _split_generators(self, manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for number, example in enumerate(self.examples):
      photo = io.BytesIO(encode(example, self.extension))
      yield number, encode_example(example) | {'image': photo}


class JpegPhotos(_Photos):
  """A data set of JPEG photos."""

  extension = '.jpg'


class PngPhotos(_Photos):
  """A data set of PNG photos."""

  extension = '.png'


def prepare(builder: type[_Photos], examples: Sequence[HandExample], folder: str) -> PreparedSource:
  """Prepares the examples in a folder, and opens them as training does.

  Args:
    builder: the data set's builder.
    examples: the examples to prepare.
    folder: the folder for the prepared data.
  """
  builder.examples = examples
  made = builder(data_dir=folder, file_format='array_record')
  made.download_and_prepare()
  return PreparedSource(made.name, folder, 'train')


def decoders(extension: str) -> dict[str, Callable[[bytes], np.ndarray]]:
  """Returns functions that decode a whole photo to RGB, by the names of library and mode."""

  def opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

  def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))

  found = {'opencv': opencv, 'pillow': pillow}
  if extension == '.jpg':
    rough = {'fastdct': True}
    found['simplejpeg'] = lambda data: simplejpeg.decode_jpeg(data, 'RGB')
    found['simplejpeg, rough DCT'] = lambda data: simplejpeg.decode_jpeg(data, 'RGB', **rough)
    found['simplejpeg, rough DCT, chroma'] = lambda data: simplejpeg.decode_jpeg(
      data, 'RGB', fastupsample=True, **rough
    )
  return found


def paths(
  source: PreparedSource, slots: Sequence[Slot], config: ExperimentConfig
) -> dict[str, Callable[[], object]]:
  """Returns functions that run parts of our pipeline on one batch, by name.

  The first makes augmented crops from photos. The second makes batches from records without hand
  masks, and the third with hand masks, which textured runs need.

  Args:
    source: the prepared data.
    slots: the examples of the batch.
    config: the config of an experiment that trains on these data.
  """
  opened = source.open([slot.index for slot in slots], with_masks=False)
  boxes = [example.box_xywh.astype(np.float64) for example, _ in opened]

  def crop() -> None:
    # Like `make_batch`, this finds the place of every crop before it warps any pixels.
    changes, affines = [], []
    for slot, box in zip(slots, boxes, strict=True):
      rng = np.random.default_rng((0, slot.epoch, slot.index))
      change = sample_crop_change(config.data.augmentation, rng)
      factor = config.data.crop_factor / change.scale
      affines.append(crop_affine(box, _IMAGE_SIZE, factor, change.rotation, change.shift))
      changes.append(change)
    for (_, picture), affine, change in zip(opened, affines, changes, strict=True):
      change_colors(warp_image(picture.photo(), affine, _IMAGE_SIZE), change)

  texture = dataclasses.replace(config.model.texture, enabled=True)
  textured = dataclasses.replace(config, model=dataclasses.replace(config.model, texture=texture))
  return {
    _PICTURES: crop,
    'record to row': lambda: make_batch(source, slots, config, _VERTICES, seed=0),
    'record to row, with mask': lambda: make_batch(source, slots, textured, _VERTICES, seed=0),
  }


def measure_one_core(
  source: PreparedSource, photos: Sequence[bytes], extension: str, config: ExperimentConfig
) -> None:
  """Compares bare decoders with our paths on one core, and prints photos per second.

  They run in turn. The CPU time of this thread is measured.

  Args:
    source: the prepared data.
    photos: the encoded photos, in the order of the source.
    extension: file extension of the photos, such as '.jpg'.
    config: the config of an experiment that trains on these data.
  """
  slots = training_slots(0, len(source), 0, _BATCH)
  chosen = [photos[slot.index] for slot in slots]
  bare = {
    # No result is kept, because a decoder that always has to fill new memory would be slower.
    name: lambda decode=decode: collections.deque(map(decode, chosen), maxlen=0)
    for name, decode in decoders(extension).items()
  }
  ours = paths(source, slots, config)
  seconds = {name: [] for name in (*bare, *ours)}
  for _ in range(_REPEATS.value + 1):
    for name, function in (bare | ours).items():
      start = time.thread_time()
      function()
      seconds[name].append(time.thread_time() - start)
  print(f'\n{extension} of {np.mean([*map(len, chosen)]) / 1e3:.0f} kB, one core, photos/s:')
  medians = {name: _BATCH / np.median(values[1:]) for name, values in seconds.items()}
  best = {name: _BATCH / min(values[1:]) for name, values in seconds.items()}
  for name in seconds:
    print(f'  {name:32s} median {medians[name]:6.0f}  fastest {best[name]:6.0f}')
  rival = max(bare, key=lambda name: medians[name])
  for name in ours:
    ratio = medians[name] / medians[rival]
    print(f'  {name}: {ratio:.2f} of {rival} (fastest: {best[name] / best[rival]:.2f})', end='')
    print(f', bar {_BAR}: {"met" if ratio >= _BAR else "MISSED"}' if name == _PICTURES else '')


def measure_workers(source: PreparedSource, config: ExperimentConfig, batches: int = 8) -> None:
  """Measures loaders with one and with two workers in turn, and prints examples per second.

  Args:
    source: the prepared data.
    config: the experiment that trains on them.
    batches: number of batches in each measurement.
  """

  def run(workers: int) -> Callable[[], None]:
    data = dataclasses.replace(config.data, render_workers=workers)

    def take():
      with training_batches(source, dataclasses.replace(config, data=data), _VERTICES) as loader:
        for _ in range(batches):
          next(loader)

    return take

  print(f'\nworkers, {os.cpu_count()} cores, {batches} batches of {_BATCH}')
  times = compare({f'{n} workers': run(n) for n in (1, 2)}, repeats=3)
  for name, seconds in times.items():
    print(f'{name}: {batches * _BATCH / seconds:.0f} examples/s')


def measure_memory(source: PreparedSource, config: ExperimentConfig, epochs: int = 4) -> None:
  """Prints the resident memory over several epochs.

  The first epoch does not count as growth, because its batches fill the allocator's reserves.

  Args:
    source: the prepared data.
    config: the experiment that trains on them.
    epochs: number of epochs to run.
  """
  per_epoch = -(-len(source) // _BATCH)
  megabytes = []
  with training_batches(source, config, _VERTICES) as loader:
    for number in range(epochs * per_epoch):
      next(loader)
      if (number + 1) % max(1, per_epoch // 2) == 0:
        megabytes.append(_resident_megabytes())
  print(f'\nresident memory every half epoch of {len(source)} examples, MB:')
  print(' '.join(f'{value:.0f}' for value in megabytes))
  settled = megabytes[len(megabytes) // 4 :]
  print(f'growth after the first epoch: {settled[-1] - settled[0]:.1f} MB')


def _resident_megabytes() -> float:
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def main(argv: list[str]) -> None:
  """Draws the photos, prepares them and prints all measurements."""
  refuse_arguments(argv)
  model = load_mano_model()
  cv2.setNumThreads(1)
  config = get_config('toy')
  config = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, image_size=_IMAGE_SIZE),
    training=dataclasses.replace(config.training, batch_size=_BATCH),
  )
  cores = os.sched_getaffinity(0)
  examples = list(drawn_examples(model, _EXAMPLES.value))
  with tempfile.TemporaryDirectory() as folder:
    for builder in (JpegPhotos, PngPhotos):
      source = prepare(builder, examples, folder)
      photos = [encode(examples[_number(source, i)], builder.extension) for i in range(len(source))]
      # Threads that start from now on inherit the one core.
      os.sched_setaffinity(0, {max(cores)})
      measure_one_core(source, photos, builder.extension, config)
      os.sched_setaffinity(0, cores)
      measure_workers(source, config)
      if builder is JpegPhotos:
        measure_memory(source, config)


def _number(source: PreparedSource, index: int) -> int:
  """Returns the number of the drawn example at an index of the source. tfds shuffles examples."""
  ((example, _),) = source.open([index])
  return int(example.example_id.removeprefix('photo-'))


if __name__ == '__main__':
  launch(main)
