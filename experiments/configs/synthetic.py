"""Experiments on rendered hands and on the user's photos.

Most of them change a few settings of another. `python -m experiments.configs NAME` prints the
docstring of an experiment.
"""

from dataclasses import replace

from hand_jax.config import (
  AttentionConfig,
  AugmentationConfig,
  BackboneConfig,
  DataConfig,
  ExperimentConfig,
  LossConfig,
  ModelConfig,
  OptimizerConfig,
  TextureConfig,
  TrainingConfig,
)

# Algorithms 5 and 6 have squared errors in crop units and centimetres. Where there are 2D joints
# alone, the last terms supply anatomy and hand size, and the affine projection distinguishes a hand
# from its reflection in depth (docs/results.md).
L2_FULL = LossConfig(kind='l2', joints_2d=1000.0, camera=2000.0)
L2_WEAK = LossConfig(
  kind='l2',
  vertices=0.0,
  camera=0.0,
  joints_2d=1000.0,
  projection='affine',
  orthonormality=100.0,
  joint_limits=1000.0,
  shape_prior=3.0,
  pose_prior=5.0,
)
# Algorithm 2 with the changes that make it work (docs/derivations.md). The likelihood has the
# deviation of a 2D label (0.05 crop units, 3 pixels of 112), because that of eq. 19 grows with the
# drawn scale, so that a large scale hides errors. The scale stays near the camera prior's, and a
# smaller weight of the divergence lets AMVUR move.
WEAK_ELBO = LossConfig(
  kind='elbo',
  convention='exact',
  likelihood_sigma=0.05,
  kl=0.1,
  scale_prior_sigma=0.05,
  camera_draws='one',
  projection='affine',
  orthonormality=100.0,
  joint_limits=1000.0,
  shape_prior=5.0,
  pose_prior=3.0,
)
# Algorithm 2 as printed: eqs. 19, 24 and 25 with weights of one, sigmas as printed, no penalties.
WEAK_LETTER = LossConfig(
  kind='elbo',
  convention='paper',
  camera_draws='one',
  joint_draws='drawn',
  drawn_sigmas='printed',
)
# Weak squared errors with the penalties of the weak Gaussians they are compared with.
WEAK_L2 = replace(
  L2_WEAK,
  **{
    name: getattr(WEAK_ELBO, name)
    for name in ('projection', 'orthonormality', 'joint_limits', 'shape_prior', 'pose_prior')
  },
)
# The texture branch has the width and the number of heads of AMVUR.
TABLE_1_TEXTURE = TextureConfig(enabled=True, width=512, heads=4, self_layers=2, mlp_ratio=4)


def synthetic_supervised() -> ExperimentConfig:
  """Trains the paper's supervised model (Algorithm 1) at Table 1's full size, for accelerators."""
  return ExperimentConfig(
    name='synthetic_supervised',
    model=ModelConfig(
      image_size=224,
      backbone=BackboneConfig(name='resnet50'),
      prior_hidden=(1024, 512),
      camera_hidden=(512,),
      pose_components=38,  # 38 and 10 shape numbers make the 48 outputs of Table 1.
      attention=AttentionConfig(width=512, heads=4, cross_layers=1, self_layers=4),
    ),
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1000),
    data=DataConfig(hands='classic', train_examples=100_000, render_workers=4),
    training=TrainingConfig(num_steps=200_000, batch_size=64, evaluate_every=5000),
  )


def synthetic_small() -> ExperimentConfig:
  """Trains a model that suits two CPU cores, on rendered hands with 3D labels.

  It has an ImageNet-pretrained Lite0 backbone, narrow attention and coarse vertices. The loss
  weights give the terms of camera, joints and vertices one order of magnitude, because a sum over
  2334 vertex coordinates would outweigh the ten numbers of the camera.
  """
  return ExperimentConfig(
    name='synthetic_small',
    model=ModelConfig(
      image_size=112,
      backbone=BackboneConfig(name='efficientnet_lite0', pretrained='imagenet'),
      prior_hidden=(512,),
      camera_hidden=(256,),
      attention=AttentionConfig(
        width=128, heads=4, cross_layers=1, self_layers=2, mlp_ratio=2, coarse_vertices=195
      ),
      vertex_offset_from='prior',
    ),
    loss=LossConfig(convention='paper', joints=5.0, joints_2d=10.0, camera=2000.0),
    optimizer=OptimizerConfig(
      learning_rate=1e-3, backbone_learning_rate_scale=0.3, warmup_steps=100
    ),
    data=DataConfig(
      hands='classic',
      train_examples=24576,
      crop_factor=1.4,
      render_size=128,
      augmentation=AugmentationConfig(rotation_degrees=45.0),
    ),
    training=TrainingConfig(
      num_steps=4000,
      batch_size=32,
      log_every=50,
      evaluate_every=500,
      checkpoint_every=500,
      validation_examples=256,
    ),
  )


def synthetic_features() -> ExperimentConfig:
  """Trains both branches on the landmark network's cached features, with small attention.

  The landmark network was trained on real hands and stays frozen. AMVUR samples its maps at the
  prior's mesh, and gets the distances of its points from that mesh. All coordinates count alike
  for the means, and the divergence counts a tenth (docs/derivations.md).

  The experiment needs `--set data.data_dir=FOLDER` of broad hands that `prepare_dataset
  --with_features --feature_maps=16` prepared.
  """
  small = synthetic_small()
  return replace(
    small,
    name='synthetic_features',
    model=replace(
      small.model,
      image_size=224,
      backbone=BackboneConfig(name='hand_landmark', pretrained='hands'),
      attention=replace(
        small.model.attention,
        width=64,
        self_layers=1,
        coarse_vertices=64,
        image_features='sampled',
        map_channels=16,
        stop_base_gradient=True,
      ),
    ),
    loss=replace(small.loss, prior_vertices=1.0, coordinate_weights='even', kl=0.1),
    optimizer=replace(small.optimizer, backbone_learning_rate_scale=0.0),
    data=replace(
      small.data,
      hands='broad',
      features='cached',
      data_dir='prepared',
      train_examples=0,
      upright=True,
    ),
    training=replace(small.training, num_steps=3000, evaluate_every=1000, checkpoint_every=1000),
  )


def toy() -> ExperimentConfig:
  """Runs every part once in seconds, for tests and for a first look at the files of a run."""
  return ExperimentConfig(
    name='toy',
    model=ModelConfig(
      image_size=64,
      backbone=BackboneConfig(name='tiny'),
      prior_hidden=(32,),
      camera_hidden=(16,),
      pose_components=12,
      attention=AttentionConfig(width=8, heads=2, cross_layers=1, self_layers=1, mlp_ratio=2),
      vertex_offset_from='prior',
    ),
    loss=LossConfig(convention='exact'),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
    data=DataConfig(
      hands='classic',
      train_examples=16,
      augmentation=AugmentationConfig(rotation_degrees=15.0, scale_fraction=0.1),
    ),
    training=TrainingConfig(
      num_steps=12,
      batch_size=4,
      log_every=3,
      evaluate_every=6,
      checkpoint_every=6,
      validation_examples=6,
    ),
  )


def synthetic_weak() -> ExperimentConfig:
  """Trains Algorithm 2 at full size from 2D joints alone, with EfficientNet-B0, for accelerators.

  It needs `--camera_prior=WORKDIR` of a `synthetic_prior_weak` run, `--init_from` of the same run,
  and after it `--init_from` of a `synthetic_amvur_weak` run.
  """
  full = synthetic_supervised()
  return replace(
    full,
    name='synthetic_weak',
    model=replace(full.model, backbone=BackboneConfig(name='efficientnet_b0')),
    loss=WEAK_ELBO,
    data=replace(full.data, labels='2d'),
  )


def synthetic_prior_supervised() -> ExperimentConfig:
  """Trains prior-net and camera alone (Algorithm 5) by squared errors from 3D labels.

  The errors are those of vertices, camera and 2D joints.
  """
  return branch_alone(synthetic_supervised(), 'prior', L2_FULL, 'synthetic_prior_supervised')


def synthetic_prior_weak() -> ExperimentConfig:
  """Trains prior-net and camera alone (Algorithm 5) by squared errors of 2D joints."""
  return branch_alone(synthetic_weak(), 'prior', L2_WEAK, 'synthetic_prior_weak')


def synthetic_amvur_supervised() -> ExperimentConfig:
  """Trains AMVUR and camera alone (Algorithm 6) by squared errors from 3D labels.

  The errors are those of vertices, camera and 2D joints. It needs `--init_from` of a
  `synthetic_prior_supervised` run, whose backbone stays frozen.
  """
  return amvur_on_prior(synthetic_supervised(), L2_FULL, 'synthetic_amvur_supervised')


def synthetic_amvur_weak() -> ExperimentConfig:
  """Trains AMVUR and camera alone (Algorithm 6) by squared errors of 2D joints.

  It needs `--init_from` of a `synthetic_prior_weak` run, whose backbone stays frozen. Only the
  start determines the depth of its vertices.
  """
  return amvur_on_prior(synthetic_weak(), L2_WEAK, 'synthetic_amvur_weak')


def synthetic_small_weak() -> ExperimentConfig:
  """Trains `synthetic_small` from 2D joints alone (Algorithm 2).

  Warm it up with `--init_from` of a `synthetic_small_prior_weak` run. The learning rate is lower
  because it starts from a trained run.
  """
  small = synthetic_small()
  return replace(
    small,
    name='synthetic_small_weak',
    loss=WEAK_ELBO,
    optimizer=replace(small.optimizer, learning_rate=3e-4),
    data=replace(small.data, labels='2d'),
  )


def synthetic_small_weak_letter() -> ExperimentConfig:
  """Trains `synthetic_small_weak` exactly as the paper prints it, for comparison.

  Its cameras are drawn with a deviation of 1, which moves a hand by half the crop.
  docs/derivations.md explains each setting.
  """
  return replace(synthetic_small_weak(), name='synthetic_small_weak_letter', loss=WEAK_LETTER)


def synthetic_small_weak_learned_sigma() -> ExperimentConfig:
  """Trains `synthetic_small_weak` with the prior's sigma_v read from the image instead of 1."""
  weak = synthetic_small_weak()
  return replace(
    weak,
    name='synthetic_small_weak_learned_sigma',
    model=replace(weak.model, prior_sigma='learned'),
  )


def synthetic_small_prior_supervised() -> ExperimentConfig:
  """Trains Algorithm 5 on two CPU cores, from 3D labels."""
  return branch_alone(synthetic_small(), 'prior', L2_FULL, 'synthetic_small_prior_supervised')


def synthetic_small_prior_weak() -> ExperimentConfig:
  """Trains Algorithm 5 from 2D joints on two CPU cores, also as camera prior of Algorithm 2."""
  return branch_alone(_small_weak_start(), 'prior', L2_WEAK, 'synthetic_small_prior_weak')


def synthetic_small_amvur_supervised() -> ExperimentConfig:
  """Trains Algorithm 6 on two CPU cores, from 3D labels.

  AMVUR predicts offsets from the template here, so joint training that starts from this run needs
  `--set model.vertex_offset_from=template`.
  """
  return branch_alone(synthetic_small(), 'posterior', L2_FULL, 'synthetic_small_amvur_supervised')


def synthetic_small_amvur_weak() -> ExperimentConfig:
  """Trains Algorithm 6 on two CPU cores from 2D joints alone.

  AMVUR has no anatomy, so only its initial values determine the depth of its vertices. Joint
  training starts from this run as it does from `synthetic_small_amvur_supervised`.
  """
  return branch_alone(_small_weak_start(), 'posterior', L2_WEAK, 'synthetic_small_amvur_weak')


def _small_weak_start() -> ExperimentConfig:
  """Returns `synthetic_small_weak` with the learning rate of a first stage."""
  return replace(synthetic_small_weak(), optimizer=synthetic_small().optimizer)


def hand_photos() -> ExperimentConfig:
  """Trains the network in the package further, on photos with 2D joints (docs/hand_photos.md).

  It needs `--init_from=release --camera_prior=release`, or a run of `synthetic_features` in both
  places, and `--set data.data_dir=DIR` of photos that `prepare_dataset --with_features
  --feature_maps=16` prepared. The landmark network stays frozen.
  """
  features = synthetic_features()
  return replace(
    features,
    name='hand_photos',
    # A trained camera already has the right tilt, so the orthonormal projection can be used.
    loss=replace(WEAK_ELBO, projection='orthonormal', orthonormality=0.0),
    optimizer=replace(features.optimizer, learning_rate=2e-4, warmup_steps=20),
    data=replace(features.data, dataset='hand_photos', data_dir='prepared', labels='2d'),
    training=TrainingConfig(
      num_steps=300,
      batch_size=16,
      log_every=20,
      evaluate_every=100,
      checkpoint_every=100,
      validation_examples=0,
    ),
  )


def synthetic_supervised_texture() -> ExperimentConfig:
  """Trains the texture branch of a trained `synthetic_supervised` at full size (Algorithm 4).

  It needs `--init_from` of that run, whose other parameters all stay as they are.
  """
  return textured(synthetic_supervised(), 'synthetic_supervised_texture')


def synthetic_small_texture() -> ExperimentConfig:
  """Trains the texture branch of a trained `synthetic_small` on two CPU cores (Algorithm 4).

  It needs `--init_from` of that run, whose other parameters all stay as they are.
  """
  texture = TextureConfig(
    enabled=True,
    width=128,
    heads=4,
    self_layers=1,
    mlp_ratio=2,
    normals=True,
    hidden_fraction=0.7,
  )
  small = textured(synthetic_small(), 'synthetic_small_texture', texture)
  return replace(
    small,
    loss=replace(small.loss, photometric='robust'),
    optimizer=replace(small.optimizer, learning_rate=1e-3, warmup_steps=50),
    training=replace(small.training, num_steps=1500, batch_size=16),
  )


def toy_weak() -> ExperimentConfig:
  """Trains `toy` from 2D joints alone (Algorithm 2). It needs `--camera_prior`."""
  small = toy()
  return replace(
    small,
    name='toy_weak',
    loss=WEAK_ELBO,
    data=replace(small.data, labels='2d'),
  )


def toy_texture() -> ExperimentConfig:
  """Trains the texture branch of a `toy` run in seconds (Algorithm 4). It needs `--init_from`."""
  texture = TextureConfig(
    enabled=True,
    width=8,
    heads=2,
    self_layers=1,
    mlp_ratio=2,
    normals=True,
    hidden_fraction=0.5,
  )
  return textured(toy(), 'toy_texture', texture)


def toy_prior_weak() -> ExperimentConfig:
  """Trains Algorithm 5 in seconds, as the camera prior of `toy_weak`."""
  return branch_alone(toy_weak(), 'prior', L2_WEAK, 'toy_prior_weak')


def textured(
  trained: ExperimentConfig, name: str, texture: TextureConfig = TABLE_1_TEXTURE
) -> ExperimentConfig:
  """Adds a texture branch to a finished experiment, and trains nothing else.

  Args:
    trained: the experiment whose run gives all other parameters.
    name: the name of the new experiment.
    texture: the settings of the branch.
  """
  return replace(
    trained,
    name=name,
    model=replace(trained.model, texture=texture),
    loss=LossConfig(
      kind='photometric',
      convention=trained.loss.convention,
      length_unit_m=trained.loss.length_unit_m,
    ),
  )


def amvur_on_prior(joint: ExperimentConfig, loss: LossConfig, name: str) -> ExperimentConfig:
  """Makes the experiment of AMVUR alone on the frozen backbone of a prior-net's run.

  Joint training can then take the prior-net from one run and AMVUR from the other, because both
  were trained on the same features.

  Args:
    joint: the experiment with both branches.
    loss: the loss of AMVUR alone.
    name: the name of the new experiment.
  """
  alone = branch_alone(joint, 'posterior', loss, name)
  return replace(alone, optimizer=replace(alone.optimizer, backbone_learning_rate_scale=0.0))


def branch_alone(
  joint: ExperimentConfig, branch: str, loss: LossConfig, name: str
) -> ExperimentConfig:
  """Reduces a joint experiment to one branch and the camera model.

  Args:
    joint: the experiment with both branches.
    branch: 'prior' for the prior-net, 'posterior' for AMVUR.
    loss: the loss of the branch alone.
    name: the name of the new experiment.
  """
  model = replace(joint.model, branches=branch, vertex_offset_from='template')
  return replace(joint, name=name, model=model, loss=loss)


SYNTHETIC = {
  experiment.__name__: experiment
  for experiment in (
    synthetic_supervised,
    synthetic_weak,
    synthetic_prior_supervised,
    synthetic_prior_weak,
    synthetic_amvur_supervised,
    synthetic_amvur_weak,
    synthetic_supervised_texture,
    synthetic_small,
    synthetic_small_weak,
    synthetic_small_weak_learned_sigma,
    synthetic_small_weak_letter,
    synthetic_small_prior_supervised,
    synthetic_small_prior_weak,
    synthetic_small_amvur_supervised,
    synthetic_small_amvur_weak,
    synthetic_small_texture,
    synthetic_features,
    hand_photos,
    toy,
    toy_prior_weak,
    toy_weak,
    toy_texture,
  )
}
