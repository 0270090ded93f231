"""The function that is exported: crops of hands in, meshes with sigma and camera out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Bool, UInt8

from hand_jax.config import ExperimentConfig
from hand_jax.geometry.cameras import (
  camera_from_vector,
  denormalize_points,
  hand_to_root,
  scale_per_metre,
)
from hand_jax.mano.model import regress_joints
from hand_jax.models.branches import best_branch
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import create_network
from hand_jax.types import DiagonalGaussian, ManoModel

_MM_PER_M = 1000.0

Outputs = dict[str, Array]
"""Arrays by the names of `OUTPUTS`."""

OUTPUTS = {
  'vertices': 'metres, in the axes of the crop (x right, y down, z forward), wrist at the origin',
  'joints': 'metres, in the same axes, 21 joints in the order of joint_names, wrist at the origin',
  'vertex_sigma_mm': 'standard deviation of each vertex in millimetres: the root of the mean of '
  'the variances along three axes',
  'joint_sigma_mm': 'standard deviation of each joint in millimetres, likewise',
  'joints_image': 'x and y of the joints in pixels of the crop, where the centre of the first '
  'pixel is (0.5, 0.5)',
  'camera': 'weak perspective: pixels of the crop per metre, then x and y of the wrist in pixels. '
  'A point lies at camera[1:] + camera[0] * point[:2]',
}
"""The outputs of the exported program, by name."""


def program_inputs(config: ExperimentConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns name, shape and type of the exported program's inputs, with a symbolic batch."""
  (batch,) = export.symbolic_shape('batch')
  side = config.model.image_size
  return {
    'crops': jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8),
    'is_left': jax.ShapeDtypeStruct((batch,), jnp.bool_),
  }


def without_colors(config: ExperimentConfig) -> ExperimentConfig:
  """Returns the config of the network without its texture branch, which is not exported."""
  texture = dataclasses.replace(config.model.texture, enabled=False)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, texture=texture))


def create_crop_program(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> Callable[[Array, Array], Outputs]:
  """Makes the function of a trained network that is exported.

  Args:
    config: the config of the network.
    variables: its parameters and batch statistics.
    model: the hand model that it was trained with.

  Returns:
    A function of uint8 RGB crops, (batch, side, side, 3), and of whether each shows a left hand,
    (batch,). It returns `OUTPUTS` in the crops' own axes, left hands included.
  """
  network = create_network(without_colors(config))
  side = config.model.image_size

  def program(crops: UInt8[Array, 'batch side side 3'], is_left: Bool[Array, 'batch']) -> Outputs:
    # The network was trained on right hands only, so it gets the mirrored crop.
    seen = jnp.where(is_left[:, None, None, None], crops[:, :, ::-1], crops)
    estimate = estimate_images(network, variables, seen, model)
    gaussians, camera = best_branch(estimate), camera_from_vector(estimate.camera.mean)
    vertices = hand_to_root(camera, gaussians.vertices.mean)
    joints = regress_joints(model, vertices)
    mirror = jnp.where(is_left[:, None], jnp.array([[-1.0, 1.0, 1.0]]), 1.0)[:, None]
    points = denormalize_points(gaussians.joints_normalized.mean, side)
    mirrored = jnp.concatenate([side - points[..., :1], points[..., 1:]], axis=-1)
    joints_image = jnp.where(is_left[:, None, None], mirrored, points)
    pixels_per_metre = scale_per_metre(camera) * side / 2
    return {
      'vertices': (vertices - joints[:, :1]) * mirror,
      'joints': (joints - joints[:, :1]) * mirror,
      'vertex_sigma_mm': _sigma_mm(gaussians.vertices),
      'joint_sigma_mm': _sigma_mm(gaussians.joints),
      'joints_image': joints_image,
      'camera': jnp.concatenate([pixels_per_metre, joints_image[:, 0]], axis=-1),
    }

  return program


def _sigma_mm(gaussian: DiagonalGaussian) -> Array:
  return _MM_PER_M * jnp.sqrt(jnp.mean(jnp.exp(gaussian.log_variance), axis=-1))
