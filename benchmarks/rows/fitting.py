"""Measures the fit of the hand model to what a photo shows."""

import numpy as np

from benchmarks.contest import Contest
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.detection.detect import detect_hands
from hand_jax.detection.hand_views import view_hand
from hand_jax.detection.masks import estimate_hand_mask
from hand_jax.files.compiled_programs import keep_compiled_programs
from hand_jax.fitting.detected import SeenHand, fit_detected_hands
from hand_jax.fitting.released_weights import load_release
from hand_jax.mano.assets import load_mano_model


def refinement(count: int) -> Contest:
  """Measures the fit of a batch of hands, from the networks' readings and masks to mesh and sigma.

  This is the part of the default program that follows detection and masks. The number of steps does
  not depend on the hands, so all of the batch are the same one.

  Raises:
    ValueError: the fit is not finite.
  """
  keep_compiled_programs()  # as the program does, so that an earlier row may have compiled them
  model, release = load_mano_model(), load_release()
  photo = read_photo(DEMO_PHOTOS / 'nocurl.jpg')
  hand = detect_hands(photo, max_hands=1)[0]
  size = (photo.shape[1], photo.shape[0])
  mask = estimate_hand_mask(view_hand(photo, hand), *size)
  hands = [SeenHand(hand, size)] * count
  call = lambda: fit_detected_hands(model, hands, release, lambda: [mask] * count)  # noqa: E731
  for fitted in call():
    if not np.isfinite(fitted.mesh.vertex_sigma_mm).all():
      raise ValueError('the fit of the demo photo is not finite.')
  return Contest(call, {})
