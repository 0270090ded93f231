"""Estimates the colours of all vertices from image features at the visible ones (Table 1)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hand_jax.config import TextureConfig
from hand_jax.models.attention import SelfAttentionBlock
from hand_jax.models.computing import Computing
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.models.prior_net import SMALL_INIT
from hand_jax.models.vertex_regressor import TEMPLATE_UNIT_M
from hand_jax.types import ImageFeatures


def reverse_interpolation(
  features: ImageFeatures,
  vertices_normalized: Float[Array, 'batch vertices 2'],
  visible: Bool[Array, 'batch vertices'],
) -> Float[Array, 'batch vertices channels']:
  """Reads the shallow map at each visible vertex, and appends the global vector.

  Args:
    features: a backbone's output, with its shallow map.
    vertices_normalized: the vertices' projections, in [-1, 1] over the crop.
    visible: the vertices that the image shows.

  Returns:
    778 x 2112 numbers for ResNet-50. They are zero for vertices that are hidden or not finite.
  """
  points, visible = _sampling_points(vertices_normalized, visible)
  local = sample_bilinear(_shallow_map(features), points)
  spread = (*local.shape[:2], features.global_feature.shape[-1])
  everywhere = jnp.broadcast_to(features.global_feature[:, None], spread)
  sampled = jnp.concatenate([local, everywhere], axis=-1)
  return jnp.where(visible[..., None], sampled, 0)


def _sampling_points(points_normalized: Array, visible: Array) -> tuple[Array, Array]:
  """Moves vertices that are hidden or not finite to the image's middle, and marks the others.

  The samples of moved vertices are masked later. A NaN left in place would still reach the
  gradient, because 0 times NaN is NaN.
  """
  visible = visible & jnp.isfinite(points_normalized).all(axis=-1)
  return jnp.where(visible[..., None], points_normalized, 0), visible


def texture_position(
  template: Float[Array, 'vertices 3'],
  normals: Float[Array, 'batch vertices 3'],
  config: TextureConfig,
) -> Float[Array, 'batch vertices position']:
  """Joins the numbers that every vertex has, whether it is visible or not.

  Args:
    template: xyz of the template's vertices, in units of `TEMPLATE_UNIT_M`.
    normals: the estimated mesh's normals, in camera axes.
    config: its `normals` sets whether the normals are appended to xyz.
  """
  position = jnp.broadcast_to(template[None], normals.shape)
  return jnp.concatenate([position, normals], axis=-1) if config.normals else position


def texture_tokens(
  sampled: Float[Array, 'batch vertices channels'],
  position: Float[Array, 'batch vertices position'],
) -> Float[Array, 'batch vertices tokens']:
  """Appends the positions to sampled features, which is Table 1's positional encoding.

  For ResNet-50 and xyz the tokens are 778 x 2115.
  """
  return jnp.concatenate([sampled, position], axis=-1)


# Colours begin this far from black and white, whose log-odds are infinite.
_DARKEST = 0.004


class HiddenRegion(NamedTuple):
  """A part of each hand to hide in training: the vertices that lie farthest along a direction.

  The direction has parts for positions and for normals. In this way both sides of a whole hand and
  sides of its fingers are hidden, as in photos.
  """

  direction: Float[Array, 'batch 6']
  """Three numbers along the template's axes for positions, and three along camera axes for normals.
  """
  share: Float[Array, 'batch']
  """The share of the vertices that is hidden."""


def _shallow_map(features: ImageFeatures) -> Float[Array, 'batch height width channels']:
  if features.shallow_map is None:
    raise ValueError('texture needs the map of a photo, but stored features have none.')
  return features.shallow_map


class TextureEmbedding(nn.Module):
  """A dense layer on `texture_tokens` that makes no copies of the global feature in memory.

  It has one kernel, whose rows have the tokens' order. The parts of the kernel are initialised by
  their own fan-in, as in AMVUR. Otherwise a position would have almost no weight beside 2112
  features.
  """

  width: int

  @nn.compact
  def __call__(
    self,
    position: Float[Array, 'batch vertices position'],
    features: ImageFeatures,
    points_normalized: Float[Array, 'batch vertices 2'],
    visible: Bool[Array, 'batch vertices'],
  ) -> Float[Array, 'batch vertices width']:
    shallow_map = _shallow_map(features)
    sizes = tuple(part.shape[-1] for part in (shallow_map, features.global_feature, position))
    initializer = nn.initializers.lecun_normal()

    def kernel_init(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
      keys = jax.random.split(key, len(sizes))
      parts = [initializer(k, (n, shape[1]), dtype) for k, n in zip(keys, sizes, strict=True)]
      return jnp.concatenate(parts)

    kernel = self.param('kernel', kernel_init, (sum(sizes), self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    of_map, of_global, of_position = jnp.split(kernel, (sizes[0], sizes[0] + sizes[1]))
    points, visible = _sampling_points(points_normalized, visible)
    seen = sample_bilinear(shallow_map, points) @ of_map
    seen = seen + (features.global_feature @ of_global)[:, None]
    return jnp.where(visible[..., None], seen, 0) + position @ of_position + bias[None, None]


class TextureRegressor(nn.Module):
  """Estimates the RGB colour of each vertex in (0, 1), after all vertices attend to each other."""

  config: TextureConfig
  computing: Computing = Computing()

  @nn.compact
  def __call__(
    self,
    features: ImageFeatures,
    vertices_normalized: Float[Array, 'batch vertices 2'],
    visible: Bool[Array, 'batch vertices'],
    template_vertices: Float[Array, 'vertices 3'],
    normals: Float[Array, 'batch vertices 3'],
    photo_colors: Float[Array, 'batch vertices 3'] | None = None,
  ) -> Float[Array, 'batch vertices 3']:
    """Estimates the colours of all vertices.

    Args:
      features: a backbone's output, with its shallow map.
      vertices_normalized: the vertices' projections, in [-1, 1] over the crop.
      visible: the vertices that the image shows.
      template_vertices: metres, hand frame.
      normals: the estimated mesh's normals, in camera axes.
      photo_colors: the photo's display RGB in [0, 1] where each vertex lies, whether it is visible
        or not. They are needed if the config sets `photo_colors`.
    """
    settings = self.config
    position = texture_position(template_vertices / TEMPLATE_UNIT_M, normals, settings)
    embedding = TextureEmbedding(settings.width, name='embedding')
    tokens = embedding(position, features, vertices_normalized, visible)
    start = None
    if settings.photo_colors:
      if photo_colors is None:
        raise ValueError('texture.photo_colors needs the colours of the photo at the vertices.')
      start = starting_colors(photo_colors, visible)
      tokens = tokens + nn.Dense(settings.width, use_bias=False, name='colors')(start - 0.5)
    tokens = self.computing.cast(tokens)
    make_block = self.computing.block(SelfAttentionBlock)
    sizes = (settings.width, settings.heads, settings.mlp_ratio)
    for layer in range(settings.self_layers):
      tokens = make_block(*sizes, name=f'self_{layer}')(tokens)
    tokens = nn.LayerNorm(name='output_norm')(tokens)
    log_odds = nn.Dense(3, kernel_init=SMALL_INIT, name='rgb')(tokens)
    if start is not None:
      inside = jnp.clip(start, _DARKEST, 1 - _DARKEST)
      log_odds = log_odds + jnp.log(inside) - jnp.log1p(-inside)
    return nn.sigmoid(log_odds)


def starting_colors(
  photo_colors: Float[Array, 'batch vertices 3'], visible: Bool[Array, 'batch vertices']
) -> Float[Array, 'batch vertices 3']:
  """Returns the photo's colours at visible vertices, and their mean at the others.

  The mean is grey where no vertex is visible.
  """
  shown = visible[..., None]
  count = jnp.sum(shown, axis=1, keepdims=True)
  total = jnp.sum(jnp.where(shown, photo_colors, 0), axis=1, keepdims=True)
  mean = jnp.where(count > 0, total / jnp.maximum(count, 1), 0.5)
  return jnp.where(shown, photo_colors, mean)


def sample_hidden_region(key: Key[Array, ''], fraction: float) -> HiddenRegion:
  """Draws a random direction, and a share of vertices that is uniform between 0 and `fraction`."""
  direction_key, share_key = jax.random.split(key)
  share = fraction * jax.random.uniform(share_key)
  return HiddenRegion(jax.random.normal(direction_key, (6,)), share)


def hidden_vertices(
  region: HiddenRegion,
  template_vertices: Float[Array, 'vertices 3'],
  normals: Float[Array, 'batch vertices 3'],
) -> Bool[Array, 'batch vertices']:
  """Finds the share of the vertices that lies farthest along the region's direction.

  Args:
    region: the direction and the share for each hand of the batch.
    template_vertices: metres, hand frame.
    normals: the estimated mesh's normals, in camera axes.

  Returns:
    True for the vertices to hide.
  """
  # A hand is flat. Dividing each axis by the spread along it lets a random direction separate palm
  # and back as often as fingers.
  scaled = template_vertices / jnp.std(template_vertices, axis=0, keepdims=True)
  height = jnp.einsum('vc,bc->bv', scaled, region.direction[:, :3])
  height = height + jnp.einsum('bvc,bc->bv', normals, region.direction[:, 3:])
  return height > jax.vmap(jnp.quantile)(height, 1 - region.share)[:, None]
