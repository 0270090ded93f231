"""hand-jax: which arguments mean what, exit codes, and one line on stderr for every mistake."""

import errno
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from experiments import reconstruct as launch
from hand_jax import __version__
from hand_jax.commands import reconstruct_photos, subcommands
from hand_jax.commands.main import main
from hand_jax.commands.subcommands import Subcommand
from hand_jax.reconstruction import folder_lock, hand_reconstructor
from hand_jax.reconstruction.tasks import PhotoOptions
from tests.found_hands import found_hand
from tests.toy_runs import fresh_state, save_toy_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def hands_are_found_at_once(model, monkeypatch):
  """In the middle of every photo. tests/reconstruction is about finding hands and their masks."""
  monkeypatch.setattr(hand_reconstructor, 'view_hand', lambda *_: None)
  monkeypatch.setattr(
    hand_reconstructor,
    'estimate_hand_mask',
    lambda _, width, height: np.ones((height, width), bool),
  )
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda *a: [found_hand(a[0], model)])


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return save_toy_run(tmp_path_factory.mktemp('run'), 'toy', fresh_state('toy'))


@pytest.fixture
def options(monkeypatch) -> list[PhotoOptions]:
  """What would be reconstructed, instead of doing it."""
  seen = []
  monkeypatch.setattr(
    reconstruct_photos, 'reconstruct_and_tell', lambda asked, _: seen.append(asked) or 0
  )
  return seen


def run(*arguments: str) -> int:
  """The exit code that a shell would see."""
  try:
    return main(arguments)
  except SystemExit as error:
    return int(error.code)


def test_flags_and_photos_in_any_order(options):
  code = run(
    *('a.jpg', '--workdir=w', '--hand', 'left', 'b.jpg', '--bbox=-1,2,3,4', '--mano_dir=m'),
    *('--hand_mask', 'k.png', 'c.jpg', '--demo_photos', '--hand=right', '--bbox=5,6,7,8'),
    *('--focal=700', '--axes=camera', '--overwrite', '--refine=off'),
  )
  assert code == 0
  assert options == [
    PhotoOptions(
      ['a.jpg', 'b.jpg', 'c.jpg'],
      output='hand_jax_output',
      workdir='w',
      demo_photos=True,
      bbox=['-1,2,3,4', '5,6,7,8'],
      hand=['left', 'right'],
      hand_mask='k.png',
      mano_dir='m',
      focal=700.0,
      axes='camera',
      overwrite=True,
      refine='off',
    )
  ]


def test_two_dashes_end_the_flags(options):
  assert run('a.jpg', '--workdir=w', '--', '--hand', 'help', '--', '-b.jpg') == 0
  assert options[0].photos == ['a.jpg', '--hand', 'help', '--', '-b.jpg']
  assert options[0].hand == []


def test_a_subcommand_goes_by_its_exact_name(options, capsys):
  """In the first place; a photo of that name has its folder before it."""
  assert run('help') == 0
  assert 'usage: hand-jax' in capsys.readouterr().out
  for photo in ('./help', 'Help', 'help.jpg', 'hel'):
    assert run(photo) == 0
    assert options[-1].photos == [photo]
  assert run('a.jpg', 'help') == 2
  assert len(options) == 4
  assert 'a photo of that name is ./help' in capsys.readouterr().err


def test_a_subcommand_gets_the_rest_and_gives_the_exit_code(monkeypatch):
  """One row and one module make one."""
  module = types.ModuleType('hand_jax.commands.tickle')
  module.run = lambda arguments: len(arguments)
  monkeypatch.setitem(sys.modules, 'hand_jax.commands.tickle', module)
  monkeypatch.setitem(subcommands.SUBCOMMANDS, 'tickle', Subcommand('tickle', 'makes it laugh'))
  assert run('tickle', '--most', 'palm') == 2
  assert run('help', 'tickle') == 1  # ['--help']


def test_help_names_every_flag_and_subcommand(capsys):
  assert run('--help') == 0
  text = capsys.readouterr().out
  assert run('help') == 0
  assert capsys.readouterr().out == text
  for name in (*PhotoOptions._fields[1:], 'version'):
    assert f'--{name}' in text
  for name, subcommand in subcommands.SUBCOMMANDS.items():
    assert f'  {name}' in text and subcommand.summary in text
  assert run('help', 'help') == 0
  assert 'usage: hand-jax help' in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys):
  assert run('--version') == 0
  assert capsys.readouterr().out == f'hand-jax {__version__}\n'


def test_nothing_at_all_gets_a_short_help(capsys):
  assert run() == 2
  out, error = capsys.readouterr()
  assert out == '' and 'usage: hand-jax' in error and '--help' in error


WRONG_USE = {
  'unknown flag': (['a.jpg', '--wrokdir=w'], '--wrokdir'),
  'abbreviated flag': (['a.jpg', '--work=w'], '--work'),
  'no value': (['a.jpg', '--bbox'], '--bbox'),
  'a value like a flag': (['a.jpg', '--bbox', '-1,2,3,4'], 'written after =, as in --bbox=-5'),
  'no such side': (['a.jpg', '--hand=up'], "'up'"),
  'no number': (['a.jpg', '--focal=long'], "'long'"),
  'no such axes': (['a.jpg', '--axes=z_up'], "'z_up'"),
  'no such refinement': (['a.jpg', '--refine=maybe'], "'maybe'"),
  'value of a switch': (['--demo_photos=3'], '--demo_photos'),
  'no such subcommand': (['help', 'dance'], "'dance'"),
  'no photo': (['--workdir=w'], 'No photo is named'),
  'no photo after the flags': (['--workdir=w', '--'], 'No photo is named'),
  'no run': (['a.jpg', '--workdir=nowhere'], 'holds no training run'),
  'no output': (['a.jpg', '--workdir=w', '--output='], '--output=DIR'),
  'an address': (['https://example.com/a.jpg'], 'copy what is there. hand-jax --help says'),
  'no box': (['a.jpg', '--workdir=w', '--bbox=1,2'], '--bbox=1,2'),
}


@pytest.mark.parametrize('case', WRONG_USE)
def test_wrong_use_is_one_line_and_code_2(case, tmp_path, monkeypatch, capsys):
  arguments, message = WRONG_USE[case]
  monkeypatch.chdir(tmp_path)
  assert run(*arguments) == 2
  out, error = capsys.readouterr()
  assert out == '' and error.startswith('Error: ') and message in error
  assert error.count('\n') == 1 and not list(tmp_path.iterdir())


def test_mistakes_are_told_before_jax_is_imported(tmp_path):
  """That takes seconds; for nothing where no photo is there, or the flags are wrong."""
  cases = {
    2: ['--wrokdir=w', '--hand=up a.jpg', '--workdir=w', 'a.jpg --bbox=1,2', 'a.jpg --output='],
    1: ['a.jpg', 'a.jpg b.jpg --hand=left', 'a.jpg --bbox=1,2,3,4'],
  }
  code = f"""
import sys
from hand_jax.commands.main import main
for expected, lines in {cases}.items():
  for line in lines:
    try:
      code = main(line.split())
    except SystemExit as end:
      code = end.code
    assert code == expected, line
assert not {{'jax', 'flax', 'orbax'}} & set(sys.modules)
"""
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = done.stderr.splitlines()
  assert len(lines) == 5 + 4 and all(line.startswith('Error: ') for line in lines)
  assert lines[-4:] == [f'Error: Image {name}.jpg does not exist.' for name in 'aaba']


def test_a_box_beside_the_photo_is_wrong_use(workdir, photo, tmp_path, capsys):
  Image.fromarray(photo).save(tmp_path / 'a.png')
  flags = [f'--workdir={workdir}', f'--output={tmp_path / "out"}', '--bbox=900,900,9,9']
  assert run(str(tmp_path / 'a.png'), *flags) == 2
  assert 'lies outside' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_exit_codes_count_the_photos_that_failed(workdir, photo, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  Image.fromarray(photo).save('a.png')
  Image.fromarray(photo).save('help', 'png')
  assert run('./help', 'a.png', f'--workdir={workdir}') == 0
  out, error = capsys.readouterr()
  assert out.count('\n') == 3 and error == '' and out.endswith('hand_jax_output/report.html\n')
  assert {'help.npz', 'a.npz'} <= {path.name for path in pathlib.Path('hand_jax_output').iterdir()}
  pathlib.Path('text.jpg').write_text('no photo')
  assert run('gone.png', 'a.png', 'text.jpg', f'--workdir={workdir}', '--output=some') == 1
  out, error = capsys.readouterr()
  first, second = error.splitlines()
  assert first.startswith('Error: ') and 'gone.png does not exist' in first
  assert second.startswith('Error: ') and 'text.jpg' in second
  assert out.startswith('a.png: right hand') and pathlib.Path('some/a.obj').exists()
  assert run('gone.png', f'--workdir={workdir}', '--output=none') == 1
  out, error = capsys.readouterr()
  assert out == '' and error.count('\n') == 1 and not pathlib.Path('none').exists()


def test_no_hand_is_a_result(photo, tmp_path, monkeypatch, capsys):
  """No run is needed. tests/detection has photos without hands."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda *_: [])
  Image.fromarray(photo).save('a.png')
  Image.fromarray(photo[:1, :1]).save('pixel.png')
  assert run('a.png', 'pixel.png') == 0
  lines = 'a.png: no hand found\npixel.png: no hand found\nReport: hand_jax_output/report.html\n'
  assert capsys.readouterr() == (lines, '')
  names = {path.name for path in pathlib.Path('hand_jax_output').iterdir()}
  assert names == {'summary.json', 'report.html'}


def test_ten_hands_get_ten_names(workdir, model, photo, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  sides = ['left', 'right'] * 5
  monkeypatch.setattr(
    hand_reconstructor, 'detect_hands', lambda *a: [found_hand(a[0], model, s) for s in sides]
  )
  Image.fromarray(photo).save('a.png')
  assert run('a.png', f'--workdir={workdir}') == 0
  assert capsys.readouterr().out.count('a.png: ') == 10
  meshes = {path.name for path in pathlib.Path('hand_jax_output').glob('*_*_*t.glb')}
  assert meshes == {f'a_{number}_{side}.glb' for number, side in enumerate(sides, start=1)}


def test_ctrl_c_in_the_middle_keeps_what_is_done(workdir, photo, tmp_path, monkeypatch):
  """The first photo is whole and remembered; of the second nothing appears; a rerun goes on."""
  monkeypatch.chdir(tmp_path)
  for name in ('a.png', 'b.png'):
    Image.fromarray(photo).save(name)
  write = pathlib.Path.write_bytes

  def interrupted(path, data):
    if path.name == 'b.obj':
      raise KeyboardInterrupt
    return write(path, data)

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'write_bytes', interrupted)
    assert run('a.png', 'b.png', f'--workdir={workdir}') == 130
  names = {path.name for path in pathlib.Path('hand_jax_output').iterdir()}
  assert 'a.obj' in names and not [name for name in names if name.startswith(('b', '.'))]
  assert run('a.png', 'b.png', f'--workdir={workdir}') == 0
  assert pathlib.Path('hand_jax_output/b.obj').exists()


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
  workdir, photo, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  Image.fromarray(photo).save('a.png')

  def full(path, data):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'write_bytes', full)
    assert run('a.png', f'--workdir={workdir}') == 1
  error = capsys.readouterr().err
  assert error.count('No space left on device') >= 1
  assert all(line.startswith('Error: ') for line in error.splitlines())
  assert not list(pathlib.Path('hand_jax_output').iterdir())


def test_a_folder_that_cannot_be_made_is_told_before_any_photo(
  photo, tmp_path, monkeypatch, capsys
):
  """By the system's reason and what to do, with the code of wrong use, and no folder is left."""
  monkeypatch.chdir(tmp_path)
  Image.fromarray(photo).save('a.png')

  def full(path, *_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  expected = (
    'Error: Results cannot go to tm/o: no space left on the device. Free some room and run the '
    'same command again.\n'
  )
  for place, name in ((pathlib.Path, 'mkdir'), (folder_lock, 'open')):
    with monkeypatch.context() as patch:
      patch.setattr(place, name, full, raising=False)
      assert run('a.png', '--output=tm/o') == 2
    assert capsys.readouterr() == ('', expected)
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
  assert run('a.png', f'--output={"o" * 300}') == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and error.endswith(
    'name too long. Name a folder with a shorter name.\n'
  )
  if pathlib.Path('/proc').is_dir():  # where nobody makes folders
    assert run('a.png', '--output=/proc/foo') == 2
    assert capsys.readouterr().err.startswith('Error: Results cannot go to /proc/foo: ')


def test_an_error_about_a_file_is_no_closed_output(monkeypatch, capsys):
  def fail(*_):
    pathlib.Path('/missing/file').read_text()

  monkeypatch.setattr(reconstruct_photos, 'reconstruct_and_tell', fail)
  assert run('a.jpg') == 1
  assert capsys.readouterr().err.endswith("No such file or directory: '/missing/file'\n")


def test_the_home_folder_is_expanded(options, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  names = ('workdir', 'output', 'hand_mask', 'mano_dir')
  assert run('a.jpg', *[f'--{name}=~/{name}' for name in names]) == 0
  assert [getattr(options[0], name) for name in names] == [f'{tmp_path}/{name}' for name in names]
  assert run('a.jpg', '--workdir=here/~') == 0
  assert options[1].workdir == 'here/~'


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(reconstruct_photos, 'reconstruct_and_tell', interrupt)
  assert run('a.jpg', '--workdir=w') == 130
  assert capsys.readouterr().err.startswith('Error: stopped')


def test_the_launch_of_the_same_code_has_the_same_flags(run_command):
  """experiments.reconstruct names photos by --image; all else is as in hand-jax."""
  declared = run_command(launch.__name__, '--helpshort').stdout
  for name in ('image', *PhotoOptions._fields[1:]):
    assert f'--{name}:' in declared or f'--[no]{name}:' in declared


def test_the_launch_prints_one_line_and_fails(tmp_path, run_command):
  """As hand-jax does, with its code."""
  flags = ['--image=a.jpg', '--workdir=nowhere', f'--output={tmp_path / "out"}']
  result = run_command(launch.__name__, *flags)
  assert result.returncode == 2 and result.stdout == ''
  lines = [line for line in result.stderr.splitlines() if 'xla' not in line.lower()]
  assert len(lines) == 1 and lines[0].startswith('Error: nowhere') and 'without a run' in lines[0]
