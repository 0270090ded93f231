"""The one file that joins the parts: image -> HandEstimate (Algorithms 1 and 3)."""

import contextlib
import math
from collections.abc import Iterator

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hand_jax.config import ExperimentConfig, ModelConfig
from hand_jax.geometry.cameras import camera_from_vector, normalize_points, vertices_in_crop
from hand_jax.mano.model import extended_joint_regressor, regress_joints
from hand_jax.models.backbone import create_backbone, load_backbone_variables
from hand_jax.models.prior_net import CameraModel, PriorNet, PriorSigma, hand_frame_vertices
from hand_jax.models.texture_regressor import HiddenRegion, TextureRegressor, hidden_vertices
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.propagation import hand_gaussians
from hand_jax.rendering.images import render_vertex_colors
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.rendering.surfaces import vertex_normals
from hand_jax.types import (
  DiagonalGaussian,
  HandEstimate,
  HandGaussians,
  HandParameters,
  ImageFeatures,
  ManoModel,
  RenderedHand,
)

# What `HandNetwork.estimate_camera` needs.
CAMERA_MODULES = ('backbone', 'feature_norm', 'camera_model')
TEXTURE_REGRESSOR = 'texture_regressor'
VERTEX_REGRESSOR = 'vertex_regressor'
# A face hides a vertex from this far before it on, in pixels, or copies along a seam would.
HIDING_DISTANCE = 0.01


class HandNetwork(nn.Module):
  """Backbone, prior-net, camera model and AMVUR; their Gaussians for vertices, joints, pixels.

  `config.branches` leaves the prior-net or AMVUR out, `config.texture` adds colours. `convention`
  and `length_unit_m` say how variances travel from vertices to joints (see `hand_jax.propagation`);
  `axis_name` is the device axis batch statistics are averaged over.
  """

  config: ModelConfig
  convention: str
  length_unit_m: float
  axis_name: str | None = None

  def setup(self) -> None:
    config = self.config
    self.backbone = create_backbone(config.backbone, axis_name=self.axis_name)
    self.feature_norm = nn.LayerNorm()
    self.camera_model = CameraModel(config.camera_hidden, config.camera_log_variance)
    if config.branches != 'posterior':
      self.prior_net = PriorNet(config.prior_hidden, config.pose_components)
      if config.prior_sigma == 'learned':
        self.prior_sigma = PriorSigma(config.prior_hidden)
    if config.branches != 'prior':
      self.vertex_regressor = VertexRegressor(
        config.attention, self.length_unit_m, config.min_log_variance, config.max_log_variance
      )

    if config.texture.enabled:
      self.texture_regressor = TextureRegressor(config.texture)

  def __call__(
    self,
    images: Float[Array, 'batch side side 3'],
    model: ManoModel,
    train: bool,
    hand_mask: Bool[Array, 'batch side side'] | None = None,
    hidden: HiddenRegion | None = None,
    features: ImageFeatures | None = None,
  ) -> HandEstimate:
    """Estimates hands from normalised RGB crops; Gaussians in metres, hand frame, and the crop.

    `hand_mask` and `hidden` are for the texture branch, which takes a vertex for hidden where
    another part of the hand is before it, where a pixel of `hand_mask` (what the photo shows of the
    hand) is not set, and in the region `hidden`. `features`, where they are known, stand for the
    backbone, which does not run; the images then count for nothing.
    """
    features = self._features(images, train, features)
    feature = features.global_feature
    camera = self.camera_model(feature)
    parameters = prior = posterior = None
    if self.config.branches != 'posterior':
      parameters = self.prior_net(feature, model)
      prior = self._prior(model, feature, parameters)
    if self.config.branches != 'prior':
      posterior = self._posterior(model, feature, prior)
    colors = None
    if self.config.texture.enabled:
      vertices = (prior if posterior is None else posterior).mean
      colors = self._colors(model, features, vertices, camera.mean, hand_mask, hidden)
    return HandEstimate(
      parameters=parameters,
      camera=camera,
      prior=self._propagate(prior, camera, model),
      posterior=self._propagate(posterior, camera, model),
      vertex_colors=colors,
    )

  def estimate_camera(
    self,
    images: Float[Array, 'batch side side 3'],
    train: bool,
    features: ImageFeatures | None = None,
  ) -> DiagonalGaussian:
    """The camera alone, for `apply(..., method='estimate_camera')`: needs no hand model, and only
    the variables of `CAMERA_MODULES`."""
    return self.camera_model(self._features(images, train, features).global_feature)

  def _features(self, images: Array, train: bool, features: ImageFeatures | None) -> ImageFeatures:
    """Gives the backbone's features, or those known already, with a normalised global vector."""
    if features is None:
      features = self.backbone(images, train)
    return features._replace(global_feature=self.feature_norm(features.global_feature))

  def _unit_log_variance(self) -> float:
    """log(length_unit_m^2): what log-variances counted in the length unit gain in metres."""
    return 2 * math.log(self.length_unit_m)

  def _prior(
    self, model: ManoModel, feature: Array, parameters: HandParameters
  ) -> DiagonalGaussian:
    mean = jax.vmap(hand_frame_vertices, in_axes=(None, 0))(model, parameters)
    log_variance = jnp.full_like(mean, self._unit_log_variance())
    if self.config.prior_sigma == 'learned':
      log_variance += self.prior_sigma(feature, model)
    return DiagonalGaussian(mean, log_variance)

  def _posterior(
    self, model: ManoModel, feature: Array, prior: DiagonalGaussian | None
  ) -> DiagonalGaussian:
    template_joints = regress_joints(model, model.v_template)
    origin = template_joints[:1]
    offset, log_variance = self.vertex_regressor(
      model.v_template - origin, template_joints - origin, feature
    )
    if self.config.vertex_offset_from == 'template':
      base = jnp.expand_dims(model.v_template - origin, 0)
    else:
      base = prior.mean
    return DiagonalGaussian(base + offset, log_variance + self._unit_log_variance())

  def _colors(
    self,
    model: ManoModel,
    features: ImageFeatures,
    vertices_hand: Array,
    camera_mean: Array,
    hand_mask: Array | None,
    hidden: HiddenRegion | None,
  ) -> Array:
    side = self.config.image_size
    camera = camera_from_vector(camera_mean)
    vertices_image = vertices_in_crop(camera, vertices_hand, side)
    visible = visible_vertices(vertices_image, model.faces, side, side, HIDING_DISTANCE, hand_mask)
    normals = vertex_normals(vertices_image, model.faces)
    template = model.v_template - regress_joints(model, model.v_template)[:1]
    if hidden is not None:
      visible = visible & ~hidden_vertices(hidden, template, normals)
    points = normalize_points(vertices_image[..., :2], side)
    return self.texture_regressor(features, points, visible, template, normals)

  def _propagate(
    self, vertices: DiagonalGaussian | None, camera: DiagonalGaussian, model: ManoModel
  ) -> HandGaussians | None:
    if vertices is None:
      return None
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


def render_estimate(estimate: HandEstimate, model: ManoModel, side: int) -> RenderedHand:
  """The estimated hand with its colours, drawn into crops of that side by its estimated camera."""
  gaussians = estimate.prior if estimate.posterior is None else estimate.posterior
  camera = camera_from_vector(estimate.camera.mean)
  vertices_image = vertices_in_crop(camera, gaussians.vertices.mean, side)
  return render_vertex_colors(vertices_image, model.faces, estimate.vertex_colors, side, side)


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
