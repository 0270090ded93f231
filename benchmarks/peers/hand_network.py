"""The whole network of Table 1 in PyTorch, with the MANO layer of smplx."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.attention import EPSILON, VertexRegressor
from benchmarks.peers.backbones import BACKBONES
from benchmarks.peers.mano import smplx_layer
from hand_jax.config import ExperimentConfig
from hand_jax.geometry.cameras import SCALE_UNIT_M
from hand_jax.mano.model import extended_joint_regressor, regress_joints
from hand_jax.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from hand_jax.models.prior_net import INITIAL_CAMERA, MAX_CAMERA_LOG_VARIANCE
from hand_jax.propagation import MIN_SCALE_PER_M
from hand_jax.types import ManoModel


class Branch(NamedTuple):
  """Means and log-variances of vertices, joints (metres) and projections (crop units)."""

  vertices: tuple[torch.Tensor, torch.Tensor]
  joints: tuple[torch.Tensor, torch.Tensor]
  joints_2d: tuple[torch.Tensor, torch.Tensor]


class Estimate(NamedTuple):
  """What the network gives."""

  prior: Branch
  posterior: Branch
  camera: tuple[torch.Tensor, torch.Tensor]
  pose: torch.Tensor
  betas: torch.Tensor


class Mlp(nn.Module):
  """Dense layers with a GELU between them."""

  def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int):
    super().__init__()
    self.count = len(hidden)
    for number, width in enumerate(hidden):
      self.add_module(f'Dense_{number}', nn.Linear(inputs, width))
      inputs = width
    self.output = nn.Linear(inputs, outputs)

  def forward(self, x):
    """Applies the layers."""
    for number in range(self.count):
      x = F.gelu(getattr(self, f'Dense_{number}')(x), approximate='tanh')
    return self.output(x)


class PriorNet(nn.Module):
  """Reads principal components of the pose, and the shape."""

  def __init__(self, channels: int, hidden: tuple[int, ...], outputs: int):
    super().__init__()
    self.mlp = Mlp(channels, hidden, outputs)

  def forward(self, feature):
    """Applies the layers."""
    return self.mlp(feature)


class CameraModel(nn.Module):
  """Reads a Gaussian over the camera's ten numbers."""

  def __init__(self, channels: int, hidden: tuple[int, ...], initial: float):
    super().__init__()
    self.mean = Mlp(channels, hidden, len(INITIAL_CAMERA))
    self.log_variance = Mlp(channels, hidden, len(INITIAL_CAMERA))
    self.register_buffer('start', torch.tensor(INITIAL_CAMERA))
    self.initial = initial

  def forward(self, feature):
    """Estimates mean and log-variance."""
    bound = MAX_CAMERA_LOG_VARIANCE
    raw = self.log_variance(feature) + bound * math.atanh(self.initial / bound)
    return self.start + self.mean(feature), bound * torch.tanh(raw / bound)


class HandNetwork(nn.Module):
  """Backbone, prior-net, camera model and AMVUR, as `synthetic_supervised` has them."""

  def __init__(self, config: ExperimentConfig, model: ManoModel, batch: int):
    super().__init__()
    settings, self.unit = config.model, config.loss.length_unit_m
    channels = 2048 if settings.backbone.name == 'resnet50' else 1280
    self.components = settings.pose_components
    self.backbone = BACKBONES[settings.backbone.name]()
    self.feature_norm = nn.LayerNorm(channels, eps=EPSILON)
    self.camera_model = CameraModel(channels, settings.camera_hidden, settings.camera_log_variance)
    shapes = model.shapedirs.shape[-1]
    self.prior_net = PriorNet(channels, settings.prior_hidden, self.components + shapes)
    self.vertex_regressor = VertexRegressor(settings, channels, self.unit)
    self.mano = smplx_layer(model, batch).requires_grad_(False)
    template_joints = regress_joints(model, model.v_template)
    origin = template_joints[:1]
    constants = {
      'mean': np.asarray(IMAGENET_MEAN, np.float32),
      'std': np.asarray(IMAGENET_STD, np.float32),
      'components_': np.asarray(model.hands_components[: self.components]),
      'hands_mean': np.asarray(model.hands_mean),
      'template': np.asarray(model.v_template - origin),
      'template_joints': np.asarray(template_joints - origin),
      'regressor': np.asarray(extended_joint_regressor(model)),
    }
    for name, value in constants.items():
      self.register_buffer(name, torch.tensor(value))

  def forward(self, images: torch.Tensor) -> Estimate:
    """Estimates hands from uint8 RGB crops (batch, height, width, 3)."""
    images = (images.float() - self.mean) / self.std
    images = images.permute(0, 3, 1, 2)  # channels last in memory
    feature = self.feature_norm(self.backbone(images))
    camera = self.camera_model(feature)
    outputs = self.prior_net(feature)
    pose = outputs[:, : self.components] @ self.components_ + self.hands_mean
    betas = outputs[:, self.components :]
    zeros = outputs.new_zeros((len(outputs), 3))
    posed = self.mano(global_orient=zeros, hand_pose=pose, betas=betas, transl=zeros).vertices
    posed = posed - (self.regressor @ posed)[:, :1]
    known = torch.full_like(posed, 2 * math.log(self.unit))
    offset, log_variance = self.vertex_regressor(self.template, self.template_joints, feature)
    amvur = (self.template + offset, log_variance + 2 * math.log(self.unit))
    prior, posterior = (self.propagate(v, camera[0]) for v in ((posed, known), amvur))
    return Estimate(prior, posterior, camera, pose, betas)

  def propagate(self, vertices, camera) -> Branch:
    """Propagates a Gaussian over vertices to joints and projections, eqs. 13 and 17."""
    mean, log_variance = vertices
    joints = self.regressor @ mean
    joint_variance = 2 * torch.log(self.regressor @ torch.exp(0.5 * log_variance))
    columns = rotation_columns(camera)
    scale = camera[:, 9:, None] / SCALE_UNIT_M
    projected = scale * (joints @ columns) + camera[:, None, 6:8]
    sigma = torch.exp(0.5 * joint_variance) / self.unit
    scale_squared = torch.clamp(scale**2, min=MIN_SCALE_PER_M**2)
    variance = torch.log(sigma @ columns**2) + torch.log(scale_squared) + 2 * math.log(self.unit)
    return Branch(vertices, (joints, joint_variance), (projected, variance))


def rotation_columns(camera: torch.Tensor) -> torch.Tensor:
  """Builds the first two columns of the cameras' rotations by Gram-Schmidt."""
  first = F.normalize(camera[:, :3], dim=-1)
  second = camera[:, 3:6]
  second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
  return torch.stack([first, second], -1)
