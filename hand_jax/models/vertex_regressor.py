"""Estimates a Gaussian over every vertex by attention, with AMVUR (Table 1)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hand_jax.config import AttentionConfig
from hand_jax.models.attention import CrossAttentionBlock, SelfAttentionBlock
from hand_jax.models.computing import Computing
from hand_jax.models.image_evidence import TokenEvidence
from hand_jax.models.prior_net import SMALL_INIT

# Template coordinates are inputs in units of 4 cm, about their standard deviation over a hand.
TEMPLATE_UNIT_M = 0.04


def positional_encoding(
  template: Float[Array, 'tokens 3'], global_feature: Float[Array, 'batch channels']
) -> Float[Array, 'batch tokens inputs']:
  """Joins template xyz and the global feature into the tokens of Table 1.

  For ResNet-50 they have the shape 799 x 2051.
  """
  tokens, batch = template.shape[0], global_feature.shape[0]
  xyz = jnp.broadcast_to(template[None], (batch, tokens, 3))
  features = jnp.broadcast_to(global_feature[:, None], (batch, tokens, global_feature.shape[-1]))
  return jnp.concatenate([xyz, features], axis=-1)


def spread_vertices(template: Float[Array, 'vertices 3'], count: int) -> Int[Array, 'count']:
  """Chooses vertex ids that are spread evenly over the mesh.

  Each vertex is the farthest one from those chosen before.
  """

  def add_farthest(position: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    chosen, distance = state
    chosen = chosen.at[position].set(jnp.argmax(distance).astype(jnp.int32))
    newest = jnp.expand_dims(template[chosen[position]], 0)
    return chosen, jnp.minimum(distance, jnp.sum((template - newest) ** 2, axis=-1))

  start = (jnp.zeros(count, jnp.int32), jnp.full(len(template), jnp.inf))
  return jax.lax.fori_loop(0, count, add_farthest, start)[0]


def query_vertices(
  template: Float[Array, 'vertices 3'], settings: AttentionConfig
) -> Int[Array, 'queries'] | None:
  """Chooses the vertices that have tokens, or returns None where all of them have."""
  if not settings.coarse_vertices:
    return None
  return spread_vertices(template, settings.coarse_vertices)


def blend_matrix(
  template: Float[Array, 'vertices 3'], coarse: Float[Array, 'coarse 3']
) -> Float[Array, 'vertices coarse']:
  """Computes weights that blend values at coarse points into values at every vertex.

  The weights of a vertex are not negative and sum to one. They fall off as a Gaussian of the
  distance in the template, whose deviation is half the distance of neighbouring coarse points.
  """
  squared = jnp.sum((template[:, None] - coarse[None]) ** 2, axis=-1)
  between = jnp.sum((coarse[:, None] - coarse[None]) ** 2, axis=-1)
  nearest = jnp.min(between + jnp.diag(jnp.full(len(coarse), jnp.inf)), axis=-1)
  return nn.softmax(-squared / (2 * jnp.mean(nearest) / 4), axis=-1)


class TokenEmbedding(nn.Module):
  """A dense layer on `positional_encoding` that makes no copies of the feature in memory.

  xyz and the feature share one kernel, whose first three rows belong to xyz. Each part is
  initialised by its own fan-in. Otherwise a position would have almost no weight beside 2048
  features.
  """

  width: int

  @nn.compact
  def __call__(
    self, template: Float[Array, 'tokens 3'], global_feature: Float[Array, 'batch channels']
  ) -> Float[Array, 'batch tokens width']:
    channels = global_feature.shape[-1]
    initializer = nn.initializers.lecun_normal()

    def kernel_init(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
      key_xyz, key_feature = jax.random.split(key)
      xyz = initializer(key_xyz, (3, shape[1]), dtype)
      return jnp.concatenate([xyz, initializer(key_feature, (shape[0] - 3, shape[1]), dtype)])

    kernel = self.param('kernel', kernel_init, (3 + channels, self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    position = template @ kernel[:3] + bias[None]
    return position[None] + (global_feature @ kernel[3:])[:, None]


class VertexRegressor(nn.Module):
  """Vertex tokens attend to joint tokens, then to each other, and two heads read each vertex."""

  attention: AttentionConfig
  length_unit_m: float
  min_log_variance: float
  max_log_variance: float
  computing: Computing = Computing()

  @nn.compact
  def __call__(
    self,
    template_vertices: Float[Array, 'vertices 3'],
    template_joints: Float[Array, 'joints 3'],
    global_feature: Float[Array, 'batch channels'],
    evidence: TokenEvidence | None = None,
    queries: Int[Array, 'queries'] | None = None,
  ) -> tuple[Float[Array, 'batch vertices 3'], Float[Array, 'batch vertices 3']]:
    """Estimates an offset and a log-variance for each vertex.

    Args:
      template_vertices: metres, hand frame.
      template_joints: metres, hand frame.
      global_feature: the backbone's pooled vector, normalised.
      evidence: further inputs of each token, which `image_features` 'sampled' requires.
      queries: ids of the vertices that have tokens, as `query_vertices` chooses them. The other
        vertices take blends of their values. With None all vertices have tokens.

    Returns:
      The offsets in metres, which the caller adds to a mesh, and the log-variances of the
      coordinates in `length_unit_m` squared, bounded to [min_log_variance, max_log_variance].
    """
    settings = self.attention
    sizes = (settings.width, settings.heads, settings.mlp_ratio)
    asked = template_vertices if queries is None else template_vertices[queries]
    vertex_count = len(asked)
    template = jnp.concatenate([asked, template_joints]) / TEMPLATE_UNIT_M
    tokens = TokenEmbedding(settings.width, name='embedding')(template, global_feature)
    if evidence is not None:
      # A dense layer on the joined inputs is the sum of a dense layer on each.
      appended = jnp.concatenate(evidence, axis=1)
      tokens += nn.Dense(settings.width, use_bias=False, name='evidence')(appended)
    vertices, joints = tokens[:, :vertex_count], tokens[:, vertex_count:]
    vertices, joints = self.computing.cast(vertices), self.computing.cast(joints)
    make_cross = self.computing.block(CrossAttentionBlock)
    make_self = self.computing.block(SelfAttentionBlock)
    for layer in range(settings.cross_layers):
      vertices = make_cross(*sizes, name=f'cross_{layer}')(vertices, joints)
    for layer in range(settings.self_layers):
      vertices = make_self(*sizes, name=f'self_{layer}')(vertices)
    vertices = nn.LayerNorm(name='output_norm')(vertices)
    if evidence is not None:
      # The evidence at a vertex also reaches its offset directly.
      vertices = jnp.concatenate([vertices, evidence.vertices], axis=-1)
    offset = nn.Dense(3, kernel_init=SMALL_INIT, name='mean')(vertices)
    raw = nn.Dense(3, kernel_init=SMALL_INIT, name='log_variance')(vertices)
    if queries is not None:
      blend = blend_matrix(template_vertices, asked)
      offset, raw = (
        jnp.einsum('vc,bcd->bvd', blend, values, precision='highest') for values in (offset, raw)
      )
    return offset * self.length_unit_m, self._bounded(raw)

  def _bounded(self, raw: Array) -> Array:
    """Clamps smoothly. A raw value of zero gives zero, which is a deviation of one length unit."""
    low, high = self.min_log_variance, self.max_log_variance
    start = math.log(-low / high)  # At this logit, low + (high - low) sigmoid is zero.
    return low + (high - low) * nn.sigmoid(raw + start)
