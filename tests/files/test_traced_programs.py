"""Traced programs are kept, read back, and traced anew where that is not possible."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.files import traced_programs
from hand_jax.files.traced_programs import keep_traced


class Pair(NamedTuple):
  total: jax.Array
  scaled: jax.Array


class Input(NamedTuple):
  x: jax.Array
  weights: dict[str, jax.Array]


@pytest.fixture
def folder(tmp_path):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  yield tmp_path
  jax.config.update('jax_compilation_cache_dir', before)


def program(traces: list[tuple]):
  """A new process's program; `traces` gets the shapes that it is traced for."""

  def function(value: Input) -> Pair:
    traces.append(value.x.shape)
    return Pair(value.x.sum(), value.x * value.weights['a'][None])

  return keep_traced('pair', function, (Pair, Input))


def check(call, rows: int = 3) -> None:
  x = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
  result = call(Input(x, {'a': np.array([2, 3], np.float32)}))
  assert isinstance(result, Pair)
  np.testing.assert_array_equal(result.total, x.sum())
  np.testing.assert_array_equal(result.scaled, x * [2, 3])


def kept(folder) -> list[pathlib.Path]:
  return sorted(folder.glob('pair-*.stablehlo'))


def test_a_later_process_reads_what_was_traced(folder):
  traces = []
  check(program(traces))
  assert len(traces) == 1 and len(kept(folder)) == 1
  later = program(traces)
  check(later)
  check(later)
  assert len(traces) == 1


def test_other_shapes_and_settings_are_other_programs(folder):
  traces = []
  check(program(traces))
  check(program(traces), rows=5)
  assert traces == [(3, 2), (5, 2)]
  with jax.default_matmul_precision('bfloat16'):
    check(program(traces))
  assert len(kept(folder)) == 3


@pytest.mark.parametrize('content', [b'', b'no program', None])
def test_a_damaged_file_is_traced_anew_and_mended(folder, content):
  traces = []
  check(program(traces))
  (path,) = kept(folder)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2] if content is None else content)
  check(program(traces))
  assert len(traces) == 2
  check(program(traces))
  assert len(traces) == 2


def test_nothing_is_kept_without_a_folder(folder):
  jax.config.update('jax_compilation_cache_dir', None)
  traces = []
  check(program(traces))
  check(program(traces))
  assert len(traces) == 2 and not kept(folder)


def test_a_folder_that_takes_no_file_does_no_harm(folder):
  traces = []
  jax.config.update('jax_compilation_cache_dir', str(folder / 'gone' / 'file'))
  (folder / 'gone').write_text('a file where the folder should be')
  check(program(traces))
  assert len(traces) == 1


def test_a_changed_source_is_traced_anew(folder, monkeypatch):
  traces = []
  check(program(traces))
  monkeypatch.setattr(traced_programs, '_sources_digest', lambda: b'another version')
  check(program(traces))
  assert len(traces) == 2 and len(kept(folder)) == 2


def test_the_options_for_products_reach_the_compiler(folder, monkeypatch):
  """An option that does not exist is refused when the program is compiled."""
  monkeypatch.setattr(traced_programs, 'product_options', lambda: {'no_such_option': 3})
  call = keep_traced('sum', jnp.sum, ())
  with pytest.raises(jax.errors.JaxRuntimeError, match='no_such_option'):
    call(np.ones(3, np.float32))


@pytest.mark.usefixtures('folder')
def test_an_empty_folder_name_keeps_nothing(tmp_path, monkeypatch):
  """Least of all in the current folder, which is what an empty path means."""
  monkeypatch.chdir(tmp_path)
  jax.config.update('jax_compilation_cache_dir', '')
  check(program([]))
  assert not list(tmp_path.iterdir())
