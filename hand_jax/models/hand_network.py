"""The one file that joins the parts: image -> HandEstimate (Algorithms 1 and 3)."""

import contextlib
import math
from collections.abc import Iterator

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.config import ExperimentConfig, ModelConfig
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.backbone import create_backbone, load_backbone_variables
from hand_jax.models.prior_net import CameraModel, PriorNet, hand_frame_vertices
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.propagation import hand_gaussians
from hand_jax.types import DiagonalGaussian, HandEstimate, HandGaussians, ManoModel


class HandNetwork(nn.Module):
  """Backbone, prior-net, camera model and AMVUR; their Gaussians for vertices, joints, pixels.

  `convention` and `length_unit_m` say how variances travel from vertices to joints (see
  `hand_jax.propagation`); `axis_name` is the device axis batch statistics are averaged over.
  """

  config: ModelConfig
  convention: str
  length_unit_m: float
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, 'batch side side 3'], model: ManoModel, train: bool
  ) -> HandEstimate:
    """Estimates hands from normalised RGB crops; Gaussians in metres, hand frame, and the crop."""
    config = self.config
    backbone = create_backbone(config.backbone, axis_name=self.axis_name)
    # One name for every backbone, whatever its class.
    backbone = backbone.clone(parent=self, name='backbone')
    feature = backbone(images, train).global_feature
    feature = nn.LayerNorm(name='feature_norm')(feature)
    parameters = PriorNet(config.prior_hidden, config.pose_components, name='prior_net')(
      feature, model
    )
    camera = CameraModel(config.camera_hidden, name='camera_model')(feature)
    prior_mean = jax.vmap(hand_frame_vertices, in_axes=(None, 0))(model, parameters)
    prior = DiagonalGaussian(prior_mean, jnp.full_like(prior_mean, self._unit_log_variance()))
    posterior = self._posterior(model, feature, prior_mean)
    return HandEstimate(
      parameters=parameters,
      camera=camera,
      prior=self._propagate(prior, camera, model),
      posterior=self._propagate(posterior, camera, model),
    )

  def _unit_log_variance(self) -> float:
    """log(length_unit_m^2): what log-variances counted in the length unit gain in metres."""
    return 2 * math.log(self.length_unit_m)

  def _posterior(self, model: ManoModel, feature: Array, prior_mean: Array) -> DiagonalGaussian:
    config = self.config
    regressor = extended_joint_regressor(model)
    template_joints = regressor @ model.v_template
    origin = template_joints[:1]
    offset, log_variance = VertexRegressor(
      config.attention,
      self.length_unit_m,
      config.min_log_variance,
      config.max_log_variance,
      name='vertex_regressor',
    )(model.v_template - origin, template_joints - origin, feature)
    base = prior_mean
    if config.vertex_offset_from == 'template':
      base = jnp.broadcast_to((model.v_template - origin)[None], prior_mean.shape)
    return DiagonalGaussian(base + offset, log_variance + self._unit_log_variance())

  def _propagate(
    self, vertices: DiagonalGaussian, camera: DiagonalGaussian, model: ManoModel
  ) -> HandGaussians:
    regressor = extended_joint_regressor(model)

    def one_hand(vertices: DiagonalGaussian, camera_mean: Array) -> HandGaussians:
      return hand_gaussians(
        vertices,
        camera_mean,
        regressor,
        convention=self.convention,
        length_unit_m=self.length_unit_m,
      )

    return jax.vmap(one_hand)(vertices, camera.mean)


def create_network(config: ExperimentConfig, axis_name: str | None = None) -> HandNetwork:
  """The network of an experiment; `axis_name` names the pmap axis when several devices train."""
  return HandNetwork(config.model, config.loss.convention, config.loss.length_unit_m, axis_name)


@contextlib.contextmanager
def naming_misfits(workdir: str) -> Iterator[None]:
  """Turns Flax's error about variables of another network into a ValueError that names the run."""
  try:
    yield
  except flax.errors.FlaxError as error:
    reason = ' '.join(str(error).split()).split(' (http')[0]
    raise ValueError(
      f'{workdir}: its config.json describes another network than its checkpoint holds: {reason}'
    ) from None


def initialize_network(network: HandNetwork, key: Array, model: ManoModel) -> dict:
  """Fresh variables (`params`, `batch_stats`), with the backbone's pretrained ones where asked.

  Raises:
    ValueError: the configured weights do not fit the backbone, or its file cannot be read.
  """
  size = network.config.image_size
  images = jnp.zeros((1, size, size, 3), jnp.float32)
  # A mapped axis exists only inside pmap; the variables are the same without it.
  local = network.clone(axis_name=None)
  # It runs once: on a CPU, compiling it with little effort saves seconds. (Under another trace, as
  # in `eval_shape`, nothing is compiled and JAX refuses compiler options.)
  runs_on_cpu = jax.default_backend() == 'cpu' and not isinstance(key, jax.core.Tracer)
  options = {'xla_backend_optimization_level': 0} if runs_on_cpu else None
  init = jax.jit(local.init, static_argnames='train', compiler_options=options)
  variables = init(key, images, model, train=False)
  backbone = {
    collection: tree['backbone'] for collection, tree in variables.items() if 'backbone' in tree
  }
  loaded = load_backbone_variables(network.config.backbone, backbone)
  return {
    collection: {**tree, 'backbone': loaded[collection]} if collection in loaded else tree
    for collection, tree in variables.items()
  }
