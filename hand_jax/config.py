"""Frozen dataclasses that describe one experiment, and the checks of their values.

The named experiments live in `experiments/configs/names.py`. Overrides and JSON are handled in
`config_text.py`.
"""

import dataclasses
import math
from typing import Any, Literal

# Maps each set of weights that comes with the package to the backbone that it fits.
PRETRAINED = {'imagenet': 'efficientnet_lite0', 'hands': 'hand_landmark'}
FEATURE_SIDE = 224
"""Side in pixels of the crops whose backbone features a prepared data set may store."""


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
  """The image encoder and its starting weights.

  Each value of `pretrained` fits one backbone, see `PRETRAINED`. Other backbones take a file in
  `weights`. To freeze the parameters, set `optimizer.backbone_learning_rate_scale` to 0.
  'hand_landmark' has no batch statistics, so `batch_norm` does not affect it.
  """

  name: Literal['resnet50', 'efficientnet_b0', 'efficientnet_lite0', 'hand_landmark', 'tiny'] = (
    'resnet50'
  )
  pretrained: Literal['none', 'imagenet', 'hands'] = 'none'
  weights: str = ''  # a torchvision .pth or .safetensors file, or empty
  # 'frozen' normalises with the running statistics and never updates them.
  batch_norm: Literal['train', 'frozen'] = 'train'


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
  """AMVUR's blocks: cross-attention (vertices over joints), then self-attention over vertices.

  With `coarse_vertices` 0 the blocks attend over every vertex (Table 1). A positive number attends
  over that many evenly spread vertices, whose outputs are then blended into the others. The
  authors' release does so too: it regresses 195 vertices and upsamples them.

  `image_features` 'global' gives every token the pooled vector alone (Table 1). 'sampled' adds what
  the image shows where the prior's joint or vertex is: samples of the maps, reduced to
  `map_channels`, and with the landmark network how far its points are from the prior's joints
  (`hand_jax/models/image_evidence.py`).
  """

  width: int = 512
  heads: int = 4
  cross_layers: int = 1
  self_layers: int = 4
  mlp_ratio: int = 4
  coarse_vertices: int = 0
  image_features: Literal['global', 'sampled'] = 'global'
  map_channels: int = 0  # 0 samples no maps
  # Keeps AMVUR's gradient out of the mesh that it adds offsets to, so that the prior-net learns
  # from the divergence and from `loss.prior_vertices` alone.
  stop_base_gradient: bool = False
  # How often AMVUR refines its mesh, once or twice, with the same parameters. The second round
  # samples anew.
  rounds: int = 1


@dataclasses.dataclass(frozen=True)
class TextureConfig:
  """The texture branch (Table 1), which colours all vertices from features at the visible ones.

  It is trained alone on a finished network (`loss.kind` 'photometric', Algorithm 4).
  """

  enabled: bool = False
  width: int = 512
  heads: int = 4
  self_layers: int = 2
  mlp_ratio: int = 4
  # Adds the estimated mesh's normals to Table 1's template positions, because light depends on
  # them.
  normals: bool = False
  # Training hides up to this share of a hand's vertices from the branch, whole regions at a time,
  # so that it learns to colour what a photo does not show. 0 is Algorithm 4 as printed.
  hidden_fraction: float = 0.0


@dataclasses.dataclass(frozen=True)
class AnatomyConfig:
  """The covariance of the prior's vertices where `prior_sigma` is 'anatomical'.

  The prior hand is uncertain in its joint angles and shape numbers. Beside this every vertex has an
  error of its own. See docs/derivations.md.
  """

  # An angle's deviation is this share of its joint's range about that axis. 'learned' multiplies
  # each by a factor that is read from the image and starts near 1.
  angle_share: float = 0.15
  angle_deviations: Literal['stated', 'learned'] = 'stated'
  # How far a vertex lies from any hand of the model, in length units and along each axis.
  vertex_sigma: float = 0.2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network. Lengths behind log-variances are in units of `loss.length_unit_m`."""

  image_size: int = 224
  backbone: BackboneConfig = BackboneConfig()
  prior_hidden: tuple[int, ...] = (1024, 512)
  camera_hidden: tuple[int, ...] = (512,)
  pose_components: int = 45  # fewer than 45 regress PCA coefficients of the model's pose space
  attention: AttentionConfig = AttentionConfig()
  texture: TextureConfig = TextureConfig()
  # Which branches join the camera model: the prior-net (Algorithm 5), AMVUR ('posterior',
  # Algorithm 6) or both (Algorithm 1).
  branches: Literal['both', 'prior', 'posterior'] = 'both'
  # The mesh that AMVUR's mean head adds its offsets to.
  vertex_offset_from: Literal['template', 'prior'] = 'template'
  # The prior's deviation is one length unit everywhere (Figure 2), or is read from the image, or
  # follows from the hand model: then a bent finger is likelier than a dent of the same size.
  prior_sigma: Literal['unit', 'learned', 'anatomical'] = 'unit'
  anatomy: AnatomyConfig = AnatomyConfig()  # of 'anatomical' alone
  # Bounds of the vertex log-variance, in units of length_unit_m squared.
  min_log_variance: float = -8.0
  max_log_variance: float = 6.0
  # The camera's log-variance before training, of its stored numbers. Drawing cameras settles near
  # -5.5; at 0 an untrained head's draws are noise that drowns the hand.
  camera_log_variance: float = -5.5
  # What backbone and attention blocks compute in. Parameters, batch statistics, heads, losses and
  # geometry are float32 in any case.
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The objective, the weights of its terms by name, and the convention of the derivations.

  `kind` 'gaussian' is the supervised objective, and 'elbo' the weakly supervised one, which samples
  and needs 2D joints alone. 'l2' takes squared errors. 'photometric' trains the texture branch
  alone.
  """

  kind: Literal['gaussian', 'l2', 'elbo', 'photometric'] = 'gaussian'
  convention: Literal['paper', 'exact'] = 'paper'
  length_unit_m: float = 0.01
  vertices: float = 1.0
  joints: float = 1.0
  joints_2d: float = 1.0
  camera: float = 1.0
  kl: float = 1.0  # multiplies the KL part of each Gaussian term
  # Multiplies the likelihood part of the vertices. 0 takes no label of theirs and leaves their
  # divergence, which needs none and holds AMVUR's depth.
  vertices_likelihood: float = 1.0
  # Weighs the vertices' likelihood under the prior branch's own Gaussian. 'gaussian' alone uses it.
  prior_vertices: float = 0.0
  joint_limits: float = 0.0
  shape_prior: float = 0.0
  pose_prior: float = 0.0
  # 2D losses project by the rotation, or by its six stored numbers without orthonormalising them
  # (see `project_points_affine`). The term `orthonormality` pulls those towards a rotation.
  projection: Literal['orthonormal', 'affine'] = 'orthonormal'
  orthonormality: float = 0.0
  # Only 'elbo' uses the next five.
  joints_2d_prior: float = 1.0  # weighs the likelihood of the prior-net's samples (Algorithm 2)
  likelihood_sigma: float = 0.05  # deviation of a 2D label in `exact`, in crop units ([-1, 1])
  samples: int = 1  # per example and branch
  sampling_scale: float = 1.0  # of the vertices' deviation while sampling
  camera_sampling_scale: float = 1.0  # of the camera's
  # One camera for the samples of both branches (Algorithm 2, step 5), or one of its own for each.
  camera_draws: Literal['one', 'two'] = 'one'
  # J3D is B V of the vertices drawn, or drawn by itself from N_B (steps 7 and 9, eq. 24).
  joint_draws: Literal['regressed', 'drawn'] = 'regressed'
  # What is drawn with: the deviations that the convention and the camera model say, or the letter
  # of Algorithm 2, N(mu_gamma, diag(1)) and N(mu, diag(sigma)) with sigma as a variance.
  drawn_sigmas: Literal['predicted', 'printed'] = 'predicted'
  # The deviation of the camera prior's scale, in crop units per decimetre (eq. 25 has 1). A hand's
  # scale is about 0.7, so that 1 would let it run away.
  scale_prior_sigma: float = 1.0
  # Of the photometric kind alone: how a pixel's difference of colours counts, see losses.py.
  photometric: Literal['squared', 'robust'] = 'squared'


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW with linear warm-up and cosine decay to `final_fraction` of the learning rate."""

  learning_rate: float = 1e-4
  # Multiplies the backbone's learning rate. 0 freezes the backbone: its backward pass is not
  # computed, and its gradient does not count in the clipped norm.
  backbone_learning_rate_scale: float = 1.0
  warmup_steps: int = 500
  final_fraction: float = 0.01
  weight_decay: float = 1e-4
  # 0: off. Norms of the experiments' gradients are 10 to 120 from the first step to the last, so
  # that 1 shortens every one: batches count by their direction, and a bad one no more than others.
  gradient_clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
  """Random changes of a training crop. Zero switches a change off."""

  rotation_degrees: float = 30.0
  scale_fraction: float = 0.15
  shift_fraction: float = 0.08
  color_strength: float = 0.2


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where examples come from. An empty `data_dir` renders synthetic hands on the fly.

  `labels` '2d' gives training batches 2D joints alone, whatever else the data set holds.

  `features` 'cached' trains on the features that the frozen landmark network computed from crops
  and that `prepare_dataset --with_features` stored, so training decodes no photo. The crops were
  augmented when they were stored, and `augmentation` is not applied. Evaluation reads photos in
  any case.

  `max_landmark_error` above 0 trains only on examples whose 2D joints the landmark network finds
  with at most that error, as a share of half the hand's size (hand_jax/data/landmark_errors.py).
  `prepare_dataset --with_features` stored the errors. Validation and evaluation keep all examples.

  With `upright` every crop is turned so that the middle finger's base lies straight above the
  wrist, before any augmentation, in training, evaluation and use. The landmark network was trained
  on such crops. Cached features have to be of the same kind of crops.

  `hands` names the kind of rendered hands (docs/synthetic_hands.md): the sampler of their poses,
  or 'displaced' for broad poses of meshes outside the shape space. Prepared synthetic hands to
  train on have to be of the same kind. Data sets of photos ignore it.
  """

  dataset: str = 'synthetic_hands'
  hands: Literal['classic', 'broad', 'displaced'] = 'broad'
  labels: Literal['3d', '2d'] = '3d'
  features: Literal['none', 'cached'] = 'none'
  data_dir: str = ''
  train_split: str = 'train'
  validation_split: str = 'validation'
  # Largest number of training examples. 0 takes all, but rendering on the fly needs a number.
  train_examples: int = 0
  max_landmark_error: float = 0.0  # 0 sets no limit
  crop_factor: float = 2.0  # crop side over the larger side of the hand's box
  upright: bool = False
  # Side in pixels of the pictures rendered on the fly. 0 takes model.image_size.
  render_size: int = 0
  render_workers: int = 1  # threads that make batches beside the training step
  seed: int = 0  # decides the examples rendered on the fly (training.seed decides the run)
  augmentation: AugmentationConfig = AugmentationConfig()


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """The run's length, intervals in steps, seed and starting parameters.

  `batch_size` counts examples over all devices and hosts. `init_from` lists the workdirs whose
  newest parameters a new run copies where their names match, and earlier workdirs take precedence.
  `camera_prior` is the workdir of the frozen camera model that gives the elbo's mu_C.

  The `keep_checkpoints` newest checkpoints are kept. Where `best_metric` names a validation figure,
  such as 'validation_total', the checkpoint with its lowest value is kept too. A step whose numbers
  are not finite is skipped, and `max_skipped_steps` of them in a row end the run.
  """

  num_steps: int = 10000
  batch_size: int = 32
  seed: int = 0
  log_every: int = 50
  evaluate_every: int = 1000
  checkpoint_every: int = 1000
  keep_checkpoints: int = 2
  best_metric: str = ''
  max_skipped_steps: int = 10
  validation_examples: int = 256
  init_from: tuple[str, ...] = ()
  camera_prior: str = ''
  # The same step on all devices by `pmap`, or by `jit` of `shard_map` over a mesh.
  parallel: Literal['pmap', 'mesh'] = 'pmap'
  # Parts that a device computes its share of the batch in, one after the other, to save memory.
  # Batch normalisation sees each part apart, and updates its running statistics with each.
  accumulate_steps: int = 1
  # 'blocks' computes the activations of backbone and attention blocks again in the backward pass
  # instead of keeping them.
  remat: Literal['none', 'blocks'] = 'none'


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """The whole configuration of one experiment. It is written to the workdir and read from there."""

  name: str = 'synthetic_supervised'
  model: ModelConfig = ModelConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  data: DataConfig = DataConfig()
  training: TrainingConfig = TrainingConfig()


def validate_config(config: ExperimentConfig) -> ExperimentConfig:
  """Checks that the settings can be used together, and returns the same config.

  Raises:
    ValueError: a setting cannot be used. The text gives its full name and the expected value.
  """
  for path, value in flatten_config(config).items():
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{path} should be a finite number, got {value}.')
  model, training, data = config.model, config.training, config.data
  augmentation = data.augmentation
  _positive('model.image_size', model.image_size)
  _positive('model.attention.width', model.attention.width)
  _positive('model.attention.heads', model.attention.heads)
  _positive('model.attention.mlp_ratio', model.attention.mlp_ratio)
  for name in ('cross_layers', 'self_layers', 'coarse_vertices', 'map_channels'):
    if (count := getattr(model.attention, name)) < 0:
      raise ValueError(f'model.attention.{name} should not be negative, got {count}.')
  _between('model.attention.rounds', model.attention.rounds, 1, 2)
  _check_texture(model.texture)
  for name in ('prior_hidden', 'camera_hidden'):
    for width in getattr(model, name):
      _positive(f'model.{name}', width)
  _positive('loss.length_unit_m', config.loss.length_unit_m)
  _positive('optimizer.learning_rate', config.optimizer.learning_rate)
  _positive('data.crop_factor', data.crop_factor)
  counts = ('num_steps', 'batch_size', 'log_every', 'evaluate_every', 'checkpoint_every')
  for name in (*counts, 'accumulate_steps'):
    _positive(f'training.{name}', getattr(training, name))
  for name in ('keep_checkpoints', 'max_skipped_steps'):
    _positive(f'training.{name}', getattr(training, name))
  if training.best_metric and not training.best_metric.startswith('validation_'):
    raise ValueError(
      'training.best_metric should be a validation figure such as validation_total, or empty, got '
      f'{training.best_metric!r}.'
    )
  for path, seed in (('training.seed', training.seed), ('data.seed', data.seed)):
    if seed < 0:
      raise ValueError(f'{path} should not be negative, got {seed}.')
  _between('model.pose_components', model.pose_components, 1, 45)
  _between('data.augmentation.scale_fraction', augmentation.scale_fraction, 0, 0.9)
  _between('data.augmentation.color_strength', augmentation.color_strength, 0, 0.9)
  if model.attention.width % model.attention.heads:
    raise ValueError(
      f'model.attention.width should be a multiple of model.attention.heads '
      f'({model.attention.heads}), got {model.attention.width}.'
    )
  if model.min_log_variance >= model.max_log_variance:
    raise ValueError(
      f'model.min_log_variance should be below model.max_log_variance '
      f'({model.max_log_variance}), got {model.min_log_variance}.'
    )
  if not model.min_log_variance < 0 < model.max_log_variance:
    raise ValueError(
      'model.min_log_variance should be below zero and model.max_log_variance above it, where an '
      f'untrained network starts; got {model.min_log_variance} and {model.max_log_variance}.'
    )
  _check_objective(config)
  _check_image_features(model)
  pretrained = model.backbone.pretrained
  if pretrained != 'none' and model.backbone.name != (meant := PRETRAINED.get(pretrained)):
    raise ValueError(
      f'model.backbone.pretrained={pretrained!r} exists for {meant} alone, not for '
      f'{model.backbone.name}: give a file in model.backbone.weights.'
    )
  _check_cached_features(config)
  _check_landmark_limit(data)
  if not data.data_dir and data.dataset != 'synthetic_hands':
    raise ValueError(
      f'data.data_dir should name the folder of the prepared {data.dataset}: only synthetic_hands '
      'can be rendered on the fly.'
    )
  if not data.data_dir and data.train_examples <= 0:
    raise ValueError(
      'data.train_examples should be positive when examples are rendered on the fly '
      '(data.data_dir is empty).'
    )
  return config


def _check_texture(texture: TextureConfig) -> None:
  for name in ('width', 'heads', 'mlp_ratio'):
    _positive(f'model.texture.{name}', getattr(texture, name))
  if texture.self_layers < 0:
    raise ValueError(
      f'model.texture.self_layers should not be negative, got {texture.self_layers}.'
    )
  if texture.width % texture.heads:
    raise ValueError(
      f'model.texture.width should be a multiple of model.texture.heads ({texture.heads}), got '
      f'{texture.width}.'
    )
  _between('model.texture.hidden_fraction', texture.hidden_fraction, 0, 0.95)


def _check_objective(config: ExperimentConfig) -> None:
  """Refuses a loss that the chosen branches of the network cannot serve."""
  model, loss = config.model, config.loss
  if model.texture.enabled != (loss.kind == 'photometric'):
    raise ValueError(
      "model.texture.enabled and loss.kind='photometric' go together: the texture branch is "
      f'trained alone, the rest without it. Got {model.texture.enabled} and {loss.kind!r}.'
    )
  if model.branches != 'both' and loss.kind not in ('l2', 'photometric'):
    raise ValueError(
      f'loss.kind={loss.kind!r} compares the posterior with the prior, which needs '
      f"model.branches='both', got {model.branches!r}: train one branch alone with loss.kind='l2'."
    )
  if model.branches == 'posterior' and model.vertex_offset_from != 'template':
    raise ValueError(
      "model.branches='posterior' has no prior's mesh to add to: expected "
      f"model.vertex_offset_from='template', got {model.vertex_offset_from!r}."
    )
  if model.prior_sigma == 'anatomical' and loss.convention != 'exact':
    raise ValueError(
      "model.prior_sigma='anatomical' has common causes, which the printed equations do not know: "
      f"expected loss.convention='exact', got {loss.convention!r}."
    )
  _positive('model.anatomy.angle_share', model.anatomy.angle_share)
  _positive('model.anatomy.vertex_sigma', model.anatomy.vertex_sigma)
  _positive('loss.likelihood_sigma', loss.likelihood_sigma)
  _positive('loss.samples', loss.samples)
  _positive('loss.scale_prior_sigma', loss.scale_prior_sigma)
  _between('model.camera_log_variance', model.camera_log_variance, -7.5, 7.5)
  for name in ('sampling_scale', 'camera_sampling_scale', 'prior_vertices'):
    if getattr(loss, name) < 0:
      raise ValueError(f'loss.{name} should not be negative, got {getattr(loss, name)}.')


def _check_image_features(model: ModelConfig) -> None:
  """Refuses image features that the backbone or the branches cannot serve."""
  attention = model.attention
  if attention.image_features == 'global':
    if attention.rounds != 1 or attention.map_channels:
      raise ValueError(
        'model.attention.rounds and model.attention.map_channels refine what is sampled: expected '
        f"1 and 0 with model.attention.image_features='global', got {attention.rounds} and "
        f'{attention.map_channels}.'
      )
    return
  if model.branches != 'both':
    raise ValueError(
      "model.attention.image_features='sampled' reads the image where the prior's mesh is, which "
      f"needs model.branches='both', got {model.branches!r}."
    )
  if model.backbone.name != 'hand_landmark' and not attention.map_channels:
    raise ValueError(
      f"model.attention.image_features='sampled' has nothing to sample: {model.backbone.name} "
      'gives no landmarks. Set model.attention.map_channels to a positive number, or take '
      'model.backbone.name=hand_landmark.'
    )


def _check_cached_features(config: ExperimentConfig) -> None:
  """Refuses cached features where the training needs the photo itself."""
  if config.data.features != 'cached':
    return
  wanted = {
    'model.backbone.name': 'hand_landmark',
    'model.backbone.pretrained': 'hands',
    'optimizer.backbone_learning_rate_scale': 0,
    'model.image_size': FEATURE_SIDE,
    'model.texture.enabled': False,
  }
  flat = flatten_config(config)
  for path, value in wanted.items():
    if flat[path] != value:
      text = str(value).lower() if isinstance(value, bool) else value
      raise ValueError(
        f"data.features='cached' holds the vector of the frozen landmark network for crops of "
        f'{FEATURE_SIDE} px: expected {path}={text}, got {flat[path]}.'
      )
  if not config.data.data_dir:
    raise ValueError(
      "data.features='cached' reads a prepared data set: name its folder in data.data_dir "
      '(prepare_dataset --with_features).'
    )


def _check_landmark_limit(data: DataConfig) -> None:
  """Refuses a limit of landmark errors where no errors are stored."""
  if data.max_landmark_error < 0:
    raise ValueError(
      f'data.max_landmark_error should not be negative, got {data.max_landmark_error}.'
    )
  if data.max_landmark_error and not data.data_dir:
    raise ValueError(
      f'data.max_landmark_error={data.max_landmark_error:g} reads the errors of a prepared data '
      'set: name its folder in data.data_dir (prepare_dataset --with_features).'
    )


def flatten_config(node: Any, prefix: str = '') -> dict[str, Any]:
  """Lists every setting by its full name, such as `model.image_size`.

  Args:
    node: a config, or one of its groups.
    prefix: what each name begins with.
  """
  flat = {}
  for field in dataclasses.fields(node):
    value = getattr(node, field.name)
    path = f'{prefix}{field.name}'
    flat.update(
      flatten_config(value, f'{path}.') if dataclasses.is_dataclass(value) else {path: value}
    )
  return flat


def _positive(path: str, value: float | int) -> None:
  if not value > 0:
    raise ValueError(f'{path} should be positive, got {value}.')


def _between(path: str, value: float | int, low: float | int, high: float | int) -> None:
  if not low <= value <= high:
    raise ValueError(f'{path} should be between {low} and {high}, got {value}.')
