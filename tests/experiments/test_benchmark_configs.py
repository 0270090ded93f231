"""Tables 2 to 5 in docs/results.md, and the experiments behind their rows: figures and commands."""

import copy
import pathlib
import re
import shlex

import pytest
from absl import flags

from experiments import train
from experiments.configs.benchmarks import BENCHMARKS
from experiments.configs.names import EXPERIMENTS, get_config
from hand_jax.losses import term_weights

ROOT = pathlib.Path(__file__).parents[2]
HEADING = "## The paper's tables on FreiHAND and HO3D"
_FIGURE = re.compile(r'(PA-MPJPE|PA-MPVPE|MPJPE|MPVPE|AUC_J|AUC_V|F@5|F@15)\s+(\d+\.\d+)')
TABLE_4 = ('ho3d_v2_j2d', 'ho3d_v2_j2d_c', 'ho3d_v2_j2d_c_j3d', 'ho3d_v2_j2d_c_j3d_v3d')


def paper_tables() -> dict[int, dict[str, dict[str, str]]]:
  """Table number -> config -> column -> cell, from the document."""
  section = (ROOT / 'docs' / 'results.md').read_text().split(HEADING)[1].split('\n## ')[0]
  tables, number, columns = {}, 0, None
  for line in section.splitlines():
    if match := re.match(r'Table (\d),', line):
      number, columns = int(match[1]), None
    if not line.startswith('|') or set(line) <= set('|- '):
      continue
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if columns is None:
      columns = cells
      continue
    row = dict(zip(columns, cells, strict=True))
    tables.setdefault(number, {})[row['config'].strip('`')] = row
  return tables


def docstring_figures(name: str) -> tuple[dict[str, str], dict[str, str]]:
  """A docstring's figures by name: after Procrustes, and before it."""
  figures = BENCHMARKS[name].__doc__.split('Hardware:')[0]
  aligned, _, before = figures.partition('before Procrustes')
  return dict(_FIGURE.findall(aligned)), dict(_FIGURE.findall(before))


ROWS = [(number, name) for number, table in paper_tables().items() for name in table]


def test_the_tables_are_all_there():
  assert {number: len(rows) for number, rows in paper_tables().items()} == {2: 2, 3: 4, 4: 4, 5: 2}


@pytest.mark.parametrize('number, name', ROWS)
def test_a_row_has_the_figures_of_its_experiment(number, name):
  row = paper_tables()[number][name]
  assert row['ours'] == 'not run'
  told = docstring_figures(name)[0 if number < 4 else 1]
  figures = {column: cell for column, cell in row.items() if re.fullmatch(r'\d+\.\d+', cell)}
  assert set(figures) == set(row) - {'trained', 'losses', 'config', 'ours'}
  assert {column: told.get(column) for column in figures} == figures
  assert f'Table {number}' in BENCHMARKS[name].__doc__ or re.search(
    rf'Tables [\d, ]*(and )?{number}|Tables .*\b{number}\b', BENCHMARKS[name].__doc__
  )


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_docstring_has_no_figure_that_no_table_has(name):
  tables = paper_tables()
  for told, numbers in zip(docstring_figures(name), ((2, 3), (4, 5)), strict=True):
    shown = {}
    for number in numbers:
      shown |= tables[number].get(name, {})
    assert {column: shown.get(column) for column in told} == told


def launch_flags(name: str) -> flags.FlagValues:
  """The flags of the one command in an experiment's docstring, as the launcher reads them.

  Raises:
    flags.Error: one that the launcher does not have.
  """
  text = BENCHMARKS[name].__doc__.replace('\\\n', ' ')
  (command,) = [line for line in text.splitlines() if line.startswith('      ')]
  python, m, module, *arguments = shlex.split(command)
  assert (python, m, module) == ('python', '-m', train.__name__)
  values = flags.FlagValues()
  for flag in flags.FLAGS.flags_by_module_dict()[train.__name__]:
    values[flag.name] = copy.deepcopy(flag)
  assert values([module, *arguments]) == [module]  # nothing but flags
  return values


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_is_launched_as_its_docstring_says(name):
  config, launch = get_config(name), launch_flags(name)
  assert config.name == name == BENCHMARKS[name].__name__
  assert EXPERIMENTS[name] is BENCHMARKS[name] and name.startswith(f'{config.data.dataset}_')
  assert (launch.config, launch.workdir) == (name, f'runs/{name}')
  assert launch.mano_dir == 'MANO'
  # The data's folder is told for who has another; every other setting is the experiment's own.
  assert launch.set == [f'data.data_dir={config.data.data_dir}'] == ['data.data_dir=prepared']
  started = train.choose_config(name, launch.set, launch.init_from, launch.camera_prior)
  assert started.training.init_from == tuple(launch.init_from)
  assert BENCHMARKS[name].__doc__.count('\n  Hardware: ') == 1


def starts(name: str) -> list[str]:
  """The experiments whose runs one takes parameters from."""
  assert all(workdir.startswith('runs/') for workdir in launch_flags(name).init_from)
  return [workdir.removeprefix('runs/') for workdir in launch_flags(name).init_from]


def labels_used(name: str) -> set[str]:
  """The labels that an experiment's objective reads with any weight."""
  config = get_config(name)
  used = set()
  for term, weight in term_weights(config.loss).items():
    if weight and (match := re.fullmatch(r'(\w+)(_nll|_l2)(_\w+)?|(camera)', term)):
      used.add(match[1] or match[4])
  return used & {'joints_2d'} if config.data.labels == '2d' else used


def labels_seen(name: str) -> set[str]:
  """And those of all the runs behind it."""
  return labels_used(name).union(*(labels_seen(start) for start in starts(name)))


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_starts_from_others_of_its_data(name):
  """They exist, hold what it needs, and have seen no label that it may not see."""
  config, prior = get_config(name), launch_flags(name).camera_prior
  assert (prior is not None) == (config.loss.kind == 'elbo')
  others = starts(name) + ([prior.removeprefix('runs/')] if prior else [])
  for start in others:
    assert start in BENCHMARKS and start != name
    other = get_config(start)
    for setting in ('dataset', 'crop_factor'):
      assert getattr(other.data, setting) == getattr(config.data, setting)
    assert other.model.backbone == config.model.backbone
    assert other.model.image_size == config.model.image_size
    assert other.model.vertex_offset_from == config.model.vertex_offset_from
    assert other.loss.length_unit_m == config.loss.length_unit_m
  if config.model.texture.enabled:  # of a finished network, whatever it was trained on
    assert others == [name.replace('_texture', '_supervised')]
  else:
    assert labels_seen(name) == labels_used(name)
  # ImageNet's weights come with the first run of a chain, from a file for its backbone.
  weights = re.findall(r'model\.backbone\.weights=(\w+)\.pth', BENCHMARKS[name].__doc__)
  assert weights == ([] if others else [config.model.backbone.name])


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_reads_the_labels_it_is_named_for(name):
  if 'texture' in name:
    assert labels_used(name) == set()
  elif 'weakly' in name:
    assert labels_used(name) == {'joints_2d'}
  elif name.endswith('_supervised') and 'l2' not in name and '_prior_' not in name:
    assert labels_used(name) >= {'joints_2d', 'camera', 'vertices'}


def test_the_rows_of_table_4_add_a_label_each_to_one_start():
  assert list(paper_tables()[4]) == list(TABLE_4)
  assert labels_used('ho3d_v2_j2d_prior') == {'joints_2d'}
  added = {'joints_2d'}
  for name, label in zip(TABLE_4, ('joints_2d', 'camera', 'joints', 'vertices'), strict=True):
    added = added | {label}
    assert labels_used(name) == added
    assert starts(name) == ['ho3d_v2_j2d_prior']
  # The last one's objective is the full one, from another start.
  last, full = get_config(TABLE_4[-1]), get_config('ho3d_v2_supervised')
  assert (last.model, last.loss, last.data) == (full.model, full.loss, full.data)
  # No 3D label reaches a batch of the first row.
  assert get_config(TABLE_4[0]).data.labels == get_config('ho3d_v2_j2d_prior').data.labels == '2d'


@pytest.mark.parametrize('dataset', ['freihand', 'ho3d_v2', 'ho3d_v3'])
def test_full_supervision_starts_from_both_warm_ups(dataset):
  warm_ups = [f'{dataset}_prior_supervised', f'{dataset}_amvur_supervised']
  assert starts(f'{dataset}_supervised') == warm_ups
  branches = [get_config(name).model.branches for name in warm_ups]
  assert branches == ['prior', 'posterior']
