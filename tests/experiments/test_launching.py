"""Launches: each mistake is one line on stderr, with exit code 2; failures have exit code 1."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What `main` does, and the line and the exit code that follow.
ENDINGS = {
  'nothing': ('None', '', 0),
  'a code of its own': ('3', '', 3),
  'wrong value': ("fail(ValueError('a = 1,\\n  expected 2'))", 'Error: a = 1, expected 2\n', 2),
  'wrong path': ("open('/nowhere')", "No such file or directory: '/nowhere'\n", 2),
  'full disk': ("fail(OSError(28, 'No space left'))", 'Error: [Errno 28] No space left\n', 1),
  'Ctrl-C': ('fail(KeyboardInterrupt())', 'Error: stopped. What is written is whole.\n', 130),
  'a pipe to a dead process': (
    "fail(BrokenPipeError(32, 'Broken pipe'))",
    'Error: [Errno 32] Broken pipe\n',
    1,
  ),
  'failure': ("fail(FloatingPointError('total = nan'))", 'Error: total = nan\n', 1),
}
MISTAKES = {
  'unknown flag': (['--worker=w'], "Unknown command line flag 'worker'. Did you mean --workdir?"),
  'no value': (['--workdir'], 'Missing value for flag --workdir.'),
  'no such choice': (['--side=up'], '--side=up: value should be one of <right|left>.'),
  'missing flag': ([], '--side is missing.'),
}
PROGRAM = """
from absl import flags
from experiments.launching import launch, start

def fail(error):
  raise error

flags.DEFINE_string('workdir', None, '')
flags.DEFINE_enum('side', None, ['right', 'left'], '', required=True)
launch(lambda argv: start(argv) or {action}, failures=[FloatingPointError])
"""


def run_program(action: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-c', PROGRAM.format(action=action), *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize('name', ENDINGS)
def test_an_ending_is_one_line_and_a_code(name):
  action, line, code = ENDINGS[name]
  done = run_program(action, '--side=left')
  assert (done.returncode, done.stdout) == (code, '')
  assert done.stderr.endswith(line) and done.stderr.count('\n') == bool(line)


@pytest.mark.parametrize(
  'action',
  ["[print('x', flush=True) for _ in range(99999)]", "print('x' * 9)", "fail(ValueError('a'))"],
)
def test_nothing_is_said_to_a_reader_that_has_gone(action):
  """As of `| head -1`; also where the output was still in a buffer. Errors are told."""
  program = PROGRAM.format(action=action)
  reading, writing = os.pipe()
  os.close(reading)
  try:
    done = subprocess.run(
      [sys.executable, '-c', program, '--side=left'],
      cwd=ROOT,
      stdout=writing,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  finally:
    os.close(writing)
  expected = ('Error: a\n', 2) if 'fail' in action else ('', 141)
  assert (done.stderr, done.returncode) == expected


def test_other_errors_keep_their_traceback():
  done = run_program("fail(KeyError('bug'))", '--side=left')
  assert done.returncode == 1 and 'Traceback' in done.stderr


@pytest.mark.parametrize('name', MISTAKES)
def test_a_flag_that_cannot_be_read_is_one_line_and_code_2(name):
  arguments, message = MISTAKES[name]
  done = run_program('None', *arguments)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr == f'Error: {message} --help says what can be given.\n'


def test_an_argument_that_is_no_flag_is_refused():
  done = run_program('None', '--side=left', 'x')
  assert done.returncode == 2
  assert done.stderr == "Error: Unexpected argument 'x': settings are given as --name=value.\n"


COMMANDS = sorted(
  '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
  for folder in ('experiments', 'tools')
  for path in (ROOT / folder).rglob('*.py')
  if '\n  launch(main' in path.read_text()
)
# One process for all commands, since each alone would import JAX. Each has flags of its own.
DRIVER = """
import contextlib, io, json, runpy, sys
from absl import flags

endings = {}
for module in sys.argv[1:]:
  for flag in list(flags.FLAGS.flags_by_module_dict().get(sys.argv[0], [])):
    delattr(flags.FLAGS, flag.name)
  flags.FLAGS.unparse_flags()
  sys.argv = [module, '--no_such_flag=1']
  with contextlib.redirect_stderr(io.StringIO()) as told:
    try:
      runpy.run_module(module, run_name='__main__')
    except SystemExit as end:
      endings[module] = [end.code, told.getvalue(), 'compilation_cache_dir' in flags.FLAGS]
print(json.dumps(endings))
"""


# Commands that compile little or nothing, or for other machines.
WITHOUT_CACHE = {'compile_for', 'configs', 'convert_mano', 'prepare_dataset', 'scoreboard'}


@pytest.mark.slow
def test_every_command_tells_mistakes_this_way():
  """And those that compile can be told where to keep the programs."""
  done = subprocess.run(
    [sys.executable, '-c', DRIVER, *COMMANDS], cwd=ROOT, capture_output=True, text=True, check=True
  )
  endings = json.loads(done.stdout)
  assert len(endings) == len(COMMANDS) >= 20
  for module, (code, told, has_cache) in endings.items():
    assert code == 2, module
    assert told.count('\n') == 1 and told.startswith('Error: '), (module, told)
    assert "'no_such_flag'" in told, module
    folder, _, name = module.partition('.')
    assert has_cache == (folder == 'experiments' and name not in WITHOUT_CACHE), module


def test_no_command_is_run_by_absl_alone():
  """Its mistakes would be tracebacks. The benchmarks need programs that tests do not install."""
  folders = [ROOT / name for name in ('benchmarks', 'experiments', 'tools')]
  texts = {path: path.read_text() for folder in folders for path in folder.rglob('*.py')}
  assert [path.name for path, text in texts.items() if 'app.run(' in text] == ['launching.py']
