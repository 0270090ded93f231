"""Lists the experiments, or describes those that are named.

python -m experiments.configs [NAME]
"""

from experiments.configs.benchmarks import ROWS
from experiments.configs.names import EXPERIMENTS, get_config
from experiments.launching import launch


def describe(name: str) -> str:
  """Describes the purpose of an experiment and the command that launches it.

  Raises:
    ValueError: there is no experiment of that name.
  """
  get_config(name)
  if name not in ROWS:
    return (EXPERIMENTS[name].__doc__ or '').strip()
  row = ROWS[name]
  lines = [row.words, f'Memory: 8 photos take {row.memory_gb} GB.']
  if backbone := row.pretrained_backbone():
    lines.append(
      f'The first of its chain: add --set model.backbone.weights={backbone}.pth, a file of '
      "torchvision's, to start from ImageNet."
    )
  return '\n'.join([*lines, row.command()])


def main(argv: list[str]) -> None:
  """Prints the names of all experiments, or a description of each that is named."""
  print('\n'.join(EXPERIMENTS) if len(argv) == 1 else '\n\n'.join(map(describe, argv[1:])))


if __name__ == '__main__':
  launch(main)
