"""Measures how plain our prose is: docstrings that start with a verb, `Args:`, semicolons.

    python -m tools.measure_prose [FOLDER]

The tool prints the figures of the library, or of one folder. With `--list` it prints what is left
to mend.
"""

import argparse
import ast
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
MANY_ARGUMENTS = 3
# These first words of docstrings end like a verb in the third person and are none.
# fmt: off
_NOUNS = {
  'across', 'always', 'as', 'bias', 'class', 'colours', 'crops', 'degrees', 'errors',
  'euclidean', 'examples', 'fingertips', 'gaussians', 'hands', 'has', 'indices', 'its',
  'joints', 'landmarks', 'less', 'levels', 'losses', 'marginals', 'photos', 'pixels',
  'plus', 'predictions', 'press', 'residuals', 'rows', 'scores', 'series', 'settings',
  'softmax', 'terms', 'this', 'thus', 'values', 'various', 'vertices', 'was', 'zeros',
}
# fmt: on


class Prose(NamedTuple):
  """Counts over the docstrings and comments of some files."""

  documented: int
  """Counts public functions with a docstring."""
  verb_first: int
  """Counts those whose docstring starts with a verb."""
  many_arguments: int
  """Counts public functions with at least three arguments."""
  with_args: int
  """Counts those whose docstring has a section `Args:`."""
  words: int
  """Counts the words of docstrings and comments."""
  semicolons: int

  def text(self) -> str:
    """Writes the figures as three lines."""
    return (
      f'{self.verb_first} of {self.documented} public docstrings start with a verb '
      f'({self.verb_first / max(self.documented, 1):.0%}).\n'
      f'{self.with_args} of {self.many_arguments} public functions with three or more arguments '
      f'have Args: ({self.with_args / max(self.many_arguments, 1):.0%}).\n'
      f'{self.semicolons_per_hundred_words:.2f} semicolons in a hundred words of docstrings and '
      'comments.'
    )

  @property
  def semicolons_per_hundred_words(self) -> float:
    """Returns how many semicolons a hundred words have on average."""
    return 100 * self.semicolons / max(self.words, 1)


class Fault(NamedTuple):
  """A place that does not count as plain."""

  path: pathlib.Path
  line: int
  reason: str


def measure_prose(folder: pathlib.Path) -> tuple[Prose, list[Fault]]:
  """Counts over the Python files of a folder and its subfolders, and lists the faults."""
  total, faults = Prose(0, 0, 0, 0, 0, 0), []
  for path in sorted(folder.rglob('*.py')):
    counts, found = _measure_file(path)
    total = Prose(*(sum(pair) for pair in zip(total, counts, strict=True)))
    faults += found
  return total, faults


def starts_with_verb(docstring: str) -> bool:
  """Returns whether the first word looks like a verb in the third person, such as `Reads`."""
  word = re.match(r"[A-Za-z']+", docstring.strip())
  if word is None:
    return False
  lower = word.group().lower()
  return lower in ('does', 'is') or (lower.endswith('s') and lower not in _NOUNS)


def _measure_file(path: pathlib.Path) -> tuple[Prose, list[Fault]]:
  source = path.read_text()
  tree = ast.parse(source)
  counts = dict.fromkeys(Prose._fields, 0)
  faults: list[Fault] = []
  for function in _public_functions(tree):
    docstring = ast.get_docstring(function) or ''
    many = _argument_count(function) >= MANY_ARGUMENTS
    counts['documented'] += bool(docstring)
    counts['verb_first'] += starts_with_verb(docstring)
    counts['many_arguments'] += many
    counts['with_args'] += many and 'Args:' in docstring
    if docstring and not starts_with_verb(docstring):
      faults.append(Fault(path, function.lineno, f'{function.name}: no verb first'))
    if many and 'Args:' not in docstring:
      faults.append(Fault(path, function.lineno, f'{function.name}: no Args:'))
  for line, text in _texts(tree, source):
    counts['words'] += len(text.split())
    counts['semicolons'] += text.count(';')
    if ';' in text:
      faults.append(Fault(path, line, 'semicolon'))
  return Prose(**counts), faults


def _public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
  """Yields functions and methods that neither start with an underscore nor lie in private ones."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith('_'):
      if isinstance(child, ast.FunctionDef):
        yield child
      else:
        yield from _public_functions(child)
    elif isinstance(child, ast.If | ast.With | ast.Try):
      yield from _public_functions(child)


def _argument_count(function: ast.FunctionDef) -> int:
  arguments = function.args
  named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
  return sum(argument.arg not in ('self', 'cls') for argument in named)


def _texts(tree: ast.AST, source: str) -> Iterator[tuple[int, str]]:
  """Yields every docstring and comment with its line."""
  for node in ast.walk(tree):
    # The docstring of a field is a text that stands alone as a statement.
    value = node.value if isinstance(node, ast.Expr) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
      yield node.lineno, value.value
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      yield token.start[0], token.string.lstrip('# ')


def main() -> None:
  """Prints the figures, and with `--list` the places that are left."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', nargs='?', type=pathlib.Path, default=ROOT / 'hand_jax')
  parser.add_argument('--list', action='store_true', help='list the places that are left')
  options = parser.parse_args()
  prose, faults = measure_prose(options.folder)
  if options.list:
    for path, line, reason in faults:
      print(f'{path}:{line}: {reason}')
  print(prose.text())


if __name__ == '__main__':
  main()
