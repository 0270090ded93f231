"""Measures the fit of the hand model to the evidence of a photo."""

import jax
import numpy as np

from benchmarks.contest import Contest
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.detection.detect import detect_hands
from hand_jax.fitting.evidence import HandEvidence, PointErrors, hand_evidence
from hand_jax.fitting.heads_evidence import estimate_joints
from hand_jax.fitting.refine import refine_hands
from hand_jax.fitting.released_weights import Release, load_release
from hand_jax.mano.assets import load_mano_model


def refinement(count: int) -> Contest:
  """Measures the fit of a batch of hands, from evidence in NumPy arrays to meshes and sigma.

  The number of steps does not depend on the evidence, so all hands of the batch are the same one.

  Raises:
    ValueError: the fit is not finite.
  """
  model, release = load_mano_model(), load_release()
  evidence = _photo_evidence(release)
  batch = HandEvidence(*(np.stack([np.asarray(field)] * count) for field in evidence))
  call = lambda: refine_hands(model, batch, release.prior)  # noqa: E731
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(call())):
    raise ValueError('the fit of the demo photo is not finite.')
  return Contest(call, {})


def _photo_evidence(release: Release) -> HandEvidence:
  """Reads the evidence of the right hand of a mirrored demo photo, as the default program does."""
  photo = np.ascontiguousarray(read_photo(DEMO_PHOTOS / 'nocurl.jpg')[:, ::-1])
  hand = next(hand for hand in detect_hands(photo) if hand.side == 'right')
  heads = estimate_joints(release, [hand])
  errors = PointErrors(*(np.exp(heads.log_scale[0]) * error for error in release.errors))
  size = (photo.shape[1], photo.shape[0])
  return hand_evidence(
    hand.landmarks_image, hand.landmarks_world, size, errors, None, heads.joints[0]
  )
