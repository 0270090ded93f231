"""Prepared records -> encoded fields, photos and masks -> pixels: fast, exact, errors by example.

JPEG goes through libjpeg-turbo (simplejpeg) with its accurate transform and smooth chroma, in
training and evaluation alike: the pixels are those of OpenCV and Pillow to the last bit. The rough
modes would save 3 to 8 % of the decoding and move pixels by up to 30 levels.
"""

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

_JPEG_START = b'\xff\xd8'
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_SIZE = slice(16, 24)
_PNG_END = b'IEND\xaeB`\x82'
# Labels refer to pixels as they are stored, whatever an EXIF orientation says.
_FORMATS = {'photo': 'JPEG or PNG', 'hand mask': 'PNG'}
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION


class UndecodableError(ValueError):
  """A stored picture that cannot be decoded; `problem` is why, in a few words."""

  def __init__(self, example_id: str, what: str, problem: str):
    self.problem = problem.rstrip('.')
    super().__init__(
      f'Example {example_id!r}: the {what} cannot be decoded ({self.problem}); expected a whole '
      f'{_FORMATS[what]} file. Replace it and prepare the data set again.'
    )


def record_parser(features: Any) -> Callable[[bytes], dict[str, Any]]:
  """What turns a stored tf.train.Example into its fields by name, in a third of tfds' own time.

  `features`: the data set's FeaturesDict (`builder.info.features`) of numbers, truth values, texts
  and images, without nesting. Texts and images stay bytes. A field a record lacks is left out.
  """
  # Imported here: training on rendered examples needs no tfds.
  from tensorflow_datasets.proto import tf_example_pb2

  lists, types, shapes = {}, {}, {}
  for name, feature in features.items():
    stored = feature.get_serialized_info()
    kind = np.dtype(stored.np_dtype).kind
    lists[name] = {'O': 'bytes_list', 'f': 'float_list'}.get(kind, 'int64_list')
    types[name] = stored.np_dtype
    shapes[name] = tuple(-1 if size is None else size for size in stored.shape)

  def parse(data: bytes) -> dict[str, Any]:
    fields = tf_example_pb2.Example.FromString(data).features.feature
    record = {}
    for name, shape in shapes.items():
      if name not in fields:
        continue
      values = getattr(fields[name], lists[name]).value
      if lists[name] == 'bytes_list':
        record[name] = values[0]
      else:
        array = np.array(values, types[name]).reshape(shape)
        record[name] = array if shape else array.item()
    return record

  return parse


def photo_size(data: bytes, example_id: str) -> tuple[int, int]:
  """Height and width of a JPEG or PNG file, from its header alone.

  Raises:
    UndecodableError: a damaged header or another format, naming the example.
  """
  if data.startswith(_JPEG_START):
    try:
      return simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError as error:
      raise UndecodableError(example_id, 'photo', str(error)) from None
  if not data.startswith(_PNG_START) or len(data) < _PNG_SIZE.stop:
    raise UndecodableError(example_id, 'photo', 'not a JPEG or PNG')
  width, height = struct.unpack('>II', data[_PNG_SIZE])
  return height, width


def decode_photo(data: bytes, example_id: str) -> UInt8[np.ndarray, 'height width 3']:
  """The stored pixels of a JPEG or PNG file as 8-bit RGB.

  Grey photos get three equal channels; of 16 bits the upper 8 are kept; transparency is dropped.

  Raises:
    UndecodableError: damaged bytes or another format, naming the example.
  """
  if data.startswith(_JPEG_START):
    try:
      return simplejpeg.decode_jpeg(data, 'RGB')
    except ValueError as error:
      raise UndecodableError(example_id, 'photo', str(error)) from None
  image = _decode_png(data, cv2.IMREAD_COLOR, example_id, 'photo')
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_mask(data: bytes, example_id: str) -> UInt8[np.ndarray, 'height width']:
  """The levels of a grey PNG, exactly as they were encoded.

  Raises:
    UndecodableError: damaged bytes or another format, naming the example.
  """
  return _decode_png(data, cv2.IMREAD_GRAYSCALE, example_id, 'hand mask')


def _decode_png(data: bytes, mode: int, example_id: str, what: str) -> np.ndarray:
  if not data.startswith(_PNG_START):
    raise UndecodableError(example_id, what, f'not a {_FORMATS[what]}')
  # OpenCV would fill up what a cut file lacks.
  whole = data.endswith(_PNG_END)
  image = cv2.imdecode(np.frombuffer(data, np.uint8), mode | _AS_STORED) if whole else None
  if image is None:
    raise UndecodableError(example_id, what, 'damaged or cut short')
  return image
