"""Lists the rows of the benchmark, in the order in which they are measured and shown."""

from typing import NamedTuple


class Row(NamedTuple):
  """One comparison."""

  words: str
  maker: str
  """Module and function in `benchmarks.rows` that make the contest, such as 'mano:forward'."""
  arguments: tuple = ()
  bar: float | None = None
  """The target for the ratio of our time to the peer's. None sets no target."""


_BACKBONES = {
  'resnet50': ('ResNet-50', 1.1),
  'efficientnet_b0': ('EfficientNet-B0', 1.2),
  'efficientnet_lite0': ('EfficientNet-Lite0', None),
}
_PHOTO = {1: '1 photo', 8: '8 photos'}


def _backbone_rows(*names: str) -> dict[str, Row]:
  rows = {}
  for name in names:
    words, bar = _BACKBONES[name]
    for batch in (8, 1):
      words_forward = f'{words}, forward, {_PHOTO[batch]}'
      rows[f'{name}_forward_b{batch}'] = Row(words_forward, 'backbones:forward', (name, batch), 1.0)
    rows[f'{name}_train_b8'] = Row(
      f'{words}, training step, 8 photos', 'backbones:train', (name, 8), bar
    )
  return rows


def _mano_rows() -> dict[str, Row]:
  rows = {}
  for batch in (32, 1, 1024):
    hands = '1 hand' if batch == 1 else f'{batch} hands'
    rows[f'mano_forward_backward_b{batch}'] = Row(
      f'MANO, forward and backward, {hands}', 'mano:forward_backward', (batch,), 0.3
    )
    rows[f'mano_forward_b{batch}'] = Row(f'MANO, forward, {hands}', 'mano:forward', (batch,))
  return rows


# The rows that others rely on come first, in case the time runs out.
ROWS: dict[str, Row] = {
  'landmark_network_b1': Row(
    'landmark network, 1 crop', 'hand_networks:one_picture', ('hand_landmark',), 1.0
  ),
  'palm_and_two_landmarks': Row(
    'palm detector once, landmark network twice', 'hand_networks:palm_and_two_landmarks', (), 1.3
  ),
  'photo_b1': Row(
    'whole program, 1 photo (peer: three network passes alone)', 'hand_networks:photo', (), 5.0
  ),
  'refinement': Row('fit of the mesh, 1 hand', 'fitting:refinement', (1,)),
  'rasterizer_8x224_embree': Row('rasterizer, 8 hands of 224 pixels', 'rendering:rasterizer', (8,)),
  'inference_b1': Row('whole network, 1 photo', 'network:inference_row', (1,), 0.8),
  'inference_b8': Row('whole network, 8 photos', 'network:inference_row', (8,), 0.8),
  'train_step_b8': Row('whole training step, 8 photos', 'network:train_step', (8,), 0.95),
  'amvur_head_forward_b8': Row('AMVUR head, forward, 8 photos', 'network:head_forward', (8,), 0.7),
  'amvur_head_train_b8': Row('AMVUR head, gradients, 8 photos', 'network:head_train', (8,), 0.7),
  **_mano_rows(),
  **_backbone_rows('resnet50', 'efficientnet_b0'),
  'amvur_head_forward_b1': Row('AMVUR head, forward, 1 photo', 'network:head_forward', (1,), 0.7),
  'losses_b8': Row('losses, value and gradient, 8 hands', 'network:losses', (8,)),
  'palm_network_b1': Row(
    'palm detector, 1 picture', 'hand_networks:one_picture', ('palm_detection',)
  ),
  'silhouette_2x224': Row('soft silhouette, gradient, 2 hands', 'rendering:silhouette', (2,)),
  'visible_vertices_8x224': Row('visible vertices, 8 hands', 'rendering:visibility', (8,)),
  'crops_32': Row('decode, crop, augment, 32 photos, one core', 'data:crops', (32,)),
  'rendered_hands_8': Row('rendered hands with labels, 8', 'data:rendered_hands', (8,)),
  'refinement_b8': Row('fit of the mesh, 8 hands', 'fitting:refinement', (8,)),
  'folder_8': Row('whole program, 8 photos', 'hand_networks:folder', (8,), 0.625),
  'cold_start': Row('new process, 1 photo', 'process:cold_start'),
  **_backbone_rows('efficientnet_lite0'),
}
