"""Validates a run while it trains, by figures and pictures. The hosts share the examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.data.example_sources import ExampleSource
from hand_jax.data.pipeline import evaluation_batches
from hand_jax.evaluation.evaluate import evaluate_batches, known_joints
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.branches import best_branch
from hand_jax.models.hand_network import render_estimate
from hand_jax.runs.train_state import TrainState
from hand_jax.training.hosts import join_rows
from hand_jax.training.placement import Placement
from hand_jax.training.preemption import PreemptionWatch
from hand_jax.training.reports import overlay_sheet, texture_sheet, validation_metrics
from hand_jax.training.step import EvalStep
from hand_jax.types import HandBatch, HandEstimate, ManoModel

OVERLAY_IMAGES = 8


class Validation(NamedTuple):
  """Figures by name, with the prefix `validation_`, and a picture of the first examples."""

  figures: dict[str, float]
  picture: np.ndarray


class Validator:
  """Computes validation figures and overlays of a state.

  Each host estimates its own rows of a batch, and then receives the estimates of all rows. So all
  hosts have the same figures.
  """

  def __init__(
    self,
    config: ExperimentConfig,
    constants: tuple[ManoModel, Any],
    step: EvalStep,
    placement: Placement,
  ):
    self._config, self._placement = config, placement
    self._step = placement.map_eval_step(step)
    self._constants = placement.replicate(constants)
    self._model = constants[0]
    self._regressor = np.asarray(extended_joint_regressor(self._model))

  def validate(
    self, state: TrainState, source: ExampleSource, preemption: PreemptionWatch
  ) -> Validation | None:
    """Measures a state, or returns None if the run has to be saved before that is done.

    Args:
      state: the state to measure.
      source: the examples.
      preemption: checked before each batch.
    """
    # The optimizer's moments stay on the host.
    state = self._placement.replicate(state.replace(opt_state=()))
    totals, pictures = [], []

    def estimate(batch: HandBatch) -> HandEstimate:
      if preemption.is_due():
        raise _Preempted
      start = jax.process_index() * len(batch.image) // jax.process_count()
      rows = slice(start, start + len(batch.image) // jax.process_count())
      own = jax.tree.map(lambda leaf: leaf[rows], batch)
      outputs = self._step(state, self._placement.shard_batch(own), *self._constants)
      estimate, terms = join_rows(self._placement.gather(outputs))
      totals.append(terms['total'][~batch.is_padding])
      if not pictures:
        pictures.append(_draw(batch, estimate, self._model))
      return estimate

    num_vertices, faces = len(self._model.v_template), self._model.faces
    try:
      with evaluation_batches(source, self._config, num_vertices, faces=faces) as batches:
        results = evaluate_batches(estimate, batches, self._regressor, full=False)
    except _Preempted:
      return None
    total = float(np.concatenate(totals).mean())
    return Validation({'validation_total': total, **validation_metrics(results)}, pictures[0])


class _Preempted(Exception):
  """Ends a validation that has no time left."""


_render_estimate = jax.jit(render_estimate, static_argnums=2)


def _draw(batch: HandBatch, estimate: HandEstimate, model: ManoModel) -> np.ndarray:
  """Draws estimates over photos: skeletons, or the coloured hands of a texture branch."""
  shown = np.flatnonzero(~batch.is_padding)[:OVERLAY_IMAGES]
  if estimate.vertex_colors is not None:
    estimate = jax.tree.map(lambda leaf: jnp.asarray(leaf[shown]), estimate)
    return texture_sheet(
      batch.image[shown], _render_estimate(estimate, model, batch.image.shape[1])
    )
  return overlay_sheet(
    batch.image[shown],
    np.asarray(best_branch(estimate).joints_normalized.mean[shown]),
    np.where(known_joints(batch)[..., None], batch.joints_normalized, np.nan)[shown],
  )
