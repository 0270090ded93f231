"""Estimates hands in crops by a trained network, compiled."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Bool, UInt8

from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import HandNetwork
from hand_jax.types import HandEstimate, ManoModel


# Of equal networks, one is traced and compiled.
@functools.partial(jax.jit, static_argnums=0)
def estimate_images(
  network: HandNetwork,
  variables: dict[str, Any],
  images: UInt8[Array, 'batch side side 3'],
  model: ManoModel,
  hand_mask: Bool[Array, 'batch side side'] | None = None,
) -> HandEstimate:
  """Computes a trained network's estimates for crops.

  Args:
    network: the network.
    variables: its parameters and batch statistics.
    images: the crops.
    model: the hand model.
    hand_mask: where the crops show the hand, if known. A texture branch alone reads it.
  """
  images = normalize_image(images, network.config.backbone.name)
  return apply_network(network, variables, images, model, train=False, hand_mask=hand_mask)
