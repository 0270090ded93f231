"""Attention blocks against a loop reference, and the properties every attention layer has."""

import functools

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
from tests.drawn_variables import drawn_by


def drawn(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


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
  actual = jax.jit(dot_product_attention)(
    jnp.asarray(queries), jnp.asarray(keys), jnp.asarray(values)
  )
  np.testing.assert_allclose(actual, naive_attention(queries, keys, values), atol=2e-6)


@pytest.mark.slow
def test_constant_values_pass_through():
  queries, keys = drawn(1, 4, 2, 3), drawn(1, 6, 2, 3, seed=1)
  result = jax.jit(dot_product_attention)(queries, keys, np.full((1, 6, 2, 3), 2.5, np.float32))
  np.testing.assert_allclose(result, 2.5, rtol=1e-6)


@pytest.mark.slow
def test_self_attention_commutes_with_permutation():
  block = SelfAttentionBlock(width=8, heads=2, mlp_ratio=2)
  tokens = drawn(1, 7, 8)
  apply = functools.partial(jax.jit(block.apply), drawn_by(block.init, jnp.asarray(tokens)))
  order = np.random.default_rng(0).permutation(7)
  expected = np.asarray(apply(tokens))[:, order]
  np.testing.assert_allclose(apply(tokens[:, order]), expected, atol=1e-5)


@pytest.mark.slow
def test_cross_attention_ignores_the_order_of_its_context_and_sees_its_content():
  block = CrossAttentionBlock(width=8, heads=2, mlp_ratio=2)
  tokens, context = drawn(1, 4, 8), drawn(1, 5, 8, seed=1)
  variables = drawn_by(block.init, jnp.asarray(tokens), jnp.asarray(context))
  apply = functools.partial(jax.jit(block.apply), variables)
  reference = np.asarray(apply(tokens, context))
  np.testing.assert_allclose(apply(tokens, context[:, ::-1]), reference, atol=1e-5)
  context[0, 0, 0] += 1.0
  assert np.abs(apply(tokens, context) - reference).max() > 1e-3


def test_width_must_be_a_multiple_of_heads():
  with pytest.raises(ValueError, match='width 6 is not a multiple of heads 4'):
    jax.jit(MultiHeadAttention(6, 4).init)(
      jax.random.key(0), jnp.zeros((1, 2, 6)), jnp.zeros((1, 2, 6))
    )
