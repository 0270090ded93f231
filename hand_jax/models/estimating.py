"""Estimates hands in crops by a trained network, in one compiled program."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Bool, UInt8

from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import HandNetwork
from hand_jax.types import HandEstimate, ManoModel


# Equal networks share one traced and compiled program.
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
    images: the crops, RGB from 0 to 255.
    model: a right hand's model.
    hand_mask: True for pixels that show the hand, if known. Only a texture branch reads it.
  """
  images = normalize_image(images, network.config.backbone.name)
  return apply_network(network, variables, images, model, train=False, hand_mask=hand_mask)
