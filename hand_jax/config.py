"""Frozen dataclasses that describe one experiment.

Their values are checked in `setting_checks.py`.
The named experiments live in `experiments/configs/names.py`. Overrides and JSON are handled in
`config_text.py`.
"""

import dataclasses
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
  # Begins with the photo's own colour at a visible vertex, and with the mean of these colours at
  # another. The branch then only learns what to add. False is Algorithm 4 as printed.
  photo_colors: bool = False


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
  # How the coordinates of a likelihood count for its mean: each by its own precision, as the
  # likelihood says, or all alike (see `losses.evenly_weighted_nll`). 'gaussian' alone uses it.
  coordinate_weights: Literal['likelihood', 'even'] = 'likelihood'
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
  # Weighs the term that compares the drawn hand with the hand mask, where there is one
  # (hand_jax/silhouette_loss.py). The hand is drawn softly into a picture of `silhouette_side`
  # pixels, with a softness of `silhouette_sigma` square pixels. Not for the photometric kind.
  silhouette: float = 0.0
  silhouette_side: int = 56
  silhouette_sigma: float = 0.02
  # How a pixel's difference of colours counts (losses.py). The first two draw the hand hard. 'soft'
  # is robust and draws it softly over the photo, so that its outline has a gradient too.
  photometric: Literal['squared', 'robust', 'soft'] = 'squared'
  # Adds the photometric term to the kinds 'gaussian', 'l2' and 'elbo'. Vertices, camera and colours
  # then learn together, and the network needs its texture branch.
  photometric_weight: float = 0.0
  # Softness of 'soft': in square pixels of the crop, and in nearness (see `soft_blend`).
  photometric_sigma: float = 0.2
  photometric_gamma: float = 0.01


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
