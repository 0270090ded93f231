"""Tables 2 to 5 in docs/results.md and the experiments behind their rows say the same."""

import itertools
import pathlib
import re
import shlex

import pytest

from experiments import benchmark_configs
from experiments.benchmark_configs import BENCHMARKS
from experiments.configs import EXPERIMENTS, get_config
from experiments.train import choose_config

ROOT = pathlib.Path(__file__).parent.parent
HEADING = "## The paper's tables on FreiHAND and HO3D"
_FIGURE = re.compile(r'(PA-MPJPE|PA-MPVPE|MPJPE|MPVPE|AUC_J|AUC_V|F@5|F@15)\s+(\d+\.\d+)')


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
  figures = BENCHMARKS[name].__doc__.split('Start')[0]
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


def launch_arguments() -> list[str]:
  """The command in the module's docstring."""
  text = benchmark_configs.__doc__.replace('\\\n', ' ')
  (line,) = [line for line in text.splitlines() if line.startswith('    python -m')]
  return shlex.split(line)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_is_launched_as_its_module_says(name):
  config = get_config(name)  # validates
  assert config.name == name == BENCHMARKS[name].__name__
  assert EXPERIMENTS[name] is BENCHMARKS[name] and name.startswith(f'{config.data.dataset}_')
  assert config.data.labels == ('2d' if 'weakly' in name else '3d')
  command = launch_arguments()
  assert command[:3] == ['python', '-m', 'experiments.train']
  settings = [after for word, after in itertools.pairwise(command) if word == '--set']
  assert '--config=NAME' in command and '--mano_dir=MANO' in command
  # The command's settings are the experiment's own: they name the folder for who has another.
  assert choose_config(name, settings, [], None) == config


def start_flags(name: str, flag: str) -> list[str]:
  return re.findall(rf'--{flag}=runs/(\w+)', BENCHMARKS[name].__doc__)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_starts_from_others_of_its_data(name):
  """Those its docstring names exist, hold what it needs and see no label that it may not see."""
  config, starts = get_config(name), start_flags(name, 'init_from')
  for start in (*starts, *start_flags(name, 'camera_prior')):
    other = get_config(start)
    assert other.data.dataset == config.data.dataset
    assert other.data.labels == config.data.labels
    assert other.model.backbone == config.model.backbone
  if config.loss.kind == 'elbo':
    assert len(start_flags(name, 'camera_prior')) == 1
  if config.model.texture.enabled:
    assert [get_config(start).model.texture.enabled for start in starts] == [False]
