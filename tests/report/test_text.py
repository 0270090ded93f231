"""Words, links and pictures as HTML."""

import base64
import re

import cv2
import numpy as np
import pytest

from hand_jax.report.text import counted, escaped, image_element, percent, scaled_down


def test_text_that_is_not_unicode_can_be_written():
  assert escaped('a\udce4<b>').encode() == b'a?&lt;b&gt;'


@pytest.mark.parametrize(
  'probability, words',
  [(1.0, 'above 99 %'), (0.994, 'above 99 %'), (0.97, '97 %'), (0.5, '50 %'), (0.001, 'below 1 %')],
)
def test_no_probability_is_certainty(probability, words):
  assert percent(probability) == words


def test_counting():
  words = [counted(number, 'hand') for number in (0, 1, 2)]
  assert words == ['no hands', '1 hand', '2 hands']


@pytest.mark.parametrize(
  'size, expected', [((30, 60), (30, 60)), ((200, 400), (50, 100)), ((2000, 2), (100, 1))]
)
def test_scaling_keeps_the_shape(size, expected):
  assert scaled_down(np.zeros((*size, 3), np.uint8), 100).shape[:2] == expected


def test_a_picture_stands_inside_its_element():
  image = np.full((40, 80, 3), (200, 100, 30), np.uint8)
  element = image_element(image, 'a "red" wall', 1000)
  assert 'alt="a &quot;red&quot; wall" width="80" height="40"' in element
  (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', element)
  read = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
  np.testing.assert_allclose(read[..., ::-1].mean((0, 1)), (200, 100, 30), atol=3)
