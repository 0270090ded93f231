"""Cross- and self-attention blocks with normalisation first and a GELU MLP.

Nothing in this module is specific to hands. Parameters are float32, and blocks compute in the type
of the tokens.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.models.computing import accumulator_dtype


def dot_product_attention(
  queries: Float[Array, 'batch queries heads channels'],
  keys: Float[Array, 'batch keys heads channels'],
  values: Float[Array, 'batch keys heads channels'],
) -> Float[Array, 'batch queries heads channels']:
  """Computes softmax(Q K^T / sqrt(channels)) V for every head (Vaswani et al. 2017, eq. 1).

  The softmax is computed in float32 or wider. The output has the type of the values.

  Args:
    queries: the matrix Q of each head.
    keys: the matrix K of each head.
    values: the matrix V of each head.
  """
  scale = queries.shape[-1] ** -0.5
  # With the heads in front every product is one of contiguous matrices, which is faster on CPUs.
  queries, keys, values = (jnp.moveaxis(x, 2, 1) for x in (queries * scale, keys, values))
  logits = jnp.einsum('bhqc,bhkc->bhqk', queries, keys)
  weights = nn.softmax(logits.astype(accumulator_dtype(logits.dtype)), axis=-1)
  mixed = jnp.einsum('bhqk,bhkc->bhqc', weights.astype(values.dtype), values)
  return jnp.moveaxis(mixed, 1, 2)


class MultiHeadAttention(nn.Module):
  """Attention with `width` channels in `heads` heads, with input and output projections."""

  width: int
  heads: int

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, 'batch queries inputs'],
    context: Float[Array, 'batch keys context'],
  ) -> Float[Array, 'batch queries width']:
    if self.width % self.heads:
      raise ValueError(f'attention width {self.width} is not a multiple of heads {self.heads}')

    def project(name: str, tokens: Array) -> Array:
      features = (self.heads, self.width // self.heads)
      return nn.DenseGeneral(features, dtype=tokens.dtype, name=name)(tokens)

    mixed = dot_product_attention(
      project('query', inputs), project('key', context), project('value', context)
    )
    return nn.DenseGeneral(self.width, axis=(-2, -1), dtype=mixed.dtype, name='output')(mixed)


class FeedForward(nn.Module):
  """Two dense layers with a GELU between them, applied to every token."""

  width: int
  mlp_ratio: int

  @nn.compact
  def __call__(self, tokens: Float[Array, 'batch tokens width']) -> Float[Array, '...']:
    hidden = nn.gelu(nn.Dense(self.width * self.mlp_ratio, dtype=tokens.dtype)(tokens))
    return nn.Dense(self.width, dtype=tokens.dtype)(hidden)


class CrossAttentionBlock(nn.Module):
  """A residual block in which tokens attend to a context, followed by a feed-forward layer.

  Tokens and context are normalised first.
  """

  width: int
  heads: int
  mlp_ratio: int

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'batch tokens width'],
    context: Float[Array, 'batch keys width'],
  ) -> Float[Array, 'batch tokens width']:
    dtype = tokens.dtype
    attention = MultiHeadAttention(self.width, self.heads)
    context = nn.LayerNorm(dtype=dtype, name='context_norm')(context)
    tokens = tokens + attention(nn.LayerNorm(dtype=dtype)(tokens), context)
    return tokens + FeedForward(self.width, self.mlp_ratio)(nn.LayerNorm(dtype=dtype)(tokens))


class SelfAttentionBlock(nn.Module):
  """A residual block in which tokens attend to each other, followed by a feed-forward layer.

  The tokens are normalised first.
  """

  width: int
  heads: int
  mlp_ratio: int

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'batch tokens width']
  ) -> Float[Array, 'batch tokens width']:
    dtype = tokens.dtype
    normalized = nn.LayerNorm(dtype=dtype)(tokens)
    tokens = tokens + MultiHeadAttention(self.width, self.heads)(normalized, normalized)
    return tokens + FeedForward(self.width, self.mlp_ratio)(nn.LayerNorm(dtype=dtype)(tokens))
