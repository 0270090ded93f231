"""A mask's outline as evidence: it is found along normals, and brings the mesh to the mask."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.fitting.detected import SeenHand, fit_detected_hands
from hand_jax.fitting.evidence import PinholeView, PointErrors, hand_evidence
from hand_jax.fitting.hand_unknowns import (
  CIRCUMSTANCES,
  HandPrior,
  hand_unknown_count,
  joint_vertices_only,
  rough_start,
)
from hand_jax.fitting.outline import (
  OUTLINE_POINTS,
  HandOutline,
  add_vertices,
  beyond_the_wrist,
  find_outline,
  outline_residuals,
  unknown_outline,
)
from hand_jax.fitting.refine import (
  fit_hands,
  fit_to_outlines,
  hand_posteriors,
  hand_residuals,
)
from hand_jax.fitting.released_weights import load_release
from hand_jax.mano.anatomy import LOWER_LIMITS, UPPER_LIMITS, angles_to_pose
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import HandParameters
from tests.found_hands import found_hand

SIZE = (400, 300)  # width and height of the photos


def disc(centre, radius, count):
  """A flat disc of triangles: the middle, a ring inside, and a ring at its edge."""
  angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
  ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
  vertices = np.concatenate([[centre], centre + 0.6 * radius * ring, centre + radius * ring])
  inner, following = np.arange(count), (np.arange(count) + 1) % count
  faces = np.concatenate(
    [
      np.stack([np.full(count, 0), 1 + inner, 1 + following], axis=1),
      np.stack([1 + inner, 1 + count + inner, 1 + count + following], axis=1),
      np.stack([1 + inner, 1 + count + following, 1 + following], axis=1),
    ]
  )
  return vertices, faces


def disc_mask(centre, radius):
  row, column = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
  return (column - centre[0]) ** 2 + (row - centre[1]) ** 2 < radius**2


def known(outline):
  return np.isfinite(outline.sigma)


@pytest.mark.parametrize('shift', [(0, 0), (3, -2)])
def test_the_outline_lies_as_far_away_as_the_mask_is_larger(shift):
  """Half as many pixels in the square in which outlines are compared as in the photo."""
  centre, radius = np.array([190.0, 150.0]), 100.0
  vertices, faces = disc(centre, radius, 64)
  mask = disc_mask(centre + shift, radius + 6)
  outline = find_outline(vertices, faces, mask, np.ones(len(vertices), bool))
  found = known(outline)
  assert set(outline.vertices[found]) == set(range(65, 129))  # the edge alone
  radial = (vertices[outline.vertices[found]] - centre) / radius
  np.testing.assert_allclose(outline.normals[found], radial, atol=0.15)
  # The distance from a point of the smaller circle to the shifted larger one.
  expected = 6 + radial @ np.array(shift)
  pixels = vertices[outline.vertices[found]]
  distance = outline.places[found] - np.sum(pixels * outline.normals[found], axis=1)
  np.testing.assert_allclose(distance, expected, atol=0.8)
  assert abs(np.mean(distance - expected)) < 0.2
  # The square shows 300 pixels of the photo by 224.
  np.testing.assert_allclose(outline.sigma[found], 2 * 300 / 224, rtol=1e-3)


def test_vertices_that_do_not_count_are_left_out():
  vertices, faces = disc(np.array([190.0, 150.0]), 100.0, 64)
  counted = np.arange(len(vertices)) % 2 == 0
  outline = find_outline(vertices, faces, disc_mask((190, 150), 100), counted)
  assert known(outline).sum() == 32 and (outline.vertices[known(outline)] % 2 == 0).all()


def test_where_the_photo_ends_the_hand_does_not():
  """The left third of the disc is outside the photo."""
  vertices, faces = disc(np.array([30.0, 150.0]), 100.0, 64)
  outline = find_outline(vertices, faces, disc_mask((30, 150), 103), np.ones(129, bool))
  pixels = vertices[outline.vertices[known(outline)]]
  assert len(pixels) > 20 and pixels[:, 0].min() > 0
  # Vertices just inside the border, where the mask ends with the photo.
  narrow, faces = disc(np.array([102.0, 150.0]), 100.0, 64)
  outline = find_outline(narrow, faces, np.ones(SIZE[::-1], bool), np.ones(129, bool))
  assert not known(outline).any()


@pytest.mark.parametrize('broken', ['empty mask', 'far mask', 'not finite', 'a point'])
def test_without_an_outline_nearby_all_is_unknown(broken):
  vertices, faces = disc(np.array([190.0, 150.0]), 100.0, 64)
  mask = disc_mask((190, 150), {'empty mask': 0, 'far mask': 30}.get(broken, 100))
  if broken == 'not finite':
    vertices[3] = np.nan
  if broken == 'a point':
    vertices[:] = 7.0
  outline = find_outline(vertices, faces, mask, np.ones(129, bool))
  for found, expected in zip(outline, unknown_outline(), strict=True):
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_less_than_half_of_the_mesh_is_another_thing():
  """Parts of the disc, whose edges would fit. They are cut off at a row."""
  vertices, faces = disc(np.array([190.0, 150.0]), 100.0, 64)
  for row, counts in ((120, False), (180, True)):
    mask = disc_mask((190, 150), 100)
    mask[row:] = False
    assert known(find_outline(vertices, faces, mask, np.ones(129, bool))).any() == counts


def test_of_many_vertices_some_are_taken_evenly_along_the_outline():
  """The numbers of the vertices do not matter."""
  centre = np.array([190.0, 150.0])
  vertices, faces = disc(centre, 100.0, 500)
  shuffled = np.random.default_rng(0).permutation(1001)
  vertices, faces = vertices[shuffled], np.argsort(shuffled)[faces]
  mask = disc_mask((190, 150), 100)
  outline = find_outline(vertices, faces, mask, np.ones(1001, bool))
  assert known(outline).all()
  x, y = (vertices[outline.vertices] - centre).T
  gaps = np.diff(np.sort(np.arctan2(y, x)))
  # The 500 vertices of the rim are 1/500 of the circle apart.
  assert gaps.max() < 5.5 * 2 * np.pi / 500


def test_added_vertices_are_posed_as_in_the_whole_model(model):
  rng = np.random.default_rng(0)
  hand = HandParameters(
    *(jnp.asarray(0.5 * rng.normal(size=n), jnp.float32) for n in (3, 45, 10)), jnp.zeros(3)
  )
  chosen = np.array([700, 3, 3, 250])
  outlined = add_vertices(joint_vertices_only(model), model, jnp.asarray(chosen))
  whole, part = (mano_forward(each, hand) for each in (model, outlined))
  np.testing.assert_allclose(part.vertices[-4:], whole.vertices[chosen], atol=1e-6)
  joints = [regress_joints(m, out.vertices) for m, out in ((model, whole), (outlined, part))]
  np.testing.assert_allclose(joints[0], joints[1], atol=1e-6)


def test_the_wrist_does_not_count_and_the_fingers_do(model):
  counted = beyond_the_wrist(model)
  weights = np.asarray(model.lbs_weights)
  assert counted[weights[:, 1:].sum(axis=1) > 0.9].all()
  joints = np.asarray(regress_joints(model, model.v_template))
  palm = joints[9] - joints[0]
  along = (np.asarray(model.v_template) - joints[0]) @ palm / np.linalg.norm(palm)
  assert (counted == (along >= 0.02))[np.abs(along - 0.02) > 1e-6].all()
  near = np.linalg.norm(np.asarray(model.v_template) - joints[0], axis=1) < 0.015
  assert near.sum() > 0 and not counted[near].any()


def test_residuals_are_deviations_along_the_normals():
  view = PinholeView(jnp.array([200.0, 100.0]), jnp.log(1000.0), jnp.log(1e4))
  points = np.zeros((OUTLINE_POINTS, 3), np.float32)
  points[0], points[1] = [0.01, 0.02, 0], [0.01, 0.02, 0]  # pixel (210, 120)
  outline = unknown_outline()
  outline.normals[:2] = [[1, 0], [0.6, 0.8]]
  outline.places[:2] = [205, 0.6 * 210 + 0.8 * 120]
  outline.sigma[:2] = [2, 3]
  found = outline_residuals(outline, view, jnp.asarray(points), np.array([200.0, 100.0]))
  np.testing.assert_allclose(found[:2, 0], [2.5, 0], atol=1e-4)
  assert found.shape == (OUTLINE_POINTS, 1) and (np.asarray(found[2:]) == 0).all()


# A hand inside its joints' ranges in front of a known camera, and points that are wrong.
INTRINSICS = np.array([[500.0, 0, 200], [0, 500.0, 150], [0, 0, 1]])
PRIOR = HandPrior(
  ((LOWER_LIMITS + UPPER_LIMITS) / 2).reshape(45),
  np.float32(12 * np.eye(45) + 3 * np.tri(45, k=-1)),
  np.float32(1),
)


def project(points):
  return points[:, :2] / points[:, 2:] * 500 + [200, 150]


def drawn_mask(pixels, faces):
  mask = np.zeros(SIZE[::-1], np.uint8)
  for triangle in np.round((pixels - 0.5)[faces] * 16).astype(np.int32):
    cv2.fillConvexPoly(mask, triangle, 1, shift=4)
  return mask > 0


@pytest.fixture(scope='module')
def shown(model):
  """Vertices, joints and mask of the hand, and evidence in which the hand is a tenth larger."""
  angles = LOWER_LIMITS + (UPPER_LIMITS - LOWER_LIMITS) * 0.35
  hand = HandParameters(
    jnp.asarray([0.1, -1.5, 0.4]), angles_to_pose(angles), jnp.zeros(10), jnp.zeros(3)
  )
  vertices = np.asarray(mano_forward(model, hand).vertices, np.float64)
  joints = np.asarray(regress_joints(model, jnp.asarray(vertices, jnp.float32)), np.float64)
  place = np.array([0.0, 0.0, 0.5]) - joints.mean(0)
  vertices, joints = vertices + place, joints + place
  pixels = project(joints)
  wrong = pixels.mean(0) + 1.1 * (pixels - pixels.mean(0))
  evidence = hand_evidence(
    wrong[None], (joints - joints.mean(0))[None], SIZE, PointErrors(6.0, 6.0, 6.0), INTRINSICS
  )
  return vertices, drawn_mask(project(vertices), np.asarray(model.faces)), evidence


def one_outline(model, found, mask):
  pixels = np.asarray(found.vertices_image[0])
  outline = find_outline(pixels, np.asarray(model.faces), mask, beyond_the_wrist(model))
  return jax.tree.map(lambda field: field[None], outline)


@pytest.mark.slow
def test_the_outline_brings_the_mesh_to_the_mask_and_makes_it_surer(model, shown):
  vertices, mask, evidence = shown
  fits = [fit_hands(model, evidence, PRIOR)]
  for _ in range(2):
    outline = one_outline(model, fits[-1], mask)
    fits.append(fit_to_outlines(model, evidence, outline, fits[-1], PRIOR))
  first, found = (hand_posteriors(model, evidence, fit, PRIOR) for fit in (fits[0], fits[-1]))
  np.testing.assert_allclose(found.vertices_image, fits[-1].vertices_image, atol=2e-3)

  def misfit(result):
    return np.linalg.norm(result.vertices_image[0] - project(vertices), axis=1).mean()

  def overlap(result):
    drawn = drawn_mask(result.vertices_image[0], np.asarray(model.faces))
    return (drawn & mask).sum() / (drawn | mask).sum()

  assert misfit(first) > 4 and misfit(found) < 0.5 * misfit(first)
  assert overlap(first) < 0.8 and overlap(found) > 0.9
  assert found.vertex_sigma_mm.mean() < first.vertex_sigma_mm.mean()
  # The pinhole of the result gives its pixels.
  placed = found.vertices[0] + found.wrist_camera[0]
  pixels = placed[:, :2] / placed[:, 2:] * found.focal_length[0] + found.principal_point[0]
  np.testing.assert_allclose(found.vertices_image[0], pixels, atol=0.02)


@pytest.mark.slow
def test_an_unknown_outline_leaves_the_minimum_where_it_is(model, shown):
  _, _, evidence = shown
  fit = fit_hands(model, evidence, PRIOR)
  outline = jax.tree.map(lambda field: field[None], unknown_outline())
  continued = fit_to_outlines(model, evidence, outline, fit, PRIOR)
  first, found = (hand_posteriors(model, evidence, one, PRIOR) for one in (fit, continued))
  assert found.energy[0] <= first.energy[0] * (1 + 1e-5)
  np.testing.assert_allclose(found.vertices, first.vertices, atol=5e-4)


@pytest.mark.slow
def test_residuals_have_the_derivatives_of_finite_differences(model, shown):
  _, mask, evidence = shown
  outline = HandOutline(
    *(field[0] for field in one_outline(model, fit_hands(model, evidence, PRIOR), mask))
  )
  with jax.enable_x64(True):
    model64, evidence64 = jax.tree.map(
      lambda field: jnp.asarray(field, jnp.float64) if field.dtype.kind == 'f' else field,
      (model, jax.tree.map(lambda field: field[0], evidence)),
    )
    start = rough_start(model64, evidence64)
    outlined = add_vertices(model64, model64, jnp.asarray(outline.vertices))
    unknowns = 0.1 * np.random.default_rng(5).normal(size=CIRCUMSTANCES + hand_unknown_count(model))

    @jax.jit
    def along(x):
      return hand_residuals(outlined, evidence64, start, PRIOR, x, outline).blocks[-1][:, 0]

    directions = np.random.default_rng(6).normal(size=(4, len(unknowns)))
    for direction in directions:
      slope = jax.jvp(along, (jnp.asarray(unknowns),), (jnp.asarray(direction),))[1]
      step = 1e-6 * direction
      difference = (along(unknowns + step) - along(unknowns - step)) / 2e-6
      np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-5)
      assert np.abs(slope).max() > 1


@pytest.mark.slow
def test_hands_without_a_mask_keep_their_fit_and_sides_are_mirrored(model):
  image = np.zeros((300, 300, 3), np.uint8)
  right, left = (found_hand(image, model, side) for side in ('right', 'left'))
  release = load_release()
  (plain,) = fit_detected_hands(model, [SeenHand(right, (300, 300))], release)
  pixels = np.asarray(plain.mesh.vertices_image)
  middle = pixels.mean(0)
  # A hand that is a tenth smaller than the points say.
  mask = np.zeros((300, 300), np.uint8)
  for triangle in np.round((middle + 0.9 * (pixels - middle))[np.asarray(model.faces)]).astype(int):
    cv2.fillConvexPoly(mask, triangle, 1)
  mask = mask > 0
  seen = [SeenHand(hand, (300, 300)) for hand in (right, right, left)]
  masks = [None, mask, mask[:, ::-1]]
  unmasked, masked, mirrored = fit_detected_hands(model, seen, release, lambda: masks)
  # Programs for one hand and for three round differently, which the fit enlarges to 0.04 mm. The
  # mask moves vertices by millimetres.
  np.testing.assert_allclose(unmasked.mesh.vertices, plain.mesh.vertices, atol=3e-4)
  assert np.abs(masked.mesh.vertices - plain.mesh.vertices).max() > 3e-3
  size, smaller = (
    np.ptp(np.asarray(fit.mesh.vertices_image), axis=0) for fit in (unmasked, masked)
  )
  assert (smaller < 0.97 * size).all()
  flipped = np.asarray(masked.mesh.vertices_image) * [-1, 1] + [300, 0]
  np.testing.assert_allclose(mirrored.mesh.vertices_image, flipped, atol=0.05)
