"""Synthetic photos of the free hand with exact ground truth, rendered on the fly.

An example depends on (seed, split, index, image_size, hands) alone. It depends neither on the batch
it is asked for with nor on the order. All of it is drawn from one generator, which the first three
seed.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float

from hand_jax.examples import HandExample
from hand_jax.mano.assets import load_hand_appearance, load_mano_model
from hand_jax.mano.model import regress_joints
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.synthetic import geometry, shading
from hand_jax.synthetic.compose import Photo, compose_photo, display_colors, sample_objects
from hand_jax.synthetic.light import sample_light
from hand_jax.synthetic.mismatch import free_hand_surface, sample_displacement
from hand_jax.synthetic.scene import (
  HANDS,
  SPLITS,
  example_generator,
  frame_hand,
  hands_of_split,
  project,
  sample_scene,
)
from hand_jax.synthetic.skin import build_atlas, build_regions, sample_skin, skin_redness
from hand_jax.types import ManoModel

NEAREST_M = 0.06


class _RenderAssets(NamedTuple):
  model: ManoModel
  forearm: geometry.ForearmShape
  look: shading.SurfaceLook


class SyntheticHand(NamedTuple):
  """A synthetic example, and numbers that the example itself does not hold."""

  example: HandExample
  """The photo and its labels."""
  hand_pose: np.ndarray  # (45,)
  """Axis-angle relative to zero pose, radians."""
  betas: np.ndarray  # (10,)
  """Shape coefficients."""
  displacement: np.ndarray | None  # (V, 3)
  """Displacement of the template's vertices in metres, or None in splits without one."""
  forearm_camera: np.ndarray  # (W, 3)
  """Vertices of the forearm, metres, camera axes."""
  vertex_colors: np.ndarray  # (V, 3)
  """Display RGB in [0, 1] of the hand vertices."""


@functools.cache
def _load_assets() -> _RenderAssets:
  model = load_mano_model(side='right')
  appearance = jax.tree.map(np.asarray, load_hand_appearance('right'))
  template = np.asarray(model.v_template, np.float64)
  joints = np.asarray(regress_joints(model, model.v_template), np.float64)
  rest = np.concatenate([template, appearance.forearm_vertices])
  count = len(template)
  rim = np.unique(appearance.forearm_faces[appearance.forearm_faces < count])
  faces = np.concatenate([np.asarray(model.faces), appearance.forearm_faces]).astype(np.int32)
  middle = rest[rim].mean(0)
  # The forearm's inner side continues the palm.
  arm_palm = np.clip(0.5 - (appearance.forearm_vertices[:, 1] - middle[1]) / 0.02, 0, 1)
  palm = np.concatenate([appearance.palm, arm_palm])
  regions = build_regions(template, joints, appearance.palm)
  redness = np.concatenate([skin_redness(regions), np.zeros(len(arm_palm))])
  bones = np.asarray(model.lbs_weights).argmax(1)
  parts = np.append(bones, np.full(len(arm_palm), bones.max() + 1))[faces[:, 0]]
  look = shading.SurfaceLook(
    rest=rest.astype(np.float32),
    palm=palm,
    redness=redness,
    faces=faces,
    parts=parts.astype(np.int8),
    hand_faces=len(model.faces),
    atlas=build_atlas(template, joints, appearance.nail),
  )
  forearm = geometry.ForearmShape(
    *(jax.numpy.asarray(a) for a in (appearance.forearm_vertices, rim.astype(np.int32), faces))
  )
  return _RenderAssets(model, forearm, look)


def render_examples(
  seed: int,
  split: str,
  indices: Iterable[int | np.integer],
  image_size: int = 160,
  with_vertex_labels: bool = False,
  hands: str = 'classic',
) -> list[HandExample]:
  """Renders photos of right hands with all labels. See docs/synthetic_hands.md.

  Example ids are `synthetic-<seed>-<split>-<index>`. They are
  `synthetic-<hands>-<seed>-<split>-<index>` where the kind of hands is not the split's usual one.

  Args:
    seed: seed of the data set.
    split: one of `SPLITS`.
    indices: numbers of the examples within the split.
    image_size: side of a photo, pixels.
    with_vertex_labels: also fills `vertex_visible`, which costs a rasterization, and
      `vertex_colors`, the display colour that each vertex would have in this photo if nothing hid
      it.
    hands: the kind of hands, one of `HANDS`. A split with its own kind ignores it.

  Returns:
    The examples, in the order of the indices.

  Raises:
    ValueError: the split or kind of hands is unknown, a seed or index is negative, or the image is
      smaller than 32 pixels.
  """
  rendered = [render_hand(seed, split, int(index), image_size, hands) for index in indices]
  if not with_vertex_labels:
    return [hand.example for hand in rendered]
  return [
    hand.example._replace(vertex_visible=vertex_visibility(hand), vertex_colors=hand.vertex_colors)
    for hand in rendered
  ]


def render_hand(
  seed: int, split: str, index: int, image_size: int = 160, hands: str = 'classic'
) -> SyntheticHand:
  """Renders one example of `render_examples`, and returns its parameters too.

  Args:
    seed: seed of the data set.
    split: one of `SPLITS`.
    index: number of the example within the split.
    image_size: side of the photo, pixels.
    hands: the kind of hands, as in `render_examples`.

  Raises:
    ValueError: as in `render_examples`.
  """
  _check_request(seed, split, index, image_size, hands)
  hands = hands_of_split(split, hands)
  kind = HANDS[hands]
  assets = _load_assets()
  rng = example_generator(seed, split, index)
  model, displacement = assets.model, None
  if kind.is_displaced:
    displacement = sample_displacement(rng, free_hand_surface()).astype(np.float32)
    model = model._replace(v_template=model.v_template + displacement)
  scene, skin, light = sample_scene(rng, kind.poses), sample_skin(rng), sample_light(rng)
  global_orient = cv2.Rodrigues(scene.rotation)[0].ravel().astype(np.float32)
  posed = geometry.pose_hand(
    model,
    assets.forearm,
    np.int32(scene.pose_seed),
    scene.betas,
    global_orient,
    scene.arm,
    hands=kind.poses,
  )
  posed = jax.tree.map(lambda array: np.asarray(array, np.float64), posed)
  view = frame_hand(scene, posed.vertices, image_size)
  surface = posed.surface + view.translation
  joints = posed.joints + view.translation
  photo, colors = _take_photo(
    rng, assets.look, scene, skin, light, view, posed, surface, joints, image_size
  )
  example = HandExample(
    example_id=_example_id(seed, split, index, hands),
    image=photo.image,
    side='right',
    box_xywh=view.box_xywh.astype(np.float32),
    joints_image=project(view, joints).astype(np.float32),
    joint_confidence=np.ones(len(joints), np.float32),
    intrinsics=view.intrinsics.astype(np.float32),
    vertices_camera=surface[: len(posed.vertices)].astype(np.float32),
    joints_camera=joints.astype(np.float32),
    global_orient=global_orient,
    hand_mask=photo.hand_mask,
  )
  arm = surface[len(posed.vertices) :].astype(np.float32)
  hand_pose = posed.hand_pose.astype(np.float32)
  return SyntheticHand(example, hand_pose, scene.betas, displacement, arm, colors)


def _example_id(seed: int, split: str, index: int, hands: str) -> str:
  usual = hands_of_split(split, 'classic')
  return f'synthetic-{"" if hands == usual else f"{hands}-"}{seed}-{split}-{index}'


def _take_photo(
  rng, look, scene, skin, light, view, posed, surface, joints, size
) -> tuple[Photo, Float[np.ndarray, 'vertices 3']]:
  """Takes the photo of a posed hand, and computes the display colours of its vertices."""
  surface_image = np.concatenate([project(view, surface), surface[:, 2:]], 1).astype(np.float32)
  # Faces that come close to the camera, or lie behind it, are not drawn.
  surface_image[surface[:, 2] < NEAREST_M] = np.nan
  seen = geometry.seen_faces(surface_image, look.faces, size)
  if light.lamp_color.any():
    lamp = shading.lamp_view(posed.surface, len(posed.vertices), light)
    lit = np.asarray(geometry.lamp_visibility(lamp, look.faces))
  else:
    lit = np.ones(len(surface), np.float32)
  radiosity, highlight = shading.vertex_light(posed.normals, posed.openness, lit, light, skin)
  channels = shading.surface_channels(radiosity, highlight, look, skin, surface[:, 2])
  seen = np.asarray(seen)
  pixels = shading.shaded_samples(seen, surface_image, look.faces, look.parts, channels)
  cloth = shading.sample_cloth(rng, float(scene.arm.sleeve_start))
  on_forearm = pixels.face >= look.hand_faces
  radiance = shading.shade_points(pixels.channels, on_forearm, look, skin, cloth)
  objects = sample_objects(rng, scene, view, joints)
  photo = compose_photo(rng, seen, pixels, radiance, look, view, light, objects, size)
  count = len(posed.vertices)
  # Pores are noise of mean zero and finer than the mesh, so they have no part in vertex colours.
  poreless = skin._replace(pores=0.0)
  radiance = shading.shade_points(channels[:count], np.zeros(count, bool), look, poreless, cloth)
  return photo, display_colors(radiance, photo)


# Compiled as a whole, because it takes a hundred times longer as single operations.
_visible_vertices = jax.jit(visible_vertices, static_argnums=(2, 3))


def vertex_visibility(hand: SyntheticHand) -> Bool[np.ndarray, 'vertices']:
  """Returns which vertices the photo shows: they are in the image and nothing hides them.

  The answer is exact for hand and forearm. For objects it uses the hand mask at the vertex's pixel
  and the pixels around it.
  """
  example = hand.example
  vertices, intrinsics, shown = example.vertices_camera, example.intrinsics, example.hand_mask
  if vertices is None or intrinsics is None or shown is None:
    raise ValueError(f'{example.example_id} is no rendered hand: it lacks labels that they have.')
  surface = np.concatenate([vertices, hand.forearm_camera]).astype(np.float64)
  focal, center = intrinsics[0, 0], intrinsics[:2, 2]
  pixels = surface[:, :2] / surface[:, 2:] * focal + center
  image = np.concatenate([pixels, surface[:, 2:]], 1).astype(np.float32)
  image[surface[:, 2] < NEAREST_M] = np.nan
  faces = _load_assets().forearm.faces
  size = example.image.shape[0]
  free = np.asarray(_visible_vertices(image[None], faces, size, size)[0])
  count = len(vertices)
  # Silhouette vertices lie on the mask's edge, so a neighbouring pixel is enough.
  mask = cv2.dilate(shown.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
  column, row = np.clip(np.floor(pixels[:count]).astype(int), 0, size - 1).T
  return free[:count] & mask[row, column]


def _check_request(seed: int, split: str, index: int, image_size: int, hands: str) -> None:
  if split not in SPLITS:
    raise ValueError(f'split is {split!r}, expected one of {", ".join(SPLITS)}')
  if hands not in HANDS:
    raise ValueError(f'hands is {hands!r}, expected one of {", ".join(HANDS)}')
  if seed < 0 or index < 0:
    raise ValueError(f'seed {seed} and index {index} must not be negative')
  if image_size < 32:
    raise ValueError(f'image_size is {image_size}, expected at least 32 pixels')
