"""The paper's experiments on FreiHAND (Table 2); see `experiments/configs/benchmarks.py`."""

from experiments.configs.benchmark_settings import supervised, weakly_supervised
from experiments.configs.synthetic import L2_FULL, L2_WEAK, branch_alone, textured
from hand_jax.config import ExperimentConfig


def freihand_supervised() -> ExperimentConfig:
  r"""Table 2, supervised: PA-MPJPE 6.2, PA-MPVPE 6.1, AUC_J 0.89, AUC_V 0.89, F@5 0.767,
  F@15 0.987.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB.

      python -m experiments.train --config=freihand_supervised \
        --workdir=runs/freihand_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/freihand_prior_supervised --init_from=runs/freihand_amvur_supervised
  """
  return supervised('freihand', 'freihand_supervised')


def freihand_weakly_supervised() -> ExperimentConfig:
  r"""Table 2, from 2D joints alone: PA-MPJPE 10.8, PA-MPVPE 10.9, AUC_J 0.796, AUC_V 0.792,
  F@5 0.517, F@15 0.943.

  Hardware: 8 devices of 8 GB (8 photos each take 3.7 GB), or one of 40 GB.

      python -m experiments.train --config=freihand_weakly_supervised \
        --workdir=runs/freihand_weakly_supervised --mano_dir=MANO --set data.data_dir=prepared \
        --init_from=runs/freihand_prior_weakly_supervised \
        --camera_prior=runs/freihand_prior_weakly_supervised
  """
  return weakly_supervised('freihand', 'freihand_weakly_supervised')


def freihand_prior_supervised() -> ExperimentConfig:
  r"""Algorithm 5 on FreiHAND: prior-net and camera alone, the warm-up of `freihand_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 1.1 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=freihand_prior_supervised \
        --workdir=runs/freihand_prior_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(freihand_supervised(), 'prior', L2_FULL, 'freihand_prior_supervised')


def freihand_amvur_supervised() -> ExperimentConfig:
  r"""Algorithm 6 on FreiHAND: AMVUR and camera alone, the warm-up of `freihand_supervised`.

  Hardware: 8 devices of 8 GB (8 photos each take 4.0 GB), or one of 40 GB. The first of its
  chain: add `--set model.backbone.weights=resnet50.pth`, a file of torchvision's, to start from
  ImageNet.

      python -m experiments.train --config=freihand_amvur_supervised \
        --workdir=runs/freihand_amvur_supervised --mano_dir=MANO --set data.data_dir=prepared
  """
  return branch_alone(freihand_supervised(), 'posterior', L2_FULL, 'freihand_amvur_supervised')


def freihand_prior_weakly_supervised() -> ExperimentConfig:
  r"""Algorithm 5 from FreiHAND's 2D joints alone: warm-up and camera model of Algorithm 2.

  Hardware: 8 devices of 8 GB (8 photos each take 0.8 GB), or one of 16 GB. The first of its
  chain: add `--set model.backbone.weights=efficientnet_b0.pth`, a file of torchvision's, to start
  from ImageNet.

      python -m experiments.train --config=freihand_prior_weakly_supervised \
        --workdir=runs/freihand_prior_weakly_supervised --mano_dir=MANO \
        --set data.data_dir=prepared
  """
  name = 'freihand_prior_weakly_supervised'
  return branch_alone(freihand_weakly_supervised(), 'prior', L2_WEAK, name)


def freihand_texture() -> ExperimentConfig:
  r"""Algorithm 4 on FreiHAND, with its hand masks (Figures 5 and 6; the paper prints no figure).

  Hardware: 8 devices of 8 GB (8 photos each take 1.5 GB), or one of 16 GB.

      python -m experiments.train --config=freihand_texture --workdir=runs/freihand_texture \
        --mano_dir=MANO --set data.data_dir=prepared --init_from=runs/freihand_supervised
  """
  return textured(freihand_supervised(), 'freihand_texture')


FREIHAND = {
  experiment.__name__: experiment
  for experiment in (
    freihand_supervised,
    freihand_weakly_supervised,
    freihand_prior_supervised,
    freihand_amvur_supervised,
    freihand_prior_weakly_supervised,
    freihand_texture,
  )
}
