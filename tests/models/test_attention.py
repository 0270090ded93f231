"""Attention blocks against a loop reference, and the properties every attention layer has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.models.attention import (
  CrossAttentionBlock,
  MultiHeadAttention,
  SelfAttentionBlock,
  dot_product_attention,
)


def naive_attention(queries, keys, values):
  """One query, head and key at a time."""
  batch, tokens, heads, channels = queries.shape
  result = np.zeros(queries.shape)
  for b, q, h in np.ndindex(batch, tokens, heads):
    logits = [queries[b, q, h] @ key[h] / np.sqrt(channels) for key in keys[b]]
    weights = np.exp(logits - np.max(logits))
    weights /= weights.sum()
    result[b, q, h] = sum(w * value[h] for w, value in zip(weights, values[b], strict=True))
  return result


def test_attention_matches_loops():
  rng = np.random.default_rng(0)
  queries = rng.normal(size=(2, 3, 2, 4)).astype(np.float32)
  keys, values = rng.normal(size=(2, 2, 5, 2, 4)).astype(np.float32)
  actual = dot_product_attention(jnp.asarray(queries), jnp.asarray(keys), jnp.asarray(values))
  np.testing.assert_allclose(actual, naive_attention(queries, keys, values), atol=2e-6)


@pytest.mark.slow
def test_constant_values_pass_through():
  queries = jax.random.normal(jax.random.key(0), (1, 4, 2, 3))
  keys = jax.random.normal(jax.random.key(1), (1, 6, 2, 3))
  result = dot_product_attention(queries, keys, jnp.full((1, 6, 2, 3), 2.5))
  np.testing.assert_allclose(result, 2.5, rtol=1e-6)


@pytest.mark.slow
def test_self_attention_commutes_with_permutation():
  block = SelfAttentionBlock(width=8, heads=2, mlp_ratio=2)
  tokens = jax.random.normal(jax.random.key(0), (1, 7, 8))
  variables = jax.jit(block.init)(jax.random.key(1), tokens)
  order = np.random.default_rng(0).permutation(7)
  np.testing.assert_allclose(
    jax.jit(block.apply)(variables, tokens[:, order]),
    jax.jit(block.apply)(variables, tokens)[:, order],
    atol=1e-5,
  )


@pytest.mark.slow
def test_cross_attention_ignores_the_order_of_its_context_and_sees_its_content():
  block = CrossAttentionBlock(width=8, heads=2, mlp_ratio=2)
  tokens = jax.random.normal(jax.random.key(0), (1, 4, 8))
  context = jax.random.normal(jax.random.key(1), (1, 5, 8))
  variables = jax.jit(block.init)(jax.random.key(2), tokens, context)
  reference = jax.jit(block.apply)(variables, tokens, context)
  np.testing.assert_allclose(block.apply(variables, tokens, context[:, ::-1]), reference, atol=1e-5)
  changed = jax.jit(block.apply)(variables, tokens, context.at[0, 0, 0].add(1.0))
  assert float(jnp.abs(changed - reference).max()) > 1e-3


def test_width_must_be_a_multiple_of_heads():
  with pytest.raises(ValueError, match='width 6 is not a multiple of heads 4'):
    jax.jit(MultiHeadAttention(6, 4).init)(
      jax.random.key(0), jnp.zeros((1, 2, 6)), jnp.zeros((1, 2, 6))
    )
