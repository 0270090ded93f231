"""The silhouette term: how much of the hand's mask the softly drawn hand misses, and where it errs.

It needs no label but the mask. Its gradient reaches the vertices and the camera.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hand_jax.config import LossConfig
from hand_jax.geometry.cameras import camera_from_vector, vertices_in_crop
from hand_jax.models.branches import best_branch
from hand_jax.rendering.soft import soft_silhouette
from hand_jax.types import SILHOUETTE_FULL, SILHOUETTE_UNKNOWN, HandBatch, HandEstimate

SILHOUETTE = 'silhouette'
"""Name of the term."""


def compute_silhouette_term(
  estimate: HandEstimate, batch: HandBatch, faces: Int[Array, 'faces 3'], config: LossConfig
) -> Float[Array, 'batch']:
  """Computes 1 - overlap / union of the drawn hand and the mask, in soft shares of pixels.

  With the drawing S and the mask M, overlap is the sum of S M and union that of S + M - S M (Eq. 14
  of SoftRas). Pixels where something may hide the hand count in neither sum. A hand that has no
  mask, or none of whose pixels is known, has a term of zero, and so has padding.

  Args:
    estimate: the network's output. The hand drawn is the mean of its better branch, by the mean
      camera.
    batch: its silhouettes are compared with.
    faces: vertex ids of the hand model's faces.
    config: the softness of the drawing.

  Raises:
    ValueError: the batch has no silhouettes.
  """
  if batch.silhouette is None:
    raise ValueError(
      'loss.silhouette needs batches with silhouettes: give the faces of the hand model to '
      'training_batches or evaluation_batches.'
    )
  label = jnp.asarray(batch.silhouette)
  side = label.shape[-1]
  camera = camera_from_vector(estimate.camera.mean)
  vertices_image = vertices_in_crop(camera, best_branch(estimate).vertices.mean, side)
  drawn = soft_silhouette(vertices_image, faces, side, side, config.silhouette_sigma)
  known = label != SILHOUETTE_UNKNOWN
  shown = jnp.where(known, label.astype(drawn.dtype) / SILHOUETTE_FULL, 0)
  drawn = jnp.where(known, drawn, 0)
  overlap = jnp.sum(drawn * shown, axis=(1, 2))
  union = jnp.sum(drawn + shown, axis=(1, 2)) - overlap
  counts = jnp.any(shown > 0, axis=(1, 2)) & ~jnp.asarray(batch.is_padding)
  # The union of a hand that counts is at least its mask.
  return jnp.where(counts, 1 - overlap / jnp.where(counts, union, 1), 0)
