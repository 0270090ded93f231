"""The command that measures a texture branch reads the line that its results hold."""

import shlex

import pytest
from absl import flags

from experiments.evaluate_texture import define_flags
from hand_jax.evaluation.textured_run import TexturedRunRequest, texture_command


@pytest.mark.parametrize(
  'given',
  [
    {},
    {'data_dir': 'a folder', 'limit': 7, 'use_masks': False},
    {'split': 'validation', 'mano_dir': 'mano', 'output': 'docs/it.json'},
  ],
)
def test_the_command_line_measures_the_same_again(given):
  request = TexturedRunRequest(**({'workdir': 'runs/it', 'data_dir': ''} | given))
  words = shlex.split(texture_command(request))
  assert words[:3] == ['python', '-m', 'experiments.evaluate_texture']
  values = flags.FlagValues()
  define_flags(values)
  values(words[2:])
  assert {name: values[name].value for name in request._fields} == request._asdict()
