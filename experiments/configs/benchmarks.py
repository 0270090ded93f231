"""The paper's experiments on FreiHAND and HO3D (Tables 2 to 5), for data that the user prepared.

Each experiment is a row of `ROWS`. The words of a row quote the paper's errors in mm, before
Procrustes where they say so. Whole tables with a column for our figures are in docs/results.md.
None of these experiments was run here, because the data sets may not be redistributed. `python
-m experiments.configs NAME` prints a row with the command that launches it, and docs/real_data.md
has the whole recipe.

The memory of a row is what 8 photos take with parameters and optimizer. The compiler counted it for
a CPU, and accelerators differ. We expect that 8 devices of 8 GB suffice, or a single one of 40 GB
(16 GB for rows below 2 GB). With fewer devices each holds more photos, or `--set
training.batch_size=32` halves the batch.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from experiments.configs.benchmark_settings import supervised, weakly_supervised
from experiments.configs.synthetic import (
  L2_FULL,
  L2_WEAK,
  WEAK_L2,
  amvur_on_prior,
  branch_alone,
  textured,
)
from hand_jax.config import ExperimentConfig, LossConfig


class BenchmarkRow(NamedTuple):
  """An experiment on a benchmark, with its purpose, its memory and the runs it starts from.

  `starts` names the experiments whose runs give it their parameters, from first to last, and
  `camera_prior` names the one whose camera model stays frozen as its prior. An experiment without
  `starts` is the first of a chain. Its backbone may start from ImageNet, with the weights of a
  torchvision file.
  """

  name: str
  words: str
  memory_gb: float
  make: Callable[[], ExperimentConfig]
  starts: tuple[str, ...] = ()
  camera_prior: str = ''

  def command(self) -> str:
    """Writes the command that launches the experiment.

    `MANO` stands for the folder of MANO_RIGHT.pkl.
    """
    words = [
      f'python -m experiments.train --config={self.name} --workdir=runs/{self.name}',
      '--mano_dir=MANO --set data.data_dir=prepared',
      *(f'--init_from=runs/{start}' for start in self.starts),
    ]
    if self.camera_prior:
      words.append(f'--camera_prior=runs/{self.camera_prior}')
    return ' '.join(words)

  def pretrained_backbone(self) -> str:
    """Names the backbone whose ImageNet weights the first run of a chain may load, else ''."""
    return '' if self.starts else self.make().model.backbone.name


def _prior(base: Callable, loss: LossConfig) -> Callable[[str], ExperimentConfig]:
  return lambda name: branch_alone(base('unnamed'), 'prior', loss, name)


def _amvur(base: Callable, loss: LossConfig) -> Callable[[str], ExperimentConfig]:
  return lambda name: amvur_on_prior(base('unnamed'), loss, name)


def _dataset_rows(dataset: str, title: str, full: str, weak: str, texture: str) -> list[tuple]:
  """Lists the seven experiments of a data set. `full`, `weak` and `texture` quote the paper."""
  supervise = functools.partial(supervised, dataset)
  supervise_weakly = functools.partial(weakly_supervised, dataset)
  name = f'{dataset}_{{}}'.format
  prior, amvur = name('prior_supervised'), name('amvur_supervised')
  weak_prior, weak_amvur = name('prior_weakly_supervised'), name('amvur_weakly_supervised')
  return [
    (name('supervised'), full, 4.0, supervise, (prior, amvur)),
    (
      name('weakly_supervised'),
      weak,
      3.7,
      supervise_weakly,
      (weak_prior, weak_amvur),
      weak_prior,
    ),
    (
      prior,
      f'Algorithm 5 on {title}: prior-net and camera alone, the warm-up of `{dataset}_supervised`.',
      1.1,
      _prior(supervise, L2_FULL),
    ),
    (
      amvur,
      f'Algorithm 6 on {title}: AMVUR and camera alone, the warm-up of `{dataset}_supervised`, on '
      'the backbone of the prior-net.',
      4.0,
      _amvur(supervise, L2_FULL),
      (prior,),
    ),
    (
      weak_prior,
      f"Algorithm 5 from {title}'s 2D joints alone: warm-up and camera model of Algorithm 2.",
      0.8,
      _prior(supervise_weakly, L2_WEAK),
    ),
    (
      weak_amvur,
      f"Algorithm 6 from {title}'s 2D joints alone, on the backbone of the prior-net: the other "
      'warm-up of Algorithm 2. Only its start determines the depth of its vertices.',
      3.7,
      _amvur(supervise_weakly, L2_WEAK),
      (weak_prior,),
    ),
    (
      name('texture'),
      texture,
      1.5,
      lambda own_name: textured(supervise('unnamed'), own_name),
      (name('supervised'),),
    ),
  ]


def _table_3(loss: LossConfig, base: Callable) -> Callable[[str], ExperimentConfig]:
  """Builds a row of Table 3 with squared errors."""
  return lambda name: replace(base('ho3d_v2', name), loss=loss)


def _table_4(labels: str = '3d', **weights: float) -> Callable[[str], ExperimentConfig]:
  """Builds a row of Table 4, which is `ho3d_v2_supervised` with some losses left out.

  Rows without the vertices' labels keep their divergence (`vertices_likelihood` 0), which needs
  none. The paper does not say whether its rows do. Without the divergence nothing would determine
  the depth of the posterior's mesh, because 2D joints do not constrain it, and yet the paper's
  first row has only 28.8 mm. With it, depth comes from the prior-net's anatomy and from the
  warm-ups.
  """

  def make(name: str) -> ExperimentConfig:
    config = supervised('ho3d_v2', name)
    data = replace(config.data, labels=labels)
    return replace(config, data=data, loss=replace(config.loss, **weights))

  return make


_J2D = _table_4('2d', camera=0.0, joints=0.0, vertices_likelihood=0.0)
_J2D_START = ('ho3d_v2_j2d_prior', 'ho3d_v2_j2d_amvur')

_TABLE = [
  *_dataset_rows(
    'freihand',
    'FreiHAND',
    'Table 2, supervised: PA-MPJPE 6.2, PA-MPVPE 6.1, AUC_J 0.89, AUC_V 0.89, F@5 0.767, '
    'F@15 0.987.',
    'Table 2, from 2D joints alone: PA-MPJPE 10.8, PA-MPVPE 10.9, AUC_J 0.796, AUC_V 0.792, '
    'F@5 0.517, F@15 0.943.',
    'Algorithm 4 on FreiHAND, with its hand masks (Figures 5 and 6; the paper prints no figure).',
  ),
  *_dataset_rows(
    'ho3d_v2',
    'HO3D v2',
    'Tables 3 and 5, supervised, Bayesian, all losses: PA-MPJPE 8.3, PA-MPVPE 8.2, AUC_J 0.835, '
    'AUC_V 0.836, F@5 0.608, F@15 0.965; before Procrustes MPJPE 19.2.',
    'Tables 3 and 5, from 2D joints alone: PA-MPJPE 10.3, PA-MPVPE 10.8, AUC_J 0.787, '
    'AUC_V 0.784, F@5 0.482, F@15 0.949; before Procrustes MPJPE 29.4.',
    'Algorithm 4 on HO3D v2, with its hand masks where `seg/` is (Figures 3, 5 and 6).',
  ),
  (
    'ho3d_v2_l2_supervised',
    'Table 3, supervised, squared errors: PA-MPJPE 9.2, PA-MPVPE 9.4, AUC_J 0.816, AUC_V 0.817, '
    'F@5 0.541, F@15 0.959.',
    4.0,
    _table_3(L2_FULL, supervised),
    ('ho3d_v2_prior_supervised', 'ho3d_v2_amvur_supervised'),
  ),
  (
    'ho3d_v2_l2_weakly_supervised',
    'Table 3, from 2D joints alone, squared errors, which need no camera prior: PA-MPJPE 10.9, '
    'PA-MPVPE 11.3, AUC_J 0.776, AUC_V 0.775, F@5 0.453, F@15 0.934.',
    3.7,
    _table_3(WEAK_L2, weakly_supervised),
    ('ho3d_v2_prior_weakly_supervised', 'ho3d_v2_amvur_weakly_supervised'),
  ),
  (
    'ho3d_v2_j2d',
    'Table 4, 2D joints: before Procrustes MPJPE 29.4, MPVPE 28.8, F@5 0.207, F@15 0.659.',
    4.0,
    _J2D,
    _J2D_START,
  ),
  (
    'ho3d_v2_j2d_c',
    'Table 4, 2D joints and camera: before Procrustes MPJPE 24.3, MPVPE 27.6, F@5 0.211, '
    'F@15 0.673.',
    4.0,
    _table_4(joints=0.0, vertices_likelihood=0.0),
    _J2D_START,
  ),
  (
    'ho3d_v2_j2d_c_j3d',
    'Table 4, 2D and 3D joints and camera: before Procrustes MPJPE 23.8, MPVPE 27.2, F@5 0.213, '
    'F@15 0.676.',
    4.0,
    _table_4(vertices_likelihood=0.0),
    _J2D_START,
  ),
  (
    'ho3d_v2_j2d_c_j3d_v3d',
    'Table 4, all losses: before Procrustes MPJPE 19.2, MPVPE 18.6, F@5 0.305, F@15 0.799. It is '
    '`ho3d_v2_supervised` from the start of the rows it is compared with.',
    4.0,
    _table_4(),
    _J2D_START,
  ),
  (
    'ho3d_v2_j2d_prior',
    'The first start of all rows of Table 4: Algorithm 5 with their ResNet-50 from 2D joints '
    'alone, so that no row was trained on a label that it leaves out.',
    1.1,
    _prior(_J2D, L2_WEAK),
  ),
  (
    'ho3d_v2_j2d_amvur',
    'The other start of all rows of Table 4: Algorithm 6 from 2D joints alone, on the backbone of '
    'the first.',
    4.0,
    _amvur(_J2D, L2_WEAK),
    ('ho3d_v2_j2d_prior',),
  ),
  *_dataset_rows(
    'ho3d_v3',
    'HO3D v3',
    "The main paper's HO3D v3, supervised; its figures are not in the supplementary we work from.",
    "HO3D v3 from 2D joints alone; the paper's supplementary has no figures.",
    'Algorithm 4 on HO3D v3, with its hand masks where `seg/` is.',
  ),
]

ROWS: dict[str, BenchmarkRow] = {
  name: BenchmarkRow(name, words, memory_gb, functools.partial(make, name), *starts)
  for name, words, memory_gb, make, *starts in _TABLE
}
BENCHMARKS: dict[str, Callable[[], ExperimentConfig]] = {
  name: row.make for name, row in ROWS.items()
}
