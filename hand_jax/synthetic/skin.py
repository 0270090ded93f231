"""Procedural skin of the free hand: colour per vertex, and a fine atlas of creases and pores.

The atlas shows the flat hand from above. A pixel looks up its (x, z) at rest, so there are no
seams. Palm and back have separate crease layers. Colours here are linear reflectances.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from hand_jax.mano.joints import BONES, FINGERS, JOINT_NAMES

TEXEL_M = 0.0006
_MARGIN_M = 0.012


class SkinAtlas(NamedTuple):
  """Layers over the rest hand's (x, z)."""

  layers: np.ndarray  # (rows, columns, 4) float32
  """Palm creases, back creases, pores and nails in [0, 1], except that pores have unit variance."""
  origin: np.ndarray  # (2,)
  """The x and z at rest of the first texel's corner, metres."""


class SkinRegions(NamedTuple):
  """Regions of different skin, as values per vertex in [0, 1]."""

  palm: np.ndarray
  knuckle: np.ndarray
  tip: np.ndarray
  heel: np.ndarray
  """Thenar and hypothenar, which are redder than the palm's hollow."""


class Skin(NamedTuple):
  """One person's skin under one state of blood and dirt. Colours are linear reflectances."""

  back: np.ndarray  # (3,)
  palm: np.ndarray  # (3,)
  blush: np.ndarray  # (3,)
  """Factors on the colour where skin is redder."""
  nail: np.ndarray  # (3,)
  crease: float
  """Depth of creases, 0..1."""
  pores: float
  """Strength of the pores' noise."""
  shine: float
  """Strength of highlights."""
  noise_frequencies: np.ndarray  # (waves, 3)
  noise_phases: np.ndarray  # (waves,)


# Display colours of the back of hands, light to dark.
_TONES = np.array(
  [
    [238, 196, 176], [226, 178, 150], [214, 162, 130], [196, 142, 106], [170, 116, 82],
    [136, 90, 62], [104, 68, 48], [78, 51, 38],
  ]
) / 255.0  # fmt: skip
_PALM_LIMIT = np.array([222, 170, 146]) / 255.0


def to_linear(display: Float[np.ndarray, '*shape']) -> Float[np.ndarray, '*shape']:
  """Converts display values to linear light (gamma 2.2)."""
  return np.maximum(display, 0) ** 2.2


def sample_skin(rng: np.random.Generator) -> Skin:
  """Draws a random person's skin.

  Its tone goes from very light to very dark. Palms are lighter and redder than backs.
  """
  position = (len(_TONES) - 1) * rng.uniform() ** 1.35
  low = min(int(position), len(_TONES) - 2)
  share = position - low
  display = _TONES[low] * (1 - share) + _TONES[low + 1] * share
  display = display * rng.uniform(0.94, 1.06) + rng.normal(0, [0.008, 0.01, 0.014])
  palm_share = rng.uniform(0.15, 0.4) + 0.35 * position / len(_TONES)
  palm = display * (1 - palm_share) + _PALM_LIMIT * palm_share
  palm = palm * np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.92, 1.0)])
  redness = rng.uniform(0.1, 1.0) * (1 - 0.5 * position / len(_TONES))
  nail = display * 0.45 + np.array([0.52, 0.38, 0.36]) + rng.normal(0, 0.03)
  if rng.uniform() < 0.1:
    nail = rng.uniform(0.03, 0.8, 3)  # nail polish
  waves = 12
  scales = np.exp(rng.uniform(np.log(25), np.log(260), (waves, 1)))
  return Skin(
    back=to_linear(display),
    palm=to_linear(palm),
    blush=np.array([1.05, 0.78, 0.78]) ** (1.2 * redness),
    nail=to_linear(np.clip(nail, 0, 0.95)),
    crease=rng.uniform(0.1, 0.55),
    pores=rng.uniform(0.005, 0.035),
    shine=rng.gamma(1.5, 0.035),
    noise_frequencies=(rng.normal(0, 1, (waves, 3)) * scales).astype(np.float32),
    noise_phases=rng.uniform(0, 2 * np.pi, waves).astype(np.float32),
  )


def skin_redness(regions: SkinRegions) -> Float[np.ndarray, 'vertices']:
  """Computes how far each vertex goes from the base colour to the blushed one.

  The value is about 1 at the fingertips.
  """
  return np.clip(regions.knuckle * 0.8 + regions.tip + regions.heel * 0.6, 0, 1.3)


def redness_noise(
  skin: Skin, rest_vertices: Float[np.ndarray, 'vertices 3']
) -> Float[np.ndarray, 'vertices']:
  """Computes a person's own slow variation of redness, by waves over the rest position.

  It has unit variance.
  """
  waves = rest_vertices @ skin.noise_frequencies.T + skin.noise_phases
  return np.cos(waves).sum(1) * np.sqrt(2 / waves.shape[1])


def build_regions(
  rest_vertices: Float[np.ndarray, 'vertices 3'],
  rest_joints: Float[np.ndarray, '21 3'],
  palm: Float[np.ndarray, 'vertices'],
) -> SkinRegions:
  """Computes region masks from the geometry of the flat hand.

  Args:
    rest_vertices: vertices at rest in MANO's axes (fingers -x, palm -y, thumb +z), metres.
    rest_joints: the 21 joints at rest, metres.
    palm: share of palm at each vertex, from 0 to 1 on the palmar side.
  """

  def bump(joint, width):
    return np.exp(-((rest_vertices - rest_joints[joint]) ** 2).sum(1) / (2 * width**2))

  named = {name: k for k, name in enumerate(JOINT_NAMES)}
  knuckles = [k for name, k in named.items() if name.endswith(('mcp', 'pip', 'dip', '_ip'))]
  tips = [named[f'{finger}_tip'] for finger in FINGERS]
  knuckle = np.max([bump(k, 0.009) for k in knuckles], axis=0) * (1 - palm)
  tip = np.max([bump(k, 0.011) for k in tips], axis=0)
  heel = np.maximum(
    bump(named['thumb_cmc'], 0.022) + bump(named['thumb_mcp'], 0.015),
    np.exp(
      -((rest_vertices - _between(rest_joints, 'pinky_mcp', 0.55)) ** 2).sum(1) / (2 * 0.016**2)
    ),
  )
  pads = np.max([bump(named[f'{f}_mcp'], 0.012) for f in FINGERS[1:]], axis=0)
  heel = np.clip(np.maximum(heel, pads), 0, 1) * palm
  return SkinRegions(palm, np.clip(1.3 * knuckle, 0, 1), tip, heel)


def _between(rest_joints, joint: str, share: float) -> np.ndarray:
  """Returns a point between the wrist and a joint."""
  return rest_joints[0] * (1 - share) + rest_joints[JOINT_NAMES.index(joint)] * share


def build_atlas(
  rest_vertices: Float[np.ndarray, 'vertices 3'],
  rest_joints: Float[np.ndarray, '21 3'],
  nail: Float[np.ndarray, 'vertices'],
) -> SkinAtlas:
  """Draws creases at the joints, nails at the nail vertices, and pores, all from a fixed seed.

  Args:
    rest_vertices: vertices at rest in MANO's axes, metres.
    rest_joints: the 21 joints at rest, metres.
    nail: share of nail at each vertex, from 0 to 1 on the nail.
  """
  low = rest_vertices[:, [0, 2]].min(0) - _MARGIN_M
  high = rest_vertices[:, [0, 2]].max(0) + _MARGIN_M
  columns, rows = (int(n) for n in np.ceil((high - low) / TEXEL_M))
  canvases = np.zeros((2, rows, columns), np.uint8)

  def to_texel(point):
    return (np.asarray(point)[..., [0, 2]] - low) / TEXEL_M

  rng = np.random.default_rng(20230617)
  for parent, child in BONES:
    if parent == 0 or JOINT_NAMES[parent] == 'thumb_cmc':  # skin has no crease over that joint
      continue
    _draw_joint_creases(rng, canvases, to_texel, rest_joints, parent, child)
  _draw_palm_lines(canvases[0], to_texel, rest_joints)
  creases = [cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.9) for canvas in canvases]
  pores = _unit_noise(rng, rows, columns, 1.0) * 0.7 + _unit_noise(rng, rows, columns, 2.2) * 0.7
  nails = _draw_nails((rows, columns), to_texel, rest_vertices, rest_joints, nail)
  layers = np.stack([*creases, pores, nails], -1).astype(np.float32)
  return SkinAtlas(layers, low.astype(np.float32))


def _unit_noise(rng: np.random.Generator, rows: int, columns: int, width: float) -> np.ndarray:
  """Blurs white noise by a Gaussian (in texels), and scales it to unit variance."""
  noise = cv2.GaussianBlur(rng.normal(0, 1, (rows, columns)).astype(np.float32), (0, 0), width)
  return noise / noise.std()


def _draw_joint_creases(rng, canvases, to_texel, joints, parent: int, child: int) -> None:
  """Draws lines across a finger at its joint `parent`.

  There are two on the palm side and several on the back.
  """
  start, end = joints[parent], joints[child]
  along = (end - start)[[0, 2]] / np.linalg.norm((end - start)[[0, 2]])
  across = np.array([-along[1], along[0]])
  is_knuckle = JOINT_NAMES[parent].endswith('mcp') and 'thumb' not in JOINT_NAMES[parent]
  # Fingers leave the palm about 2 cm beyond the knuckle, where the palm side's crease lies.
  palm_shift = 0.021 if is_knuckle else 0.0
  for layer, offsets in enumerate(
    (
      palm_shift + np.array([-0.0008, 0.0012]),
      rng.uniform(-0.006, 0.006, 3 if is_knuckle else 6),
    )
  ):
    for offset in offsets:
      half = 0.0095 if layer == 0 else rng.uniform(0.003, 0.0075)
      steps = np.linspace(-half, half, 9)[:, None]
      wobble = rng.normal(0, 0.0004, (9, 1)) + 12.0 * steps**2 * rng.normal(0, 1)
      plane = start[[0, 2]] + along * (offset + wobble) + across * steps
      points = to_texel(np.stack([plane[:, 0], plane[:, 0] * 0, plane[:, 1]], -1))
      shade = 255 if layer == 0 else (90 if is_knuckle else 200)
      cv2.polylines(
        canvases[layer], [np.round(points).astype(np.int32)], False, shade, 1, cv2.LINE_AA
      )


def _draw_palm_lines(canvas, to_texel, joints) -> None:
  """Draws heart, head and life line as quadratic curves between places named by joints."""

  def at(name, share):
    return _between(joints, name, share)

  curves = [
    (at('pinky_mcp', 0.85) + [0, 0, -0.008], at('middle_mcp', 0.78), at('index_mcp', 1.0)),
    (at('index_mcp', 0.82) + [0, 0, 0.008], at('middle_mcp', 0.62), at('pinky_mcp', 0.5)),
    (at('index_mcp', 0.80) + [0, 0, 0.008], at('middle_mcp', 0.55), at('middle_mcp', 0.08)),
  ]
  share = np.linspace(0, 1, 24)[:, None]
  for start, middle, end in curves:
    control = 2 * middle - (start + end) / 2
    curve = start * (1 - share) ** 2 + 2 * control * share * (1 - share) + end * share**2
    points = np.round(to_texel(curve)).astype(np.int32)
    cv2.polylines(canvas, [points], False, 255, 2, cv2.LINE_AA)


def _draw_nails(shape, to_texel, rest_vertices, rest_joints, nail) -> np.ndarray:
  """Draws an ellipse per finger round the vertices that the hand's nail mask marks."""
  canvas = np.zeros(shape, np.uint8)
  for finger in FINGERS:
    last = 'ip' if finger == 'thumb' else 'dip'
    tip = rest_joints[JOINT_NAMES.index(f'{finger}_tip')]
    joint = rest_joints[JOINT_NAMES.index(f'{finger}_{last}')]
    near = nail * (((rest_vertices - tip) ** 2).sum(1) < 0.02**2)
    if near.sum() < 1e-3:
      continue
    center = to_texel((rest_vertices * near[:, None]).sum(0) / near.sum())
    along = to_texel(tip) - to_texel(joint)
    angle = np.degrees(np.arctan2(along[1], along[0]))
    length = 0.0125 / TEXEL_M
    width = (0.0105 if finger == 'thumb' else 0.0095 if finger != 'pinky' else 0.0078) / TEXEL_M
    box = (tuple(center.tolist()), (length, width), float(angle))
    cv2.ellipse(canvas, box, 255, -1, cv2.LINE_AA)
  return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.8)
