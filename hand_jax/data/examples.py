"""One annotated photo in our joint order, units and frames, before any crop."""

from typing import NamedTuple

import numpy as np


class HandExample(NamedTuple):
  """A photo and its labels on the host; None where a data set does not have a label.

  Pixels are continuous (the first pixel's centre is (0.5, 0.5)); lengths are metres in camera axes
  (x right, y down, z forward). `side` is the hand the photo shows; nothing here is mirrored yet.
  """

  example_id: str
  image: np.ndarray  # (height, width, 3) uint8 RGB
  side: str  # 'right' or 'left'
  box_xywh: np.ndarray  # (4,) hand box in pixels
  joints_image: np.ndarray  # (21, 2)
  joint_confidence: np.ndarray  # (21,), 0: unknown
  intrinsics: np.ndarray | None = None  # (3, 3)
  vertices_camera: np.ndarray | None = None  # (V, 3)
  joints_camera: np.ndarray | None = None  # (21, 3)
  global_orient: np.ndarray | None = None  # (3,) axis-angle
  hand_mask: np.ndarray | None = None  # (height, width) bool
