"""AMVUR's head in PyTorch: Table 1's tokens, scaled_dot_product_attention, fused projections."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from hand_jax.config import ModelConfig
from hand_jax.models.vertex_regressor import TEMPLATE_UNIT_M

EPSILON = 1e-6  # Flax's of layer normalisation


class Attention(nn.Module):
  """Multi-head attention. Projections of the same input are one layer, as in PyTorch's own."""

  def __init__(self, width: int, heads: int, is_self: bool):
    super().__init__()
    self.heads, self.is_self = heads, is_self
    if is_self:
      self.query_key_value = nn.Linear(width, 3 * width)
    else:
      self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
    self.output = nn.Linear(width, width)

  def projections(self):
    """Lists the layers with the names of what they give."""
    if self.is_self:
      return [(self.query_key_value, ('query', 'key', 'value'))]
    return [(self.query, ('query',)), (self.key_value, ('key', 'value'))]

  def forward(self, tokens, context):
    """Lets the tokens attend to the context."""
    if self.is_self:
      query, key, value = self.query_key_value(tokens).chunk(3, -1)
    else:
      query, (key, value) = self.query(tokens), self.key_value(context).chunk(2, -1)
    query, key, value = (
      x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
  """Two dense layers with a GELU between them."""

  def __init__(self, width: int, ratio: int):
    super().__init__()
    self.Dense_0, self.Dense_1 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

  def forward(self, tokens):
    """Applies the layers to every token."""
    return self.Dense_1(F.gelu(self.Dense_0(tokens), approximate='tanh'))


class Block(nn.Module):
  """A residual block with normalisation first, of self-attention or of cross-attention."""

  def __init__(self, width: int, heads: int, ratio: int, is_self: bool):
    super().__init__()
    if not is_self:
      self.context_norm = nn.LayerNorm(width, eps=EPSILON)
    self.LayerNorm_0 = nn.LayerNorm(width, eps=EPSILON)
    self.MultiHeadAttention_0 = Attention(width, heads, is_self)
    self.LayerNorm_1 = nn.LayerNorm(width, eps=EPSILON)
    self.FeedForward_0 = FeedForward(width, ratio)

  def forward(self, tokens, context=None):
    """Attends to the context, or to the tokens themselves without one."""
    if context is not None:
      context = self.context_norm(context)
    tokens = tokens + self.MultiHeadAttention_0(self.LayerNorm_0(tokens), context)
    return tokens + self.FeedForward_0(self.LayerNorm_1(tokens))


class TokenEmbedding(nn.Module):
  """A dense layer on Table 1's tokens, which are xyz followed by the global feature."""

  def __init__(self, channels: int, width: int):
    super().__init__()
    self.dense = nn.Linear(3 + channels, width)

  def forward(self, template, feature):
    """Writes the tokens out and applies the layer."""
    batch, count = feature.shape[0], template.shape[0]
    xyz = template[None].expand(batch, -1, -1)
    return self.dense(torch.cat([xyz, feature[:, None].expand(-1, count, -1)], -1))


class VertexRegressor(nn.Module):
  """Offsets in metres and bounded log-variances of all vertices."""

  def __init__(self, config: ModelConfig, channels: int, length_unit_m: float):
    super().__init__()
    settings = config.attention
    sizes = (settings.width, settings.heads, settings.mlp_ratio)
    self.embedding = TokenEmbedding(channels, settings.width)
    self.blocks = []
    for kind, count in (('cross', settings.cross_layers), ('self', settings.self_layers)):
      for layer in range(count):
        self.add_module(f'{kind}_{layer}', Block(*sizes, is_self=kind == 'self'))
        self.blocks.append((kind, f'{kind}_{layer}'))
    self.output_norm = nn.LayerNorm(settings.width, eps=EPSILON)
    self.mean, self.log_variance = nn.Linear(settings.width, 3), nn.Linear(settings.width, 3)
    self.length_unit_m = length_unit_m
    self.low, self.high = config.min_log_variance, config.max_log_variance

  def forward(self, template, template_joints, feature):
    """Estimates from the template (metres, hand frame) and normalised global features."""
    joined = torch.cat([template, template_joints]) / TEMPLATE_UNIT_M
    tokens = self.embedding(joined, feature)
    vertices, joints = tokens.split([len(template), len(template_joints)], 1)
    for kind, name in self.blocks:
      vertices = getattr(self, name)(vertices, joints if kind == 'cross' else None)
    vertices = self.output_norm(vertices)
    start = math.log(-self.low / self.high)
    bounded = torch.sigmoid(self.log_variance(vertices) + start)
    log_variance = self.low + (self.high - self.low) * bounded
    return self.mean(vertices) * self.length_unit_m, log_variance
