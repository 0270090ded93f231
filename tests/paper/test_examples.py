"""HandExample: what is refused, and the way into a prepared data set and back."""

import io

import cv2
import numpy as np
import pytest

from hand_jax.examples import (
  HandExample,
  check_example,
  decode_example,
  encode_example,
  example_features,
)


def make_example(**changes) -> HandExample:
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:40, :60]
  image = np.stack([4 * x, 6 * y, 255 - 4 * x], -1).astype(np.uint8)
  example = HandExample(
    example_id='photo-7',
    image=image,
    side='left',
    box_xywh=np.array([5.0, 6.0, 30.0, 20.0], np.float32),
    joints_image=rng.uniform(0, 40, (21, 2)).astype(np.float32),
    joint_confidence=np.ones(21, np.float32),
    intrinsics=np.array([[70, 0, 30], [0, 70, 20], [0, 0, 1]], np.float32),
    vertices_camera=rng.normal(size=(778, 3)).astype(np.float32),
    joints_camera=rng.normal(size=(21, 3)).astype(np.float32),
    global_orient=np.array([0.1, -0.2, 0.3], np.float32),
    hand_mask=(x - 30) ** 2 + (y - 20) ** 2 < 100,
    vertex_visible=rng.uniform(size=778) > 0.5,
    vertex_colors=rng.uniform(size=(778, 3)).astype(np.float32),
  )
  return example._replace(**changes)


ABSENT = dict.fromkeys(
  (
    'intrinsics',
    'vertices_camera',
    'joints_camera',
    'global_orient',
    'hand_mask',
    'vertex_visible',
    'vertex_colors',
  )
)


def as_read(record: dict) -> dict:
  """A record as a tfds data source gives it: images decoded, texts as bytes."""
  read = {key: value.encode() if isinstance(value, str) else value for key, value in record.items()}
  image = np.frombuffer(record['image'].getvalue(), np.uint8)
  read['image'] = cv2.imdecode(image, cv2.IMREAD_COLOR)[..., ::-1]
  mask = np.frombuffer(record['hand_mask'].getvalue(), np.uint8)
  read['hand_mask'] = cv2.imdecode(mask, cv2.IMREAD_GRAYSCALE)[..., None]
  return read


@pytest.mark.parametrize('changes', [{}, ABSENT], ids=['every label', 'no optional label'])
def test_a_record_gives_the_example_back(changes):
  example = make_example(**changes)
  back = decode_example(as_read(encode_example(example)))
  # JPEG at quality 95 changes a smooth picture by a few levels.
  np.testing.assert_allclose(back.image.astype(int), example.image.astype(int), atol=12)
  for field in HandExample._fields:
    if field == 'image':
      continue
    value, expected = getattr(back, field), getattr(example, field)
    if expected is None or isinstance(expected, str):
      assert value == expected, field
    else:
      np.testing.assert_array_equal(value, expected, err_msg=field)
      assert value.dtype == expected.dtype, field


def test_a_record_made_before_there_were_vertex_colors_has_none():
  record = as_read(encode_example(make_example()))
  del record['vertex_colors']
  back = decode_example(record)
  assert back.vertex_colors is None
  np.testing.assert_array_equal(back.vertex_visible, make_example().vertex_visible)


def test_records_have_the_features_and_types_the_data_set_declares():
  features = example_features()
  record = encode_example(make_example())
  assert set(record) == set(features)
  for name, value in record.items():
    if isinstance(value, np.ndarray):
      declared = features[name]
      assert value.dtype == declared.np_dtype, name
      assert len(value.shape) == len(declared.shape), name
      assert all(d in (None, s) for s, d in zip(value.shape, declared.shape, strict=True)), name
  assert isinstance(record['image'], io.BytesIO)
  assert record['image'].getvalue()[:2] == b'\xff\xd8'  # JPEG
  assert record['hand_mask'].getvalue()[1:4] == b'PNG'


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize(
  'field',
  [
    'box_xywh',
    'joints_image',
    'joint_confidence',
    'intrinsics',
    'vertices_camera',
    'joints_camera',
    'global_orient',
    'vertex_colors',
  ],
)
def test_a_label_that_is_not_finite_is_refused_by_example_and_field(field, value):
  bad = getattr(make_example(), field).copy()
  bad.flat[-1] = value
  with pytest.raises(ValueError, match=f"'photo-7': {field} is not finite") as caught:
    check_example(make_example(**{field: bad}))
  assert '\n' not in str(caught.value)
  with pytest.raises(ValueError, match='photo-7'):
    encode_example(make_example(**{field: bad}))


def test_a_joint_of_no_confidence_may_hold_anything():
  example = make_example()
  example.joint_confidence[3] = 0
  example.joints_image[3] = np.nan
  assert check_example(example) is example


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'side': 'Left'}, "side should be 'right' or 'left', got 'Left'"),
    ({'image': np.zeros((4, 4), np.uint8)}, r'image should be .* uint8, got \(4, 4\)'),
    ({'image': np.zeros((4, 4, 3), np.float32)}, 'image should be .* float32'),
    (
      {'vertex_colors': np.full((778, 3), 128.0, np.float32)},
      r'vertex_colors should lie in \[0, 1\], got 128 to 128',
    ),
    ({'vertex_colors': np.full((778, 3), -0.25)}, r'vertex_colors should lie in .* -0\.25'),
    ({'box_xywh': np.array([1.0, 1.0, 0.0, 5.0])}, 'box_xywh should have a positive width'),
  ],
)
def test_other_unusable_examples_are_refused(changes, message):
  with pytest.raises(ValueError, match=f"'photo-7': {message}"):
    check_example(make_example(**changes))
