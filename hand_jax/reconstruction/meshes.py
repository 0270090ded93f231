"""Writes meshes as OBJ, PLY and GLB, and draws sigma as colours with a legend in millimetres."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from hand_jax.rendering.overlay import to_bytes

_LEGEND_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_LINEAR_RGB = '_LINEAR_RGB'
_AXES = {
  'y_up': 'x right, y up, z towards the viewer',
  'camera': 'x right, y down, z away from the camera',
}
# Half a turn about x leads from camera axes to those of most viewers and of Blender's importers.
_HALF_TURN = np.array([1.0, -1.0, -1.0])


def in_axes(
  vertices: Float[np.ndarray, 'vertices 3'], axes: str
) -> Float[np.ndarray, 'vertices 3']:
  """Returns vertices in camera axes ('camera'), or with y up and z towards the viewer ('y_up')."""
  return vertices if axes == 'camera' else vertices * _HALF_TURN.astype(vertices.dtype)


def sigma_range_mm(sigma_mm: Float[np.ndarray, ' vertices']) -> tuple[float, float]:
  """Finds round millimetres below the smallest and above the largest sigma, for the colours."""
  low, high = float(sigma_mm.min()), float(sigma_mm.max())
  step = _tick_step(max(high - low, high / 100))
  start = math.floor(low / step + 1e-6) * step
  return start, max(math.ceil(high / step - 1e-6) * step, start + step)


def _tick_step(spread: float) -> float:
  """Chooses a round number of millimetres that divides the spread into at most eight pieces."""
  wanted = spread / 8
  if wanted <= _LEGEND_STEPS[-1]:
    return next(step for step in _LEGEND_STEPS if step >= wanted)
  return 10.0 ** math.ceil(math.log10(wanted))


def color_of_fraction(fraction: Float[np.ndarray, '*shape']) -> Float[np.ndarray, '*shape 3']:
  """Maps [0, 1] to sRGB by the colour map viridis, which is perceptually uniform."""
  table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
  table = table[:, 0, ::-1].astype(np.float64) / 255
  position = 255 * np.clip(fraction, 0, 1)
  lower = np.minimum(np.floor(position).astype(int), 254)
  weight = (position - lower)[..., None]
  return table[lower] * (1 - weight) + table[lower + 1] * weight


def sigma_colors(
  sigma_mm: Float[np.ndarray, ' vertices'], range_mm: tuple[float, float]
) -> Float[np.ndarray, 'vertices 3']:
  """Gives each vertex a colour, sRGB in [0, 1], from dark blue (low) to yellow (high)."""
  low, high = range_mm
  return color_of_fraction((sigma_mm.astype(np.float64) - low) / (high - low))


def srgb_to_linear(color: Float[np.ndarray, '*shape']) -> Float[np.ndarray, '*shape']:
  """Decodes sRGB (IEC 61966-2-1), because the vertex colours of glTF are linear."""
  return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def legend_image(range_mm: tuple[float, float], height: int) -> UInt8[np.ndarray, 'height width 3']:
  """Draws a vertical bar of the colours with their sigma in mm."""
  low, high = range_mm
  unit = height / 512
  image = np.full((height, round(150 * unit), 3), 245, np.uint8)
  top, bottom = round(70 * unit), height - round(30 * unit)
  left, right = round(18 * unit), round(54 * unit)
  fraction = np.linspace(1, 0, bottom - top)[:, None]
  image[top:bottom, left:right] = np.round(255 * color_of_fraction(fraction)).astype(np.uint8)
  _write(image, 'sigma', (left, round(30 * unit)), unit)
  _write(image, '[mm]', (left, round(54 * unit)), unit)
  for value, text in legend_ticks(range_mm):
    y = round(bottom - 1 - (value - low) / (high - low) * (bottom - 1 - top))
    cv2.line(image, (right, y), (right + round(6 * unit), y), (40, 40, 40), 1)
    _write(image, text, (right + round(12 * unit), y + round(6 * unit)), unit)
  return image


def legend_ticks(range_mm: tuple[float, float]) -> list[tuple[float, str]]:
  """Lists the round values inside the range, each with its text."""
  low, high = range_mm
  step = _tick_step(high - low)
  decimals = 2 if step < 0.1 else 1 if step < 1 else 0
  first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
  return [(number * step, f'{number * step:.{decimals}f}') for number in range(first, last + 1)]


def _write(image: np.ndarray, text: str, place: tuple[int, int], unit: float) -> None:
  cv2.putText(
    image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55 * unit, (40, 40, 40), 1, cv2.LINE_AA
  )


def obj_text(
  vertices: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  colors: Float[np.ndarray, 'vertices 3'] | None = None,
  axes: str = 'camera',
) -> str:
  """Writes a Wavefront OBJ in metres, to a hundredth of a micrometre.

  Args:
    vertices: in camera axes.
    faces: indices of their corners.
    colors: sRGB in [0, 1]. They follow the positions of the vertices, as most programs expect.
    axes: the axes of the file, see `in_axes`.
  """
  lines = vertex_lines(vertices, colors, axes)
  lines += [f'f {a} {b} {c}' for a, b, c in np.asarray(faces) + 1]
  return '\n'.join(lines) + '\n'


def vertex_lines(
  vertices: Float[np.ndarray, 'vertices 3'],
  colors: Float[np.ndarray, 'vertices 3'] | None,
  axes: str,
) -> list[str]:
  """Writes the first lines of an OBJ: a comment and the vertices.

  Args:
    vertices: metres, camera axes.
    colors: sRGB in [0, 1], or None.
    axes: the axes of the file, see `in_axes`.
  """
  lines = [f'# hand_jax: metres; {_AXES[axes]}; wrist at the origin']
  places = [f'v {x:.8f} {y:.8f} {z:.8f}' for x, y, z in in_axes(vertices, axes)]
  if colors is None:
    return lines + places
  shades = [f' {red:.5f} {green:.5f} {blue:.5f}' for red, green, blue in colors]
  return lines + [place + shade for place, shade in zip(places, shades, strict=True)]


def ply_bytes(
  vertices: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  colors: Float[np.ndarray, 'vertices 3'],
  sigma_mm: Float[np.ndarray, ' vertices'],
  axes: str = 'camera',
) -> bytes:
  """Writes a binary PLY in metres, with a colour and the property `sigma_mm` at each vertex.

  Args:
    vertices: in camera axes.
    faces: indices of their corners.
    colors: sRGB in [0, 1].
    sigma_mm: the sigma of each vertex in millimetres.
    axes: the axes of the file, see `in_axes`.
  """
  # Import here, because this import takes much of a second.
  import trimesh

  mesh = trimesh.Trimesh(
    in_axes(vertices, axes), faces, process=False, vertex_colors=_opaque(colors)
  )
  mesh.vertex_attributes['sigma_mm'] = sigma_mm.astype(np.float32)
  data = mesh.export(file_type='ply')
  assert isinstance(data, bytes), 'trimesh writes this format as bytes'
  return data


class MeshPart(NamedTuple):
  """Holds one hand of a GLB file, in metres and camera axes, with sRGB colours in [0, 1]."""

  name: str
  vertices: Float[np.ndarray, 'vertices 3']
  faces: Int[np.ndarray, 'faces 3']
  colors: Float[np.ndarray, 'vertices 3']
  sigma_mm: Float[np.ndarray, ' vertices']


def glb_bytes(parts: Sequence[MeshPart], unlit: bool = False) -> bytes:
  """Writes a binary glTF in metres, with a node for each hand, vertex colours and `_SIGMA_MM`.

  The vertices stay in camera axes. The nodes turn them by half a turn about x, so that viewers,
  whose y points up and whose z points at the viewer, show the hand as the photo does. With `unlit`
  the colours include the light of the photo, and the file asks viewers to add none. Colours are
  stored as linear values, as glTF requires, and as floats, because 8 bits would give dark skin only
  a few levels.
  """
  import trimesh
  from trimesh.exchange.gltf import export_glb

  scene = trimesh.Scene()
  for part in parts:
    mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
    mesh.vertex_attributes['_SIGMA_MM'] = part.sigma_mm.astype(np.float32)
    # trimesh writes vertex colours with 8 bits, but leaves an attribute unchanged. Its name is set
    # below.
    linear = srgb_to_linear(np.clip(part.colors, 0, 1)).astype(np.float32)
    mesh.vertex_attributes[_LINEAR_RGB] = linear
    turn = np.diag([*_HALF_TURN, 1.0])
    scene.add_geometry(mesh, node_name=part.name, geom_name=part.name, transform=turn)

  def name_colors_and_add_material(tree: dict) -> None:
    # glTF's default material is bare metal, which viewers draw nearly black.
    surface = {'metallicFactor': 0.0, 'roughnessFactor': 0.8}
    material = {'pbrMetallicRoughness': surface, 'doubleSided': True}
    if unlit:
      material['extensions'] = {'KHR_materials_unlit': {}}
      tree['extensionsUsed'] = [*tree.get('extensionsUsed', []), 'KHR_materials_unlit']
    tree['materials'] = [material]
    for mesh in tree['meshes']:
      for primitive in mesh['primitives']:
        primitive['material'] = 0
        primitive['attributes']['COLOR_0'] = primitive['attributes'].pop(_LINEAR_RGB)

  return export_glb(scene, include_normals=True, tree_postprocessor=name_colors_and_add_material)


def _opaque(colors: np.ndarray) -> UInt8[np.ndarray, 'vertices 4']:
  return np.concatenate([to_bytes(colors), np.full_like(colors[:, :1], 255, np.uint8)], axis=1)


def png_bytes(image: UInt8[np.ndarray, 'height width 3']) -> bytes:
  """Encodes an RGB picture as PNG.

  Raises:
    ValueError: OpenCV cannot encode it.
  """
  done, data = cv2.imencode('.png', np.ascontiguousarray(image[..., ::-1]))
  if not done:
    raise ValueError(f'OpenCV cannot encode a {image.shape} image as PNG.')
  return data.tobytes()
