"""Matrix products on CPUs are XLA's own, unless the user or the version decides otherwise."""

import importlib.metadata
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.commands import main
from hand_jax.files import cpu_products
from hand_jax.files.cpu_products import product_options, set_product_flag

FLAG = '--xla_cpu_experimental_ynn_fusion_type='


def test_products_are_not_given_to_a_library():
  """The text of a program names the library where it is used."""
  x = np.ones((64, 64), np.float32)
  name = FLAG.strip('-=')
  assert product_options() == {name: ''}
  for options, used in (
    (product_options(), False),
    ({name: 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}, True),
  ):
    compiled = jax.jit(jnp.dot, compiler_options=options).lower(x, x).compile()
    assert ('ynn' in compiled.as_text()) == used


def test_a_compiler_without_the_option_is_given_none(monkeypatch):
  def refuse(*_, **options):
    raise jax.errors.JaxRuntimeError(f'No such compile option: {options}')

  monkeypatch.setattr(jax, 'jit', refuse)
  assert product_options.__wrapped__() == {}


def test_other_devices_get_no_option(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert product_options.__wrapped__() == {}


@pytest.mark.parametrize(
  ('version', 'before', 'after'),
  [
    ('0.10.2', None, FLAG),
    ('0.12.0.dev1', '--other', f'--other {FLAG}'),
    ('0.10.2', f'{FLAG}dot', f'{FLAG}dot'),
    ('0.9.2', None, None),
    ('0.13.0', '--other', '--other'),
  ],
)
def test_the_flag_is_added_where_it_is_known(monkeypatch, version, before, after):
  monkeypatch.setattr(importlib.metadata, 'version', lambda _: version)
  monkeypatch.delenv('XLA_FLAGS')
  if before is not None:
    monkeypatch.setenv('XLA_FLAGS', before)
  set_product_flag()
  assert os.environ.get('XLA_FLAGS') == after


def test_the_library_of_a_tpu_gets_no_flag(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--other')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: object())
  set_product_flag()
  assert os.environ['XLA_FLAGS'] == '--other'
  monkeypatch.setattr(cpu_products.importlib.util, 'find_spec', lambda _: None)
  set_product_flag()
  assert os.environ['XLA_FLAGS'] == f'--other {FLAG}'


def test_the_command_sets_the_flag(monkeypatch):
  calls = []
  monkeypatch.setattr(main, 'set_product_flag', lambda: calls.append('set'))
  with pytest.raises(SystemExit):
    main.main(['--version'])
  assert calls == ['set']
