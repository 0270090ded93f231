"""The whole network, from an image to a `HandEstimate` (Algorithms 1 and 3)."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flax.core
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from hand_jax.config import BackboneConfig, ExperimentConfig, ModelConfig
from hand_jax.gaussian import Convention
from hand_jax.geometry.cameras import camera_from_vector, normalize_points, vertices_in_crop
from hand_jax.low_rank import marginals
from hand_jax.mano.model import extended_joint_regressor, regress_joints
from hand_jax.models.anatomical_prior import AnatomicalPrior
from hand_jax.models.backbone import create_backbone, display_image, load_backbone_variables
from hand_jax.models.branches import best_branch
from hand_jax.models.computing import Computing
from hand_jax.models.image_evidence import ImageEvidence
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.models.prior_net import CameraModel, PriorNet, PriorSigma, hand_frame_vertices
from hand_jax.models.texture_regressor import HiddenRegion, TextureRegressor, hidden_vertices
from hand_jax.models.vertex_regressor import VertexRegressor, query_vertices
from hand_jax.propagation import hand_gaussians
from hand_jax.rendering.images import render_vertex_colors
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.rendering.soft import soft_blend
from hand_jax.rendering.surfaces import vertex_normals
from hand_jax.types import (
  DiagonalGaussian,
  HandEstimate,
  HandGaussians,
  HandParameters,
  ImageFeatures,
  LowRankGaussian,
  ManoModel,
  RenderedHand,
)

BACKBONE = 'backbone'
# `HandNetwork.estimate_camera` needs the variables of these modules alone.
CAMERA_MODULES = (BACKBONE, 'feature_norm', 'camera_model')
TEXTURE_REGRESSOR = 'texture_regressor'
VERTEX_REGRESSOR = 'vertex_regressor'
# A face must be nearer to the camera than a vertex by more than this (pixels) to hide it. Otherwise
# copies of a vertex along a seam would hide each other.
HIDING_DISTANCE = 0.01


class HandNetwork(nn.Module):
  """Backbone, prior-net, camera model and AMVUR, which give Gaussians over vertices and joints."""

  config: ModelConfig
  """The architecture. Its `branches` may leave out the prior-net or AMVUR, and its `texture` adds
  vertex colours."""
  convention: Convention
  """How variances propagate from vertices to joints, see `hand_jax.propagation`."""
  length_unit_m: float
  """The length unit of log-variances, in metres."""
  axis_name: str | None = None
  """The axis over devices to average batch statistics over."""
  remat: bool = False
  """Whether a gradient computes the activations of blocks again instead of keeping them."""

  def setup(self) -> None:
    """Makes the modules that the config asks for."""
    config = self.config
    self.backbone = create_backbone(config.backbone, self.axis_name, self.remat)
    self.feature_norm = nn.LayerNorm()
    self.camera_model = CameraModel(config.camera_hidden, config.camera_log_variance)
    if config.branches != 'posterior':
      self.prior_net = PriorNet(config.prior_hidden, config.pose_components)
      if config.prior_sigma == 'learned':
        self.prior_sigma = PriorSigma(config.prior_hidden)
      elif config.prior_sigma == 'anatomical':
        self.anatomical_prior = AnatomicalPrior(
          config.prior_hidden, config.anatomy, self.length_unit_m
        )
    if config.branches != 'prior':
      self.vertex_regressor = VertexRegressor(
        config.attention,
        self.length_unit_m,
        config.min_log_variance,
        config.max_log_variance,
        self._computing(),
      )
      if config.attention.image_features == 'sampled':
        self.image_evidence = ImageEvidence(config)

    if config.texture.enabled:
      self.texture_regressor = TextureRegressor(config.texture, self._computing())

  def __call__(
    self,
    images: Float[Array, 'batch side side 3'],
    model: ManoModel,
    train: bool,
    hand_mask: Bool[Array, 'batch side side'] | None = None,
    hidden: HiddenRegion | None = None,
    features: ImageFeatures | None = None,
  ) -> HandEstimate:
    """Estimates hands from normalised RGB crops.

    The texture branch treats a vertex as hidden in three cases: another part of the hand is in
    front of it, its pixel in `hand_mask` is False, or it lies in the region `hidden`.

    Args:
      images: crops, normalised for the backbone.
      model: a right hand's model.
      train: whether batch normalisation uses the statistics of this batch, unless it is frozen.
      hand_mask: True for pixels where the photo shows the hand. Only the texture branch uses it.
      hidden: a region to hide in training. Only the texture branch uses it.
      features: the backbone's output, if it is known already. The backbone then does not run, and
        `images` have no effect.

    Returns:
      Gaussians in metres in the hand frame, and in [-1, 1] over the crop.
    """
    features = self._features(images, train, features)
    feature = features.global_feature
    camera = self.camera_model(feature)
    parameters = prior = prior_marginals = posterior = None
    if self.config.branches != 'posterior':
      parameters = self.prior_net(feature, model)
      prior = self._prior(model, feature, parameters)
      prior_marginals = marginals(prior) if isinstance(prior, LowRankGaussian) else prior
    if self.config.branches != 'prior':
      posterior = self._posterior(model, features, prior_marginals, camera.mean)
    colors = None
    if self.config.texture.enabled:
      vertices = prior_marginals if posterior is None else posterior
      assert vertices is not None, 'a network has a prior-net, AMVUR or both'
      colors = self._colors(model, features, images, vertices.mean, camera.mean, hand_mask, hidden)
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
    """Estimates only the camera, for `apply(..., method='estimate_camera')`.

    This needs no hand model, and only the variables of `CAMERA_MODULES`.

    Args:
      images: crops, normalised for the backbone.
      train: whether batch normalisation uses the statistics of this batch, unless it is frozen.
      features: the backbone's output, if it is known already. It replaces `images`.

    Returns:
      A Gaussian over the ten stored numbers of a `HandCamera`.
    """
    return self.camera_model(self._features(images, train, features).global_feature)

  def _features(self, images: Array, train: bool, features: ImageFeatures | None) -> ImageFeatures:
    """Returns the backbone's features, or the given ones, with a normalised global vector."""
    images = self._computing().cast(images)
    found = self.backbone(images, train) if features is None else features
    return found._replace(global_feature=self.feature_norm(found.global_feature))

  def _computing(self) -> Computing:
    return Computing(self.config.compute_dtype == 'bfloat16', self.remat)

  def _unit_log_variance(self) -> float:
    """Returns log(length_unit_m^2), which converts log-variances from the length unit to metres."""
    return 2 * math.log(self.length_unit_m)

  def _prior(
    self, model: ManoModel, feature: Array, parameters: HandParameters
  ) -> DiagonalGaussian | LowRankGaussian:
    mean = jax.vmap(hand_frame_vertices, in_axes=(None, 0))(model, parameters)
    if self.config.prior_sigma == 'anatomical':
      return self.anatomical_prior(feature, model, parameters, mean)
    log_variance = jnp.full_like(mean, self._unit_log_variance())
    if self.config.prior_sigma == 'learned':
      log_variance += self.prior_sigma(feature, model)
    return DiagonalGaussian(mean, log_variance)

  def _posterior(
    self,
    model: ManoModel,
    features: ImageFeatures,
    prior: DiagonalGaussian | None,
    camera_mean: Array,
  ) -> DiagonalGaussian:
    settings = self.config.attention
    template_joints = regress_joints(model, model.v_template)
    origin = template_joints[:1]
    template = (model.v_template - origin, template_joints - origin)
    queries = query_vertices(template[0], settings)
    if self.config.vertex_offset_from == 'template' or prior is None:
      base = jnp.expand_dims(template[0], 0)
    else:
      base = jax.lax.stop_gradient(prior.mean) if settings.stop_base_gradient else prior.mean
    if settings.image_features == 'global' or prior is None:
      offset, log_variance = self.vertex_regressor(
        *template, features.global_feature, queries=queries
      )
      return DiagonalGaussian(base + offset, log_variance + self._unit_log_variance())
    seen, mean, log_variance = prior.mean, base, prior.log_variance
    for _ in range(settings.rounds):
      evidence = self.image_evidence(features, seen, camera_mean, model, queries)
      offset, log_variance = self.vertex_regressor(
        *template, features.global_feature, evidence, queries
      )
      mean = seen = mean + offset
    return DiagonalGaussian(mean, log_variance + self._unit_log_variance())

  def _colors(
    self,
    model: ManoModel,
    features: ImageFeatures,
    images: Array,
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
    seen = None
    if self.config.texture.photo_colors:
      seen = sample_bilinear(display_image(images, self.config.backbone.name), points)
    return self.texture_regressor(features, points, visible, template, normals, seen)

  def _propagate(
    self,
    vertices: DiagonalGaussian | LowRankGaussian | None,
    camera: DiagonalGaussian,
    model: ManoModel,
  ) -> HandGaussians | None:
    if vertices is None:
      return None
    regressor = extended_joint_regressor(model)

    def one_hand(vertices: DiagonalGaussian | LowRankGaussian, camera_mean: Array) -> HandGaussians:
      return hand_gaussians(
        vertices,
        camera_mean,
        regressor,
        convention=self.convention,
        length_unit_m=self.length_unit_m,
      )

    return jax.vmap(one_hand)(vertices, camera.mean)


def create_network(config: ExperimentConfig, axis_name: str | None = None) -> HandNetwork:
  """Makes the network of an experiment. In a mapped step, `axis_name` is the axis over devices."""
  remat = config.training.remat == 'blocks'
  loss = config.loss
  return HandNetwork(config.model, loss.convention, loss.length_unit_m, axis_name, remat)


def render_estimate(estimate: HandEstimate, model: ManoModel, side: int) -> RenderedHand:
  """Draws estimated hands with their colours into crops, seen by their estimated cameras.

  Args:
    estimate: the output of a network with a texture branch.
    model: a right hand's model.
    side: the side of the crops in pixels.
  """
  vertices_image, colors = _drawn_parts(estimate, side)
  return render_vertex_colors(vertices_image, model.faces, colors, side, side)


def blend_estimate(
  estimate: HandEstimate,
  model: ManoModel,
  photos: Float[Array, 'batch side side 3'],
  sigma: float,
  gamma: float,
) -> RenderedHand:
  """Draws estimated hands softly over their photos, seen by their estimated cameras.

  Unlike in `render_estimate`, the drawing has a gradient along its outline too.

  Args:
    estimate: the output of a network with a texture branch.
    model: a right hand's model.
    photos: the crops, RGB in [0, 1].
    sigma: softness in square pixels, as in `soft_blend`.
    gamma: softness in nearness, as in `soft_blend`.
  """
  side = photos.shape[1]
  vertices_image, colors = _drawn_parts(estimate, side)
  return soft_blend(vertices_image, model.faces, colors, photos, side, side, sigma, gamma)


def _drawn_parts(estimate: HandEstimate, side: int) -> tuple[Array, Array]:
  """Returns the vertices in pixels of the crop, and their colours."""
  if estimate.vertex_colors is None:
    raise ValueError('the estimate has no colours to draw: its network has no texture branch.')
  camera = camera_from_vector(estimate.camera.mean)
  return (
    vertices_in_crop(camera, best_branch(estimate).vertices.mean, side),
    estimate.vertex_colors,
  )


@contextlib.contextmanager
def naming_misfits(workdir: str) -> Iterator[None]:
  """Turns Flax's error about variables of another network into a ValueError that names the run.

  Raises:
    ValueError: the block raised Flax's error.
  """
  try:
    yield
  except flax.errors.FlaxError as error:
    reason = ' '.join(str(error).split()).split(' (http')[0]
    raise ValueError(
      f'{workdir}: its config.json describes another network than its checkpoint holds: {reason}'
    ) from None


def _init(
  network: HandNetwork, key: Array, images: Array, model: ManoModel, known: dict[str, Any]
) -> Any:
  """Draws the variables that no pretrained weights give.

  The parameters of a large backbone would take seconds to compile.
  """
  _, variables = network.apply(
    known,
    images,
    model,
    train=False,
    rngs={'params': key},
    mutable=flax.core.DenyList('intermediates'),
  )
  return variables


# Equal networks share one traced and compiled program.
_draw_variables = jax.jit(_init, static_argnums=0)
_draw_variables_soon = jax.jit(
  _init, static_argnums=0, compiler_options={'xla_backend_optimization_level': 0}
)


def initialize_network(network: HandNetwork, key: Array, model: ManoModel) -> dict:
  """Draws a network's starting variables, and loads pretrained ones of the backbone if configured.

  Args:
    network: the network.
    key: decides the random values.
    model: a right hand's model.

  Returns:
    The collections `params` and `batch_stats`.

  Raises:
    FileNotFoundError: the configured file of weights does not exist.
    ValueError: the configured weights do not fit the backbone, or their file cannot be read.
  """
  size = network.config.image_size
  images = jnp.zeros((1, size, size, 3), jnp.float32)
  # A mapped axis exists only inside a mapped step, and the variables are the same without it.
  local = network.clone(axis_name=None)
  # The function runs once, so on a CPU compiling it with little effort saves seconds. Under another
  # trace, as in `eval_shape`, nothing is compiled and JAX refuses compiler options.
  runs_on_cpu = jax.default_backend() == 'cpu' and not isinstance(key, Tracer)
  draw = _draw_variables_soon if runs_on_cpu else _draw_variables
  return draw(local, key, images, model, _pretrained_variables(network.config.backbone, images))


def _pretrained_variables(config: BackboneConfig, images: Array) -> dict:
  """Reads the network's variables that are not drawn: its pretrained backbone, where one is set."""
  if not (config.weights or config.pretrained != 'none'):
    return {}
  backbone = create_backbone(config)
  shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), images, train=False))
  loaded = load_backbone_variables(config, shapes)
  return {collection: {BACKBONE: tree} for collection, tree in loaded.items()}
