"""The paper's experiments on HO3D (Tables 3 to 5); see `experiments/configs/benchmarks.py`."""

from dataclasses import replace

from experiments.configs.benchmark_settings import supervised, weakly_supervised
from experiments.configs.synthetic import L2_FULL, L2_WEAK, WEAK_L2, branch_alone, textured
from hand_jax.config import ExperimentConfig


def ho3d_v2_supervised() -> ExperimentConfig:
  r"""Tables 3 and 5, supervised, Bayesian, all losses: PA-MPJPE 8.3, PA-MPVPE 8.2, AUC_J 0.835,
  AUC_V 0.836, F@5 0.608, F@15 0.965; before Procrustes MPJPE 19.2.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_supervised --workdir=runs/ho3d_v2_supervised \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v2_prior_supervised \
        --init_from=runs/ho3d_v2_amvur_supervised
  """
  return supervised('ho3d_v2', 'ho3d_v2_supervised')


def ho3d_v2_weakly_supervised() -> ExperimentConfig:
  r"""Tables 3 and 5, from 2D joints alone: PA-MPJPE 10.3, PA-MPVPE 10.8, AUC_J 0.787,
  AUC_V 0.784, F@5 0.482, F@15 0.949; before Procrustes MPJPE 29.4.

  Hardware: 8 devices of 8 GB (8 photos each take 3.7 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_weakly_supervised \
        --workdir=runs/ho3d_v2_weakly_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/ho3d_v2_prior_weakly_supervised \
        --camera_prior=runs/ho3d_v2_prior_weakly_supervised
  """
  return weakly_supervised('ho3d_v2', 'ho3d_v2_weakly_supervised')


def ho3d_v2_l2_supervised() -> ExperimentConfig:
  r"""Table 3, supervised, squared errors: PA-MPJPE 9.2, PA-MPVPE 9.4, AUC_J 0.816, AUC_V 0.817,
  F@5 0.541, F@15 0.959.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_l2_supervised \
        --workdir=runs/ho3d_v2_l2_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/ho3d_v2_prior_supervised --init_from=runs/ho3d_v2_amvur_supervised
  """
  return replace(supervised('ho3d_v2', 'ho3d_v2_l2_supervised'), loss=L2_FULL)


def ho3d_v2_l2_weakly_supervised() -> ExperimentConfig:
  r"""Table 3, from 2D joints alone, squared errors, which need no camera prior: PA-MPJPE 10.9,
  PA-MPVPE 11.3, AUC_J 0.776, AUC_V 0.775, F@5 0.453, F@15 0.934.

  Hardware: 8 devices of 8 GB (8 photos each take 3.7 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_l2_weakly_supervised \
        --workdir=runs/ho3d_v2_l2_weakly_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/ho3d_v2_prior_weakly_supervised
  """
  config = weakly_supervised('ho3d_v2', 'ho3d_v2_l2_weakly_supervised')
  return replace(config, loss=WEAK_L2)


def ho3d_v2_j2d() -> ExperimentConfig:
  r"""Table 4, 2D joints: before Procrustes MPJPE 29.4, MPVPE 28.8, F@5 0.207, F@15 0.659.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_j2d --workdir=runs/ho3d_v2_j2d \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v2_j2d_prior
  """
  config = _table_4('ho3d_v2_j2d', camera=0.0, joints=0.0, vertices=0.0)
  return replace(config, data=replace(config.data, labels='2d'))


def ho3d_v2_j2d_c() -> ExperimentConfig:
  r"""Table 4, 2D joints and camera: before Procrustes MPJPE 24.3, MPVPE 27.6, F@5 0.211,
  F@15 0.673.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_j2d_c --workdir=runs/ho3d_v2_j2d_c \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v2_j2d_prior
  """
  return _table_4('ho3d_v2_j2d_c', joints=0.0, vertices=0.0)


def ho3d_v2_j2d_c_j3d() -> ExperimentConfig:
  r"""Table 4, 2D and 3D joints and camera: before Procrustes MPJPE 23.8, MPVPE 27.2, F@5 0.213,
  F@15 0.676.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_j2d_c_j3d --workdir=runs/ho3d_v2_j2d_c_j3d \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v2_j2d_prior
  """
  return _table_4('ho3d_v2_j2d_c_j3d', vertices=0.0)


def ho3d_v2_j2d_c_j3d_v3d() -> ExperimentConfig:
  r"""Table 4, all losses: before Procrustes MPJPE 19.2, MPVPE 18.6, F@5 0.305, F@15 0.799. It is
  `ho3d_v2_supervised` from the start of the rows it is compared with.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v2_j2d_c_j3d_v3d \
        --workdir=runs/ho3d_v2_j2d_c_j3d_v3d --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/ho3d_v2_j2d_prior
  """
  return _table_4('ho3d_v2_j2d_c_j3d_v3d')


def ho3d_v2_j2d_prior() -> ExperimentConfig:
  r"""The start of all rows of Table 4: Algorithm 5 with their ResNet-50 from 2D joints alone, so
  that no row has seen a label that it leaves out.

  Hardware: 8 devices of 8 GB (8 photos each take 1.1 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=ho3d_v2_j2d_prior --workdir=runs/ho3d_v2_j2d_prior \
        --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(ho3d_v2_j2d(), 'prior', L2_WEAK, 'ho3d_v2_j2d_prior')


def ho3d_v2_prior_supervised() -> ExperimentConfig:
  r"""Algorithm 5 on HO3D v2: prior-net and camera alone, the warm-up of `ho3d_v2_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 1.1 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=ho3d_v2_prior_supervised \
        --workdir=runs/ho3d_v2_prior_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(ho3d_v2_supervised(), 'prior', L2_FULL, 'ho3d_v2_prior_supervised')


def ho3d_v2_amvur_supervised() -> ExperimentConfig:
  r"""Algorithm 6 on HO3D v2: AMVUR and camera alone, the warm-up of `ho3d_v2_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=ho3d_v2_amvur_supervised \
        --workdir=runs/ho3d_v2_amvur_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(ho3d_v2_supervised(), 'posterior', L2_FULL, 'ho3d_v2_amvur_supervised')


def ho3d_v2_prior_weakly_supervised() -> ExperimentConfig:
  r"""Algorithm 5 from HO3D v2's 2D joints alone: warm-up and camera model of Algorithm 2.

  Hardware: 8 devices of 8 GB (8 photos each take 0.8 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=efficientnet_b0.pth`, a file of torchvision's, to start
  from ImageNet.

      python -m experiments.train --config=ho3d_v2_prior_weakly_supervised \
        --workdir=runs/ho3d_v2_prior_weakly_supervised --mano_dir=MANO \
        --set data.data_dir=prepared
  """
  name = 'ho3d_v2_prior_weakly_supervised'
  return branch_alone(ho3d_v2_weakly_supervised(), 'prior', L2_WEAK, name)


def ho3d_v2_texture() -> ExperimentConfig:
  r"""Algorithm 4 on HO3D v2, with its hand masks where `seg/` is (Figures 3, 5 and 6).

  Hardware: 8 devices of 8 GB (8 photos each take 1.5 GB), or one of 16 GB.

      python -m experiments.train --config=ho3d_v2_texture --workdir=runs/ho3d_v2_texture \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v2_supervised
  """
  return textured(ho3d_v2_supervised(), 'ho3d_v2_texture')


def ho3d_v3_supervised() -> ExperimentConfig:
  r"""The main paper's HO3D v3, supervised; its figures are not in the supplementary we work from.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v3_supervised --workdir=runs/ho3d_v3_supervised \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v3_prior_supervised \
        --init_from=runs/ho3d_v3_amvur_supervised
  """
  return supervised('ho3d_v3', 'ho3d_v3_supervised')


def ho3d_v3_weakly_supervised() -> ExperimentConfig:
  r"""HO3D v3 from 2D joints alone; the paper's supplementary has no figures.

  Hardware: 8 devices of 8 GB (8 photos each take 3.7 GB), or one of 40 GB.

      python -m experiments.train --config=ho3d_v3_weakly_supervised \
        --workdir=runs/ho3d_v3_weakly_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/ho3d_v3_prior_weakly_supervised \
        --camera_prior=runs/ho3d_v3_prior_weakly_supervised
  """
  return weakly_supervised('ho3d_v3', 'ho3d_v3_weakly_supervised')


def ho3d_v3_prior_supervised() -> ExperimentConfig:
  r"""Algorithm 5 on HO3D v3: prior-net and camera alone, the warm-up of `ho3d_v3_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 1.1 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=ho3d_v3_prior_supervised \
        --workdir=runs/ho3d_v3_prior_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(ho3d_v3_supervised(), 'prior', L2_FULL, 'ho3d_v3_prior_supervised')


def ho3d_v3_amvur_supervised() -> ExperimentConfig:
  r"""Algorithm 6 on HO3D v3: AMVUR and camera alone, the warm-up of `ho3d_v3_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=ho3d_v3_amvur_supervised \
        --workdir=runs/ho3d_v3_amvur_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(ho3d_v3_supervised(), 'posterior', L2_FULL, 'ho3d_v3_amvur_supervised')


def ho3d_v3_prior_weakly_supervised() -> ExperimentConfig:
  r"""Algorithm 5 from HO3D v3's 2D joints alone: warm-up and camera model of Algorithm 2.

  Hardware: 8 devices of 8 GB (8 photos each take 0.8 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=efficientnet_b0.pth`, a file of torchvision's, to start
  from ImageNet.

      python -m experiments.train --config=ho3d_v3_prior_weakly_supervised \
        --workdir=runs/ho3d_v3_prior_weakly_supervised --mano_dir=MANO \
        --set data.data_dir=prepared
  """
  name = 'ho3d_v3_prior_weakly_supervised'
  return branch_alone(ho3d_v3_weakly_supervised(), 'prior', L2_WEAK, name)


def ho3d_v3_texture() -> ExperimentConfig:
  r"""Algorithm 4 on HO3D v3, with its hand masks where `seg/` is.

  Hardware: 8 devices of 8 GB (8 photos each take 1.5 GB), or one of 16 GB.

      python -m experiments.train --config=ho3d_v3_texture --workdir=runs/ho3d_v3_texture \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/ho3d_v3_supervised
  """
  return textured(ho3d_v3_supervised(), 'ho3d_v3_texture')


def _table_4(name: str, **weights: float) -> ExperimentConfig:
  """A row of Table 4: `ho3d_v2_supervised` with some losses left out."""
  config = supervised('ho3d_v2', name)
  return replace(config, loss=replace(config.loss, **weights))


HO3D = {
  experiment.__name__: experiment
  for experiment in (
    ho3d_v2_supervised,
    ho3d_v2_weakly_supervised,
    ho3d_v2_l2_supervised,
    ho3d_v2_l2_weakly_supervised,
    ho3d_v2_j2d,
    ho3d_v2_j2d_c,
    ho3d_v2_j2d_c_j3d,
    ho3d_v2_j2d_c_j3d_v3d,
    ho3d_v2_j2d_prior,
    ho3d_v2_prior_supervised,
    ho3d_v2_amvur_supervised,
    ho3d_v2_prior_weakly_supervised,
    ho3d_v2_texture,
    ho3d_v3_supervised,
    ho3d_v3_weakly_supervised,
    ho3d_v3_prior_supervised,
    ho3d_v3_amvur_supervised,
    ho3d_v3_prior_weakly_supervised,
    ho3d_v3_texture,
  )
}
