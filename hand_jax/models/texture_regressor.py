"""Occlusion-aware texture regression: features at visible vertices -> colours of all (Table 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hand_jax.config import TextureConfig
from hand_jax.models.attention import SelfAttentionBlock
from hand_jax.models.prior_net import SMALL_INIT
from hand_jax.models.vertex_regressor import TEMPLATE_UNIT_M
from hand_jax.types import ImageFeatures


def sample_bilinear(
  feature_map: Float[Array, 'batch height width channels'],
  points_normalized: Float[Array, 'batch points 2'],
) -> Float[Array, 'batch points channels']:
  """A map's values between its pixels, at points in [-1, 1] across it; the border's beyond it.

  Pixel centres lie at half-integers, so a map of any resolution is sampled at the same place.
  """
  height, width = feature_map.shape[1:3]
  x, x_share = _cell((points_normalized[..., 0] + 1) * width / 2 - 0.5, width)
  y, y_share = _cell((points_normalized[..., 1] + 1) * height / 2 - 0.5, height)

  def at(row, column):
    return jax.vmap(lambda one, row, column: one[row, column])(feature_map, row, column)

  right, below = jnp.minimum(x + 1, width - 1), jnp.minimum(y + 1, height - 1)
  top = at(y, x) * (1 - x_share) + at(y, right) * x_share
  bottom = at(below, x) * (1 - x_share) + at(below, right) * x_share
  return top * (1 - y_share) + bottom * y_share


def _cell(position: Array, size: int) -> tuple[Array, Array]:
  """The pixel centre before a position counted from the first one, and the share of the next."""
  position = jnp.clip(position, 0, size - 1)
  first = jnp.floor(position)
  return first.astype(jnp.int32), (position - first)[..., None]


def reverse_interpolation(
  features: ImageFeatures,
  vertices_normalized: Float[Array, 'batch vertices 2'],
  visible: Bool[Array, 'batch vertices'],
) -> Float[Array, 'batch vertices channels']:
  """Each visible vertex's own features: the shallow map where it projects, and the global vector.

  778 x 2112 for ResNet-50. A hidden vertex has none: zeros, whatever the image shows at its place.
  """
  local = sample_bilinear(features.shallow_map, vertices_normalized)
  spread = (*local.shape[:2], features.global_feature.shape[-1])
  everywhere = jnp.broadcast_to(features.global_feature[:, None], spread)
  sampled = jnp.concatenate([local, everywhere], axis=-1)
  return jnp.where(visible[..., None], sampled, 0)


def texture_tokens(
  sampled: Float[Array, 'batch vertices channels'], template: Float[Array, 'vertices 3']
) -> Float[Array, 'batch vertices tokens']:
  """Table 1's positional encoding: the template's xyz appended (778 x 2115 for ResNet-50)."""
  position = jnp.broadcast_to(template[None], (len(sampled), *template.shape))
  return jnp.concatenate([sampled, position], axis=-1)


class TextureEmbedding(nn.Module):
  """A dense layer on `texture_tokens`, computed without writing its copies of the feature out.

  One kernel, rows in the tokens' order; the parts are initialised by their own fan-in, as AMVUR's
  are, or a position would weigh next to nothing beside 2112 features.
  """

  width: int

  @nn.compact
  def __call__(
    self,
    features: ImageFeatures,
    vertices_normalized: Float[Array, 'batch vertices 2'],
    visible: Bool[Array, 'batch vertices'],
    template: Float[Array, 'vertices 3'],
  ) -> Float[Array, 'batch vertices width']:
    sizes = (features.shallow_map.shape[-1], features.global_feature.shape[-1], 3)
    initializer = nn.initializers.lecun_normal()

    def kernel_init(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
      keys = jax.random.split(key, len(sizes))
      parts = [initializer(k, (n, shape[1]), dtype) for k, n in zip(keys, sizes, strict=True)]
      return jnp.concatenate(parts)

    kernel = self.param('kernel', kernel_init, (sum(sizes), self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    of_map, of_global, of_position = jnp.split(kernel, (sizes[0], sizes[0] + sizes[1]))
    seen = sample_bilinear(features.shallow_map, vertices_normalized) @ of_map
    seen = seen + (features.global_feature @ of_global)[:, None]
    return jnp.where(visible[..., None], seen, 0) + (template @ of_position + bias[None])[None]


class TextureRegressor(nn.Module):
  """Tokens of all vertices attend to each other; a head reads each one's colour, RGB in (0, 1)."""

  config: TextureConfig

  @nn.compact
  def __call__(
    self,
    features: ImageFeatures,
    vertices_normalized: Float[Array, 'batch vertices 2'],
    visible: Bool[Array, 'batch vertices'],
    template_vertices: Float[Array, 'vertices 3'],
  ) -> Float[Array, 'batch vertices 3']:
    settings = self.config
    embedding = TextureEmbedding(settings.width, name='embedding')
    template = template_vertices / TEMPLATE_UNIT_M
    tokens = embedding(features, vertices_normalized, visible, template)
    for layer in range(settings.self_layers):
      block = SelfAttentionBlock(
        settings.width, settings.heads, settings.mlp_ratio, name=f'self_{layer}'
      )
      tokens = block(tokens)
    tokens = nn.LayerNorm(name='output_norm')(tokens)
    return nn.sigmoid(nn.Dense(3, kernel_init=SMALL_INIT, name='rgb')(tokens))


def sample_hidden_vertices(
  key: Key[Array, ''], template_vertices: Float[Array, 'vertices 3'], fraction: float
) -> Bool[Array, 'vertices']:
  """A region of the hand to hide in training: what lies beyond a random plane through it.

  Its share of the vertices is uniform between 0 and `fraction`; the direction is any.
  """
  direction_key, share_key = jax.random.split(key)
  direction = jax.random.normal(direction_key, (3,))
  # A hand is flat: in units of its spread along each axis, palm and back part as often as fingers.
  height = (template_vertices / jnp.std(template_vertices, axis=0, keepdims=True)) @ direction
  share = fraction * jax.random.uniform(share_key)
  return height > jnp.quantile(height, 1 - share)
