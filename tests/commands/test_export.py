"""hand-jax export: flags, files, and what it refuses."""

import json

import pytest

from hand_jax.commands.main import main
from hand_jax.exporting import exported_run

NAMES = ['hand_network_cpu.stablehlo', 'hand_network_cpu.stablehlo.json']


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def run(monkeypatch):
  """Any folder is a run, and its program is made quickly: other tests make real ones."""
  made = []

  def load(workdir, mano_dir=None):
    made.append(workdir)
    return workdir

  def files(run, format, platforms):
    return {name: f'{run} {name}'.encode() for name in exported_run.file_names(format, platforms)}

  monkeypatch.setattr(exported_run, 'load_exported_run', load)
  monkeypatch.setattr(exported_run, 'exported_files', files)
  return made


def test_files_are_written_and_replaced_only_when_asked(here, run, capsys):
  assert main(['export', '--workdir=one']) == 0
  folder = here / 'hand_jax_export'
  assert sorted(path.name for path in folder.iterdir()) == NAMES
  assert 'hand_jax_export/hand_network_cpu.stablehlo: 0.0 MB' in capsys.readouterr().out
  assert main(['export', '--workdir=two']) == 2
  assert 'give --overwrite' in capsys.readouterr().err
  assert run == ['one']  # refused before any work
  assert (folder / NAMES[0]).read_text().startswith('one')
  assert main(['export', '--workdir=two', '--overwrite']) == 0
  assert (folder / NAMES[0]).read_text().startswith('two')


def test_a_file_for_each_platform_and_one_onnx_for_all(here, run):
  assert main(['export', '--workdir=r', '--platforms=cpu,tpu', '--output=a']) == 0
  programs = sorted(path.name for path in (here / 'a').glob('*.stablehlo'))
  assert programs == ['hand_network_cpu.stablehlo', 'hand_network_tpu.stablehlo']
  assert main(['export', '--workdir=r', '--format=onnx', '--output=b']) == 0
  names = sorted(path.name for path in (here / 'b').iterdir())
  assert names == ['hand_network.onnx', 'hand_network.onnx.json']


MISTAKES = {
  'no run named': ([], 'name a trained run by --workdir=RUN'),
  'no run there': (['--workdir=nowhere'], 'nowhere'),
  'no such platform': (['--workdir=r', '--platforms=cpu,gpu'], "'gpu' is no platform"),
  'no such format': (['--workdir=r', '--format=tflite'], 'tflite'),
}


@pytest.mark.parametrize('arguments, message', MISTAKES.values(), ids=MISTAKES)
def test_wrong_use_is_one_line_and_writes_nothing(arguments, message, here, capsys):
  try:
    code = main(['export', *arguments])
  except SystemExit as error:
    code = error.code
  out, error = capsys.readouterr()
  assert code == 2 and out == '' and message in error and error.count('\n') == 1
  assert list(here.iterdir()) == []


def test_a_missing_package_is_named(run, monkeypatch, capsys):
  def files(*arguments):
    raise ModuleNotFoundError("No module named 'onnx'")

  monkeypatch.setattr(exported_run, 'exported_files', files)
  assert main(['export', '--workdir=r', '--format=onnx']) == 2
  assert "pip install 'hand-jax[onnx]'" in capsys.readouterr().err


def test_a_toy_run_is_exported(here, tmp_path):
  from tests.toy_runs import fresh_state, save_toy_run

  run = save_toy_run(tmp_path / 'run', 'toy', fresh_state('toy'))
  assert main(['export', f'--workdir={run}']) == 0
  told = json.loads((here / 'hand_jax_export' / NAMES[1]).read_text())
  assert told['experiment'] == 'toy' and (here / 'hand_jax_export' / NAMES[0]).stat().st_size > 1e5
