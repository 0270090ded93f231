"""Packs meshes into small blocks of text in the page, which the viewer's `mesh_data.js` reads.

A hand's block holds these little-endian arrays one after the other: vertices as int16 steps, sigma
as uint16 steps, visibility as bytes, and colours as bytes where there are any. The steps are chosen
so that the largest number of an array fits. They come to about 0.01 mm for the vertices of a hand
and a thousandth of a millimetre for sigma. Triangles have a block of their own, which all hands of
a page with the same triangles share. Both kinds of blocks are compressed by zlib.
"""

import base64
import hashlib
import json
import zlib
from typing import Any, NamedTuple

import numpy as np

from hand_jax.reconstruction.meshes import color_of_fraction, sigma_range_mm
from hand_jax.rendering.overlay import to_bytes
from hand_jax.report.content import ReportHand

_VIRIDIS_COLORS = 256


class FaceList(NamedTuple):
  """A page's block of triangles, with the id and the content of its element."""

  id: str
  content: str


def face_list(hand: ReportHand) -> FaceList:
  """Builds the block of a hand's triangles. Equal triangles get an equal id.

  Raises:
    ValueError: a triangle names a vertex that the hand does not have.
  """
  faces, vertices = np.asarray(hand.faces), len(hand.vertices)
  if faces.size and not (faces.min() >= 0 and faces.max() < vertices):
    raise ValueError(
      f'{hand.name}: faces name vertices {faces.min()} to {faces.max()}, '
      f'expected 0 to {vertices - 1}.'
    )
  bits = 16 if vertices <= 2**16 else 32
  data = faces.astype(f'<u{bits // 8}').tobytes()
  name = hashlib.sha256(data).hexdigest()[:16]
  return FaceList(f'faces-{bits}-{name}', json_block({'bits': bits, 'data': _packed(data)}))


def mesh_block(hand: ReportHand, faces_id: str) -> str:
  """Builds the content of a hand's block, which refers to its triangles by the id of their block.

  Raises:
    ValueError: a number is not finite, or an array has a length that does not fit.
  """
  _check_numbers(hand)
  metres_per_step = max(float(np.abs(hand.vertices).max()) / (2**15 - 1), 1e-12)
  mm_per_step = max(float(np.max(hand.vertex_sigma_mm)) / (2**16 - 1), 1e-12)
  parts = [
    np.round(np.asarray(hand.vertices, np.float64) / metres_per_step).astype('<i2'),
    np.round(np.asarray(hand.vertex_sigma_mm, np.float64) / mm_per_step).astype('<u2'),
    np.asarray(hand.vertex_visible).astype(np.uint8),
  ]
  if hand.vertex_colors is not None:
    parts.append(to_bytes(np.asarray(hand.vertex_colors)))
  wrist = np.asarray(hand.wrist_camera, np.float64)
  return json_block(
    {
      'vertices': len(hand.vertices),
      'faces': faces_id,
      'colors': hand.vertex_colors is not None,
      'metres_per_step': metres_per_step,
      'mm_per_step': mm_per_step,
      'range_mm': sigma_range_mm(np.asarray(hand.vertex_sigma_mm)),
      # The camera's place relative to the wrist, in the viewer's axes, where y points up and z
      # points towards the viewer.
      'camera': [-wrist[0], wrist[1], wrist[2]],
      'data': _packed(b''.join(part.tobytes() for part in parts)),
    }
  )


def settings_block() -> str:
  """Builds the block that all views of a page share.

  It holds the colours of uncertainty from low to high, as sRGB bytes.
  """
  colors = to_bytes(color_of_fraction(np.linspace(0, 1, _VIRIDIS_COLORS)))
  return json_block({'viridis': base64.b64encode(colors.tobytes()).decode()})


def json_block(value: Any) -> str:
  """Writes a value as JSON that can stand inside a `<script>` element.

  The JSON holds no `<`, so nothing in it can end the element early.
  """
  return json.dumps(value, allow_nan=False).replace('<', '\\u003c')


def _packed(data: bytes) -> str:
  return base64.b64encode(zlib.compress(data, 9)).decode()


def _check_numbers(hand: ReportHand) -> None:
  vertices = len(hand.vertices)
  lengths = {'vertex_sigma_mm': vertices, 'vertex_visible': vertices, 'joint_sigma_mm': 21}
  lengths |= {'joints': 21, 'vertex_colors': vertices, 'wrist_camera': 3}
  for field in ('vertices', *lengths):
    value = getattr(hand, field)
    if value is None:
      continue
    if len(value) != lengths.get(field, vertices):
      raise ValueError(f'{hand.name}: {field} has {len(value)} rows, expected {lengths[field]}.')
    if not np.isfinite(np.asarray(value)).all():
      raise ValueError(f'{hand.name}: {field} holds a number that is not finite.')
