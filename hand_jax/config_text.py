"""Conversion of configs from and to text: typed `a.b=value` overrides, and JSON."""

import ast
import dataclasses
import difflib
import json
import typing
from collections.abc import Sequence
from typing import Any, Literal

from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.files.paths import DATA_SCHEMES, RUN_SCHEMES, expand_path
from hand_jax.setting_checks import validate_config

# These settings hold files or folders, so a leading `~` is expanded in them.
PATH_SETTINGS = (
  'data.data_dir',
  'model.backbone.weights',
  'training.init_from',
  'training.camera_prior',
)
# Those of them that may lie in a bucket, and in which.
_BUCKET_SETTINGS = {
  'data.data_dir': DATA_SCHEMES,
  'training.init_from': RUN_SCHEMES,
  'training.camera_prior': RUN_SCHEMES,
}
# What a run meant by leaving out a setting that did not exist yet, where it is not the default.
BEFORE_THEY_EXISTED = {
  'data.hands': 'classic',
  'model.camera_log_variance': 0.0,
  'loss.camera_draws': 'two',
}


def apply_overrides(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
  """Applies each text `a.b=value` in order, and checks the resulting config.

  The setting's type decides how its value is read. Tuples of numbers are written `1024,512` or
  `(1024, 512)`, tuples of texts `a,b`, and booleans `true` and `false`. A leading `~` of a file or
  folder becomes the user's home folder.

  Raises:
    ValueError: a text has no '=', a setting is unknown (the error lists the nearest and all valid
      names), a value has another type, or `validate_config` refuses the config.
  """
  for text in overrides:
    path, equals, value = text.partition('=')
    if not equals:
      raise ValueError(f'Expected setting=value, got {text!r}.')
    config = _replace(config, '', path.strip().split('.'), value.strip())
  return validate_config(config)


def config_to_json(config: ExperimentConfig) -> str:
  """Writes the whole config as indented JSON, in the order of the dataclasses."""
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def config_from_json(text: str, source: str = 'the config') -> ExperimentConfig:
  """Reads a config from the text of `config_to_json`.

  A setting that the text lacks takes its default, or its value in `BEFORE_THEY_EXISTED`.

  Args:
    text: the JSON.
    source: the name of the text in errors.

  Raises:
    ValueError: the text is not JSON, a setting is unknown, a value has another type, or
      `validate_config` refuses the config.
  """
  try:
    tree = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{source} is not valid JSON: {error}.') from None
  try:
    return validate_config(_from_tree(ExperimentConfig, _with_old_meanings(tree), ''))
  except ValueError as error:
    raise ValueError(f'{source}: {error}') from None


def config_differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
  """Lists the settings that differ, one text each: `name: ours, not theirs`."""
  left, right = flatten_config(ours), flatten_config(theirs)
  return [
    f'{path}: {left[path]!r}, not {right[path]!r}' for path in left if left[path] != right[path]
  ]


def _unknown(path: str, kind: Any) -> ValueError:
  """Makes the error for a `path` whose last name is no field of the dataclass `kind`."""
  names = [field.name for field in dataclasses.fields(kind)]
  prefix, _, key = path.rpartition('.')
  by_name = {setting.rpartition('.')[2]: setting for setting in flatten_config(ExperimentConfig())}
  if near := difflib.get_close_matches(key, names, n=1):
    hint = f' Did you mean {f"{prefix}.{near[0]}" if prefix else near[0]}?'
  elif near := difflib.get_close_matches(key, by_name, n=1):
    hint = f' Did you mean {by_name[near[0]]}?'
  else:
    hint = ''
  return ValueError(f'Unknown setting {path!r}.{hint} Valid names here: {", ".join(names)}.')


def _replace(node: Any, prefix: str, keys: list[str], text: str) -> Any:
  """Replaces one setting of `node`, whose own full name is `prefix`, by the value of `text`."""
  key, rest = keys[0], keys[1:]
  path = f'{prefix}{key}'
  if key not in {field.name for field in dataclasses.fields(node)}:
    raise _unknown(path, node)
  old = getattr(node, key)
  if dataclasses.is_dataclass(old):
    if not rest:
      names = ', '.join(field.name for field in dataclasses.fields(old))
      raise ValueError(f'{path} is a group of settings; set one of {names}.')
    return dataclasses.replace(node, **{key: _replace(old, f'{path}.', rest, text)})
  if rest:
    raise ValueError(f'{path} is a value; it has no setting {".".join(rest)!r}.')
  wanted = typing.get_type_hints(type(node))[key]
  value = _convert(_parse(text, wanted), wanted, path)
  if path in PATH_SETTINGS:
    schemes = _BUCKET_SETTINGS.get(path, ())
    expanded = [expand_path(each, schemes) for each in _as_tuple(value)]
    value = tuple(expanded) if isinstance(value, tuple) else expanded[0]
  return dataclasses.replace(node, **{key: value})


def _as_tuple(value: Any) -> tuple[Any, ...]:
  return value if isinstance(value, tuple) else (value,)


def _parse(text: str, wanted: Any) -> Any:
  """Reads a text as a value for a setting of this type. `_convert` checks the type afterwards."""
  if wanted is str or typing.get_origin(wanted) is Literal:
    return text
  if typing.get_args(wanted)[:1] == (str,):
    return tuple(text.split(',')) if text else ()
  if wanted is bool:
    return {'true': True, 'false': False}.get(text.lower(), text)
  try:
    value = ast.literal_eval(text) if text else ()
  except (ValueError, SyntaxError):
    return text
  if typing.get_origin(wanted) is tuple and not isinstance(value, tuple | list):
    return (value,)
  return value


def _convert(value: Any, wanted: Any, path: str) -> Any:
  """Converts a value to the setting's type, or raises a ValueError that names that type."""
  origin = typing.get_origin(wanted)
  if origin is Literal:
    choices = typing.get_args(wanted)
    if value not in choices:
      raise ValueError(f'{path} should be one of {", ".join(map(repr, choices))}, got {value!r}.')
    return value
  if origin is tuple and isinstance(value, tuple | list):
    return tuple(_convert(item, typing.get_args(wanted)[0], path) for item in value)
  if wanted is float and type(value) in (int, float):
    return float(value)
  if origin is None and type(value) is wanted:
    return value
  name = f'a list of {typing.get_args(wanted)[0].__name__}' if origin is tuple else wanted.__name__
  raise ValueError(f'{path} should be {name}, got {value!r}.')


def _with_old_meanings(tree: Any) -> Any:
  """Adds the values of `BEFORE_THEY_EXISTED` for settings that are missing."""
  for path, value in BEFORE_THEY_EXISTED.items():
    group, _, name = path.partition('.')
    if isinstance(tree, dict) and isinstance(tree.get(group), dict):
      tree[group].setdefault(name, value)
  return tree


def _from_tree(kind: Any, tree: Any, prefix: str) -> Any:
  if not isinstance(tree, dict):
    raise ValueError(f'{prefix.rstrip(".") or "config"} should be a group of settings.')
  hints = typing.get_type_hints(kind)
  values = {}
  for key, value in tree.items():
    path = f'{prefix}{key}'
    if key not in hints:
      raise _unknown(path, kind)
    if dataclasses.is_dataclass(hints[key]):
      values[key] = _from_tree(hints[key], value, f'{path}.')
    else:
      values[key] = _convert(value, hints[key], path)
  return kind(**values)
