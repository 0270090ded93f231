"""Builds the HTML of one hand: its 3D view, pictures, facts, joints and files."""

import pathlib

import numpy as np

from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.reconstruction.meshes import legend_ticks, sigma_range_mm
from hand_jax.report.content import ReportHand, ReportPicture
from hand_jax.report.text import escaped, image_element, link_address, percent

# A picture counts as wide when its width exceeds its height by this factor.
_WIDE = 1.5
_LARGEST_PICTURE = 2200
_KINDS = {
  '.glb': '3D model, for Blender and most viewers',
  '.obj': '3D model as text',
  '.ply': '3D model with sigma at each vertex',
  '.npz': 'all numbers, for Python',
  '.json': 'numbers as text',
  '.png': 'picture',
  '.jpg': 'picture',
}
_MODES = {
  'plain': 'Plain',
  'uncertainty': 'Uncertainty',
  'texture': 'Texture',
  'visibility': 'Visibility',
}


def hand_section(hand: ReportHand, number: int, anchor: str, mesh_id: str) -> str:
  """Builds the part of the page that shows one hand.

  Args:
    hand: the hand to show.
    number: the number of the hand's box in the photo, from 1.
    anchor: the id of the HTML element, to which links lead.
    mesh_id: the id of the block that holds the mesh.

  Returns:
    The part of the page as HTML.
  """
  title = f'{hand.side.capitalize()} hand'
  return (
    f'<article class="hand" id="{anchor}" aria-labelledby="{anchor}-title">\n'
    f'<h3 id="{anchor}-title"><span class="number">{number}</span> {escaped(title)} '
    f'<small class="name">{escaped(hand.name)}</small></h3>\n'
    '<div class="columns">\n'
    f'{_viewer(hand, anchor, mesh_id)}'
    f'<div class="facts">\n{_facts(hand)}{_joints(hand)}{file_links(hand.files, "Files")}</div>\n'
    '</div>\n'
    f'{_pictures(hand)}'
    '</article>\n'
  )


def _viewer(hand: ReportHand, anchor: str, mesh_id: str) -> str:
  modes = {
    mode: label
    for mode, label in _MODES.items()
    if mode != 'texture' or hand.vertex_colors is not None
  }
  switches = ''.join(
    f'<label><input type="radio" name="{anchor}-mode" value="{mode}"'
    f'{" checked" if mode == "plain" else ""}><span>{label}</span></label>'
    for mode, label in modes.items()
  )
  label = (
    f'3D view of the {hand.side} hand {hand.name}. '
    'Arrow keys turn it, plus and minus zoom, 0 or R resets.'
  )
  return (
    f'<div class="viewer" data-mesh="{mesh_id}">\n'
    '<p class="missing">The 3D view needs JavaScript. The pictures show the same hand.</p>\n'
    f'<fieldset class="switches"><legend>Colours of the 3D view</legend>{switches}</fieldset>\n'
    '<div class="stage">'
    f'<canvas tabindex="0" role="application" aria-label="{escaped(label)}"></canvas>'
    '<output class="readout"></output>'
    '<div class="buttons">'
    '<button type="button" class="zoom-in" aria-label="Zoom in" title="Zoom in">+</button>'
    '<button type="button" class="zoom-out" aria-label="Zoom out" title="Zoom out">&minus;</button>'
    '<button type="button" class="reset">Reset</button>'
    '</div></div>\n'
    f'{_legends(hand)}'
    '<p class="hint">Drag to turn. Two fingers zoom, and so does the wheel after a click. '
    'Keys: arrows, + and &minus;, 0 or R.</p>\n'
    '</div>\n'
  )


def _legends(hand: ReportHand) -> str:
  """Explains the colours in a paragraph for each switch. The viewer shows the chosen one."""
  range_mm = sigma_range_mm(np.asarray(hand.vertex_sigma_mm))
  texture = (
    ''
    if hand.vertex_colors is None
    else '<p class="legend" data-for="texture" hidden>The hand\'s colours as the photo shows them, '
    'estimated where it is hidden.</p>\n'
  )
  return (
    '<p class="legend" data-for="plain">The hand as the photo shows it, until you turn it.</p>\n'
    '<div class="legend scale" data-for="uncertainty" hidden>'
    f'<span>Sigma in mm</span>{_color_bar(range_mm)}</div>\n'
    f'{texture}'
    '<p class="legend" data-for="visibility" hidden><span class="swatch seen"></span> '
    'seen in the photo <span class="swatch unseen"></span> hidden, estimated from the rest</p>\n'
  )


def _color_bar(range_mm: tuple[float, float]) -> str:
  """Draws the bar from the low to the high sigma with its ticks, as an SVG that fits any width."""
  low, high = range_mm
  ticks = ''
  for value, text in legend_ticks(range_mm):
    share = 100 * (value - low) / (high - low)
    anchor = 'start' if share < 2 else 'end' if share > 98 else 'middle'
    ticks += (
      f'<line x1="{share:.2f}%" x2="{share:.2f}%" y1="14" y2="18"/>'
      f'<text x="{share:.2f}%" y="31" text-anchor="{anchor}">{text}</text>'
    )
  return (
    f'<svg class="bar" role="img" aria-label="Colours from {low:g} to {high:g} mm">'
    f'<rect width="100%" height="14" rx="3" fill="url(#viridis)"/>{ticks}</svg>'
  )


def _facts(hand: ReportHand) -> str:
  x, y, z = (float(value) for value in hand.wrist_camera)
  left, top, width, height = (round(float(value)) for value in hand.box_xywh)
  sigma = np.asarray(hand.vertex_sigma_mm)
  seen = 100 * float(np.mean(np.asarray(hand.vertex_visible)))
  found = (
    'given, not searched for'
    if hand.score is None
    else f'probability of a hand {percent(hand.score)}'
  )
  side = hand.side
  side += ', as given' if hand.side_score is None else f', probability {percent(hand.side_score)}'
  rows = {
    'Side': side,
    'Detection': found,
    'Sigma': f'{sigma.mean():.1f} mm on average, {sigma.min():.1f} to {sigma.max():.1f} mm',
    'Seen': f'{seen:.0f} % of the mesh points',
    'Distance': f'{z:.2f} m from the camera, sigma {hand.depth_sigma_m:.2f} m',
    'Wrist': f"{_aside(x, 'right', 'left')} of and {_aside(y, 'below', 'above')} the camera's axis",
    'Focal length': f'{hand.focal_length_px:.0f} px, {hand.focal_source}',
    'Box': f'{width} x {height} px, left {left}, top {top}',
    'Hand model': hand.hand_model,
  }
  lines = (f'<dt>{name}</dt><dd>{escaped(value)}</dd>\n' for name, value in rows.items())
  return f'<dl>\n{"".join(lines)}</dl>\n'


def _aside(metres: float, positive: str, negative: str) -> str:
  """Writes a length with the direction that its sign means, such as `2.0 cm right`."""
  return f'{100 * abs(metres):.1f} cm {negative if metres < 0 else positive}'


def _joints(hand: ReportHand) -> str:
  places = 1000 * np.asarray(hand.joints, np.float64)
  sigmas = np.asarray(hand.joint_sigma_mm)
  rows = ''.join(
    f'<tr><th scope="row">{name.replace("_", " ")}</th>'
    + ''.join(f'<td>{_signed(value)}</td>' for value in place)
    + f'<td>{sigma:.1f}</td></tr>\n'
    for name, place, sigma in zip(JOINT_NAMES, places, sigmas, strict=True)
  )
  return (
    '<details><summary>Joints</summary>\n'
    '<p>Millimetres from the wrist: x to the right, y down, z away from the camera. From the palm '
    'outwards, a finger has the joints mcp, pip and dip, the thumb cmc, mcp and ip.</p>\n'
    '<div class="table"><table>\n<thead><tr><th scope="col">Joint</th><th scope="col">x</th>'
    '<th scope="col">y</th><th scope="col">z</th><th scope="col">sigma</th></tr></thead>\n'
    f'<tbody>\n{rows}</tbody></table></div></details>\n'
  )


def _signed(millimetres: float) -> str:
  """Writes a length with one decimal and a true minus sign, and zero without a minus sign."""
  return f'{round(millimetres, 1) + 0.0:.1f}'.replace('-', '\u2212')


def file_links(files: tuple[str, ...], title: str) -> str:
  """Builds links to files beside the page, with a few words about each kind of file.

  Args:
    files: names relative to the report's folder.
    title: the heading above the links, as HTML.

  Returns:
    The heading and the links as HTML, or an empty text where there are no files.
  """
  if not files:
    return ''
  items = ''
  for name in files:
    kind = _KINDS.get(pathlib.PurePath(name).suffix.lower())
    words = f' <small>{kind}</small>' if kind else ''
    address = escaped(link_address(name))
    items += f'<li><a href="{address}" class="name">{escaped(name)}</a>{words}</li>\n'
  return f'<h4>{title}</h4>\n<ul class="files">\n{items}</ul>\n'


def _pictures(hand: ReportHand) -> str:
  if not hand.pictures:
    return ''
  figures = ''.join(
    f'<figure><div{_width_class(picture)}>'
    f'{image_element(picture.image, f"{picture.caption}: {hand.name}", _LARGEST_PICTURE)}</div>'
    f'<figcaption>{escaped(picture.caption)}</figcaption></figure>\n'
    for picture in hand.pictures
  )
  return f'<div class="pictures">\n{figures}</div>\n'


def _width_class(picture: ReportPicture) -> str:
  """Gives a wide picture a line to itself. Others stand side by side where there is room."""
  height, width = np.shape(picture.image)[:2]
  return ' class="wide"' if width > _WIDE * height else ''
