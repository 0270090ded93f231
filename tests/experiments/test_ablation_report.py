"""The tables of the ablations: figures, order, remarks, and the published document."""

import re

import numpy as np
import pytest

from experiments.ablations import grid as ablation_grid
from experiments.ablations.grid import plan_jobs
from experiments.ablations.report import SECTION, format_markdown, load_rows, update_section
from experiments.checkout import ROOT
from hand_jax.evaluation.evaluate import METRIC_NAMES
from tests.fake_ablations import BASELINE, CONTRACT, Faked, make_row, table_cells

SEEDS = [0, 1, 2]


def test_seeds_become_mean_and_sample_deviation():
  errors, shares = [8.125, 8.5, 9.375], [0.81, 0.825, 0.8]
  rows = [
    make_row(seed=seed, pa_mpjpe_mm=error, pa_auc_joints=share, seconds=100.0 * seed)
    for seed, error, share in zip(SEEDS, errors, shares, strict=True)
  ]
  header, line = table_cells(format_markdown(rows), 'Table 3')
  found = dict(zip(header, line, strict=True))
  assert found['PA-MPJPE'] == f'{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}'
  assert found['PA AUC joints'] == f'{np.mean(shares):.3f} ± {np.std(shares, ddof=1):.3f}'
  assert (found['seeds'], found['seconds']) == ('0, 1, 2', '100')
  assert (found['steps'], found['images seen']) == ('320', '10,240')
  text = format_markdown(rows)
  for seed, error in zip(SEEDS, errors, strict=True):
    assert re.search(
      rf'\| Bayesian \| full \| posterior \| test \| {seed} \|.*\| {error:.2f} \|', text
    )
  (one,) = table_cells(format_markdown(rows[:1]), 'Table 3')[1:]
  assert (
    '8.12' in one and '±' not in ' '.join(one) and 'Seed by seed' not in format_markdown(rows[:1])
  )


def test_the_columns_are_those_the_paper_prints():
  names = ['setting', 'supervision', 'branch', 'split', 'seeds']
  sizes = ['steps', 'images seen', 'seconds']
  aligned = ['PA AUC joints', 'PA-MPJPE', 'PA AUC vertices', 'PA-MPVPE', 'PA F@5', 'PA F@15']
  plain = ['MPJPE', 'MPVPE', 'F@5', 'F@15']
  both = ['MPJPE', 'PA-MPJPE', 'MPVPE', 'PA-MPVPE']
  gain = ['PA-MPJPE below the mean hand, %']
  titles = dict(zip(ablation_grid.TABLES, ('Table 3', 'Table 4', 'Table 5'), strict=False))
  titles |= {'branches': 'The branches', 'weak_start': 'Algorithm 2'}
  titles |= {'convention': "The paper's letter", 'unit': 'The length'}
  titles |= {'silhouette': 'The soft silhouette', 'weak': 'The longer'}
  tables = (*ablation_grid.TABLES, *ablation_grid.KEPT_TABLES)
  extra = {'joints_2d_px': 7.125, 'silhouette_iou': 0.875}
  text = format_markdown([make_row(table, **extra) for table in tables])
  values = {name: 1 + number / 8 for number, name in enumerate(METRIC_NAMES)}
  weak = ['PA-MPJPE', 'MPJPE', '2D error, px of 224']
  drawn = ['silhouette IoU', *both, '2D error, px of 224']
  shown = (aligned, plain, plain, both, weak, both, both, drawn, both + gain)
  for table, columns in zip(titles, shown, strict=True):
    header, line = table_cells(text, titles[table])
    assert header == names + columns + sizes
    found = dict(zip(header, line, strict=True))
    for title in columns:
      prefix = 'pa_' if title.startswith('PA') else ''
      if title.startswith('2D'):
        expected = '7.12'
      elif title == 'silhouette IoU':
        expected = '0.875'
      elif title in gain:
        expected = f'{100 * (1 - values["pa_mpjpe_mm"] / BASELINE):.1f}'
      elif 'F@' in title:
        expected = f'{values[prefix + "f_score_" + title.split("@")[1] + "mm"]:.3f}'
      elif 'AUC' in title:
        expected = f'{values[prefix + "auc_" + title.split()[-1]]:.3f}'
      else:
        expected = f'{values[prefix + title[-5:].lower() + "_mm"]:.2f}'
      assert found[title] == expected, (table, title)


def test_rows_are_shown_in_the_order_of_the_grid():
  rows = [
    make_row('4', 'J2D + C + J3D + V3D'),
    make_row('3', 'Bayesian', 'weak'),
    make_row('4', 'J2D + C'),
    make_row('3', 'Bayesian'),
    make_row('4', 'J2D'),
    make_row('4', 'something of an older grid'),
  ]
  text = format_markdown(rows)
  assert text.index('### Table 3') < text.index('### Table 4')
  settings = [line[0] for line in table_cells(text, 'Table 4')[1:]]
  assert settings == ['J2D', 'J2D + C', 'J2D + C + J3D + V3D', 'something of an older grid']
  assert [line[1] for line in table_cells(text, 'Table 3')[1:]] == ['full', 'weak']


def test_the_remarks_and_commands_say_how_to_repeat_it():
  shared = 'python -m train start && '
  rows = [make_row(seed=seed, command=f'{shared}python -m train {seed}') for seed in (0, 1)]
  rows.append(make_row('5', steps=160, steps_before=320, commit='def5678-dirty', seconds=None))
  text = format_markdown(rows)
  assert 'PA-MPJPE of 16.00 mm' in text and 'over 1000 hands of a split' in text
  assert 'from 24,576 broad training hands' in text
  assert 'Commit `abc1234`.' in text and 'Commit `def5678-dirty`.' in text
  found = dict(zip(*table_cells(text, 'Table 5'), strict=True))
  assert (found['steps'], found['seconds']) == ('160 after 320', '-')
  commands = re.findall('^    (.*)$', text, re.MULTILINE)
  assert commands[:3] == ['python -m train start', 'python -m train 0', 'python -m train 1']
  assert len(commands) == len(set(commands)) == 5
  # Runs of different sizes in one line are told apart.
  mixed = format_markdown([make_row(), make_row(seed=1, steps=640)])
  assert '| 320 / 640 | 10,240 / 20,480 |' in mixed


def test_seeds_of_one_command_are_listed_once():
  commands = [
    f'python -m train --workdir=runs/a-seed{seed} --set training.seed={seed}' for seed in SEEDS
  ]
  rows = [
    make_row(seed=seed, command=command) for seed, command in zip(SEEDS, commands, strict=True)
  ]
  rows.append(make_row('5', command='python -m train --workdir=runs/b-seed0'))
  text = format_markdown(rows)
  assert re.findall('^    (.*)$', text, re.MULTILINE) == [commands[0], rows[-1]['command']]
  assert 'Other seeds have their number' in text


def test_differences_are_told_with_their_interval():
  compared = {
    'against': 'L2',
    'interval': [-0.5, -0.25],
    'interval_seeds': SEEDS,
    'differences': {'pa_mpjpe_mm': [-0.375, -0.5, -0.25], 'mpvpe_mm': [1.0, 0.0, 2.0]},
  }
  rows = [make_row(setting='L2'), *(make_row(seed=seed, **compared) for seed in SEEDS)]
  text = format_markdown(rows)
  section = text.split('### Table 3')[1].split('| minus')[1]
  line = next(line for line in section.split('\n') if line.startswith('| Bayesian'))
  assert line == (
    '| Bayesian | full | posterior | test | L2 | 0, 1, 2 | -0.38 [-0.50, -0.25] | - |'
  )
  assert '| minus' not in format_markdown(rows[:1])


def test_without_rows_it_says_so():
  assert format_markdown([]) == 'No run has finished yet.\n'


def test_a_section_is_replaced_and_the_rest_kept(tmp_path):
  path = tmp_path / 'results.md'
  path.write_text(f'# Results\n\n{SECTION[0]}\nold\n{SECTION[1]}\n\nThe end.\n')
  for _ in range(2):
    update_section(path, 'new table\n')
    assert path.read_text() == (
      f'# Results\n\n{SECTION[0]}\n\nnew table\n\n{SECTION[1]}\n\nThe end.\n'
    )
  assert [file.name for file in tmp_path.iterdir()] == ['results.md']


@pytest.mark.parametrize(
  'content',
  [
    'nothing',
    SECTION[0],
    f'{SECTION[1]} {SECTION[0]}',
    f'{SECTION[0]}{SECTION[0]}{SECTION[1]}',
    f'{SECTION[0]}{SECTION[1]}{SECTION[1]}',
  ],
)
def test_a_document_without_its_two_markers_is_refused(content, settings):
  document = settings.output.parent.parent / 'results.md'
  document.parent.mkdir(parents=True)
  document.write_text(content)
  faked = Faked()
  with pytest.raises(ValueError, match=r'results\.md.*once each'):
    faked.run(plan_jobs(['convention'], [0]), settings)
  assert document.read_text() == content and faked.trained == []


@pytest.mark.slow
def test_the_document_follows_the_rows(settings):
  document = settings.output.parent.parent / 'results.md'
  document.parent.mkdir(parents=True)
  document.write_text('\n'.join(SECTION))
  Faked().run(plan_jobs(['convention'], [0]), settings)
  text = format_markdown(load_rows(settings.output))
  assert document.read_text() == f'{SECTION[0]}\n\n{text.strip()}\n\n{SECTION[1]}'


def test_the_published_tables_are_those_of_the_published_rows():
  rows = load_rows(ROOT / 'docs' / 'results' / 'ablations.json')
  tables = {row['table'] for row in rows}
  assert tables <= {*ablation_grid.TABLES, *ablation_grid.KEPT_TABLES}
  assert tables >= {'3', '4', '5', *ablation_grid.KEPT_TABLES}
  assert all(set(row) >= CONTRACT for row in rows)
  assert format_markdown(rows).strip() in (ROOT / 'docs' / 'results.md').read_text()
  longer, start = (
    next(row for row in rows if row['table'] == 'weak' and name in row['setting'])
    for name in ('longer', 'start')
  )
  # What the document says of the longer run.
  assert longer['pa_mpjpe_mm'] < min(start['pa_mpjpe_mm'], 0.75 * longer['mean_hand_pa_mpjpe_mm'])
