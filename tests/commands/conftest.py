"""What the tests of commands share."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
  """An image, 120 pixels wide and 90 high."""
  return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
