"""Tables 2 to 5 in docs/results.md, and the experiments behind their rows: figures and commands."""

import copy
import pathlib
import re
import shlex

import pytest
from absl import flags

from experiments import train
from experiments.configs import __main__ as command
from experiments.configs.benchmarks import BENCHMARKS
from experiments.configs.benchmarks import ROWS as EXPERIMENT_ROWS
from experiments.configs.names import EXPERIMENTS, get_config
from hand_jax.training.objective import create_objective, term_weights

ROOT = pathlib.Path(__file__).parents[2]
HEADING = "## The paper's tables on FreiHAND and HO3D"
_FIGURE = re.compile(r'(PA-MPJPE|PA-MPVPE|MPJPE|MPVPE|AUC_J|AUC_V|F@5|F@15)\s+(\d+\.\d+)')
PARTS = {
  name: ('vertex_regressor',) if get_config(name).model.branches != 'prior' else ()
  for name in BENCHMARKS
}
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


def told_figures(name: str) -> tuple[dict[str, str], dict[str, str]]:
  """The figures in a row's words by name: after Procrustes, and before it."""
  figures = EXPERIMENT_ROWS[name].words
  aligned, _, before = figures.partition('before Procrustes')
  return dict(_FIGURE.findall(aligned)), dict(_FIGURE.findall(before))


ROWS = [(number, name) for number, table in paper_tables().items() for name in table]


def test_the_tables_are_all_there():
  assert {number: len(rows) for number, rows in paper_tables().items()} == {2: 2, 3: 4, 4: 4, 5: 2}


@pytest.mark.parametrize('number, name', ROWS)
def test_a_row_has_the_figures_of_its_experiment(number, name):
  row = paper_tables()[number][name]
  assert row['ours'] == 'not run'
  told = told_figures(name)[0 if number < 4 else 1]
  figures = {column: cell for column, cell in row.items() if re.fullmatch(r'\d+\.\d+', cell)}
  assert set(figures) == set(row) - {'trained', 'losses', 'config', 'ours'}
  assert {column: told.get(column) for column in figures} == figures
  words = EXPERIMENT_ROWS[name].words
  assert f'Table {number}' in words or re.search(rf'Tables .*\b{number}\b', words)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_row_tells_no_figure_that_no_table_has(name):
  tables = paper_tables()
  for told, numbers in zip(told_figures(name), ((2, 3), (4, 5)), strict=True):
    shown = {}
    for number in numbers:
      shown |= tables[number].get(name, {})
    assert {column: shown.get(column) for column in told} == told


def launch_flags(name: str) -> flags.FlagValues:
  """The flags of an experiment's command, as the launcher reads them.

  Raises:
    flags.Error: one that the launcher does not have.
  """
  python, m, module, *arguments = shlex.split(EXPERIMENT_ROWS[name].command())
  assert (python, m, module) == ('python', '-m', train.__name__)
  values = flags.FlagValues()
  for flag in flags.FLAGS.flags_by_module_dict()[train.__name__]:
    values[flag.name] = copy.deepcopy(flag)
  assert values([module, *arguments]) == [module]  # nothing but flags
  return values


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_is_launched_as_its_row_says(name):
  config, launch = get_config(name), launch_flags(name)
  assert config.name == name == EXPERIMENT_ROWS[name].name
  assert EXPERIMENTS[name] is BENCHMARKS[name] and name.startswith(f'{config.data.dataset}_')
  assert (launch.config, launch.workdir) == (name, f'runs/{name}')
  assert launch.mano_dir == 'MANO'
  # The data's folder is told for who has another; every other setting is the experiment's own.
  assert launch.set == [f'data.data_dir={config.data.data_dir}'] == ['data.data_dir=prepared']
  started = train.choose_config(name, launch.set, launch.init_from, launch.camera_prior)
  assert started.training.init_from == tuple(launch.init_from)
  assert 0.5 < EXPERIMENT_ROWS[name].memory_gb < 8


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
  weights = re.findall(r'model\.backbone\.weights=(\w+)\.pth', command.describe(name))
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
    assert starts(name) == ['ho3d_v2_j2d_prior', 'ho3d_v2_j2d_amvur']
    # Labels are left out, divergences are not where a depth hangs on them.
    assert term_weights(get_config(name).loss)['vertices_kl'] == 1
  # The last one's objective is the full one, from another start.
  last, full = get_config(TABLE_4[-1]), get_config('ho3d_v2_supervised')
  assert (last.model, last.loss, last.data) == (full.model, full.loss, full.data)
  # No 3D label reaches a batch of the first row.
  for name in (TABLE_4[0], *starts(TABLE_4[0])):
    assert get_config(name).data.labels == '2d'


@pytest.mark.parametrize('supervision', ['supervised', 'weakly_supervised'])
@pytest.mark.parametrize('dataset', ['freihand', 'ho3d_v2', 'ho3d_v3'])
def test_joint_training_starts_from_both_warm_ups(dataset, supervision):
  """AMVUR's is made on the backbone of the prior-net's: the two fit together."""
  warm_ups = [f'{dataset}_prior_{supervision}', f'{dataset}_amvur_{supervision}']
  assert starts(f'{dataset}_{supervision}') == warm_ups
  prior, amvur = map(get_config, warm_ups)
  assert (prior.model.branches, amvur.model.branches) == ('prior', 'posterior')
  assert starts(warm_ups[1]) == warm_ups[:1]
  assert amvur.optimizer.backbone_learning_rate_scale == 0
  assert prior.optimizer.backbone_learning_rate_scale == 1


@pytest.mark.parametrize('name', [name for name in EXPERIMENTS if 'weak' in name])
def test_no_weak_experiment_meets_a_fresh_amvur_at_the_template(name):
  """Its divergence would pull the prior-net towards a flat hand."""
  needed = create_objective(get_config(name)).needs_trained
  if name in BENCHMARKS:
    assert set(needed) <= {part for start in starts(name) for part in PARTS[start]}
  elif needed:
    assert name == 'synthetic_weak'  # whose words name the warm-up
    assert 'synthetic_amvur_weak' in EXPERIMENTS[name].__doc__


@pytest.mark.parametrize('dataset', ['freihand', 'ho3d_v2', 'ho3d_v3'])
def test_supervised_training_has_the_papers_weights(dataset):
  penalties = ('orthonormality', 'joint_limits', 'shape_prior', 'pose_prior')
  quantities = ('vertices', 'joints', 'joints_2d')
  ones = {f'{name}_{part}' for name in quantities for part in ('nll', 'kl')} | {'camera'}
  weights = term_weights(get_config(f'{dataset}_supervised').loss)
  assert weights == {**dict.fromkeys(ones, 1), **dict.fromkeys(penalties, 0)}


def test_the_command_tells_of_every_experiment(capsys):
  command.main(['configs'])
  assert capsys.readouterr().out.split() == list(EXPERIMENTS)
  command.main(['configs', 'toy', 'ho3d_v2_j2d'])
  told = capsys.readouterr().out
  assert EXPERIMENTS['toy'].__doc__.strip() in told
  assert EXPERIMENT_ROWS['ho3d_v2_j2d'].command() in told and '4.0 GB' in told
  with pytest.raises(ValueError, match=r"Unknown config 'ho3d_v2_j3d'. Did you mean ho3d_v2_j2d"):
    command.main(['configs', 'ho3d_v2_j3d'])


def test_an_unknown_experiment_has_near_names_and_a_list():
  with pytest.raises(ValueError) as raised:
    get_config('synthetic_smal')
  message = str(raised.value)
  assert message.startswith("Unknown config 'synthetic_smal'. Did you mean synthetic_small or ")
  assert message.endswith('`python -m experiments.configs` lists all.')
  assert len([name for name in EXPERIMENTS if name in message.split()]) <= 3
  with pytest.raises(ValueError, match=r"Unknown config 'qqq'. `python -m experiments.configs`"):
    get_config('qqq')
