"""Writes the results of a measured split as text: a table, and a summary."""

from typing import Any

from hand_jax.evaluation.evaluate import NAMES
from hand_jax.evaluation.official.rules import NO_AUGMENTATION
from hand_jax.evaluation.uncertainty import uncertainty_table
from hand_jax.models.branches import BRANCHES


def results_table(results: dict[str, Any]) -> str:
  """Puts the results of `evaluate_batches` into lines of text.

  The table has one row per metric. Where there is a baseline, the row ends with the first branch's
  gain over the mean hand, in percent for errors in mm and as a plain difference for shares. The 2D
  errors and the figures of sigma in each frame follow. Figures that were not measured are left
  out.
  """
  lines = []
  if results['examples']:
    lines += _metric_rows(results)
    lines.append(f'over {results["examples"]} examples, each counted once')
  augmentation = results.get('test_time_augmentation', NO_AUGMENTATION)
  if augmentation != NO_AUGMENTATION:
    lines.append(f'with test-time augmentation: {augmentation}')
  if joints_2d := results.get('joints_2d'):
    errors = ', '.join(
      f'{name} {joints_2d[f"{name}_px"]:.2f} px' for name in BRANCHES if f'{name}_px' in joints_2d
    )
    lines.append(
      f'Mean 2D error of the joints: {errors}, in crops of {joints_2d["crop_size_px"]} px, '
      f'over {joints_2d["examples"]} examples'
    )
  if uncertainty := results.get('uncertainty'):
    lines.append(
      f"Spearman correlation of the {uncertainty['branch']}'s sigma with error: "
      f'across examples {uncertainty["across_examples"]:.3f}, '
      f'within vertices {uncertainty["within_vertices"]:.3f}'
    )
    lines += uncertainty_table(uncertainty, NAMES)
  return '\n'.join(lines)


def _metric_rows(results: dict[str, Any]) -> list[str]:
  columns = [name for name in (*BRANCHES, 'mean_hand') if name in results]
  has_gain = columns[-1] == 'mean_hand'
  header = ''.join(f'{name.replace("_", " "):>12}' for name in columns)
  rows = [f'{"":<16}{header}' + (f'{"gain":>9}' if has_gain else '')]
  for metric in results[columns[0]]:
    digits = 2 if metric.endswith('_mm') else 3
    values = [results[name][metric] for name in columns]
    row = f'{metric:<16}' + ''.join(f'{value:>12.{digits}f}' for value in values)
    if has_gain:
      ours, baseline = values[0], values[-1]
      if not metric.endswith('_mm'):
        row += f'{ours - baseline:>+9.3f}'
      else:
        row += f'{100 * (1 - ours / baseline):>8.1f}%' if baseline > 0 else f'{"-":>9}'
    rows.append(row)
  return rows


def results_summary(results: dict[str, Any]) -> str:
  """Summarises the table in one or two lines: the baseline, and the gain over it."""
  if not results['examples'] and 'joints_2d' not in results:
    return 'No example of the split has labels: there is nothing to measure here.'
  if not results['examples']:
    joints_2d = results['joints_2d']
    branch = next(name for name in BRANCHES if f'{name}_px' in joints_2d)
    return (
      'No example of the split has 3D labels: there is neither an error in mm nor a baseline.\n'
      f"The {branch}'s projected joints are {joints_2d[f'{branch}_px']:.2f} px from their labels "
      f'in crops of {joints_2d["crop_size_px"]} px.'
    )
  branch = next(name for name in BRANCHES if name in results)
  ours = results[branch]['pa_mpjpe_mm']
  if 'mean_hand' not in results:
    return (
      f'There is no baseline: no training example of {results["dataset"]} has 3D labels to make a '
      f'mean hand of.\nThe {branch} has a PA-MPJPE of {ours:.2f} mm.'
    )
  baseline = results['mean_hand']['pa_mpjpe_mm']
  gain = 100 * (1 - ours / baseline)
  return (
    f'The mean hand of {results["mean_hand_examples"]} training examples has a PA-MPJPE of '
    f'{baseline:.2f} mm.\nThe {branch} has {ours:.2f} mm, '
    f'{abs(gain):.1f} % {"below" if gain >= 0 else "above"} the mean hand.'
  )
