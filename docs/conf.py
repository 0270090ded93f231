"""Sphinx's settings: the guides of this folder, the notebooks, and the API from docstrings."""

import os
import pathlib
import re
import sys

# Documenting needs no accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
ROOT = pathlib.Path(__file__).parent.parent
DOCS, PACKAGE = ROOT / 'docs', ROOT / 'hand_jax'
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from hand_jax.version import VERSION  # noqa: E402

# The tables among the constants are shown in short.
np.set_printoptions(threshold=8, edgeitems=1)

project = 'hand_jax'
author = 'The hand_jax authors'
copyright = author
version = release = VERSION

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
html_theme = 'furo'
html_title = f'hand_jax {VERSION}'
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

# The guides link to headings of one another. Notebooks run in the tests, not here.
myst_heading_anchors = 4
nb_execution_mode = 'off'
# The page of the ablations is a part that a command writes: its tables have small headings.
suppress_warnings = ['myst.header']

autodoc_default_options = {'members': True, 'special-members': '__call__'}
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Names in backticks are code, which may or may not have a page.
default_role = 'code'

# What no longer reads as text but as markup where a docstring has it outside of code.
# Code in backticks and blocks that are indented by four stay as they are.
_MARKUP = re.compile(r'(^    .*$|``[^`]*``|`[^`]*`)|([*|\\])|(\w)_(?!\w)', re.MULTILINE)
# The flax fields of every network, and what a named tuple says of each of its fields.
_SKIPPED_NAMES = ('parent', 'scope')
_FIELD = 'Alias for field number'


def write_api_pages() -> None:
  """Writes a page for each room into docs/api, which git ignores."""
  folder = DOCS / 'api'
  folder.mkdir(exist_ok=True)
  rooms = sorted({path.parent for path in PACKAGE.rglob('*.py') if path.parent != PACKAGE})
  pages = [('vocabulary', 'Files outside the rooms', PACKAGE)]
  for room in rooms:
    name = '.'.join(room.relative_to(PACKAGE).parts)
    pages.append((name, name, room))
  for name, title, room in pages:
    modules = sorted(path for path in room.glob('*.py') if not path.stem.startswith('__'))
    lines = [title, '=' * len(title), '']
    for path in modules:
      module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
      heading = module.replace('_', r'\_')
      lines += [heading, '-' * len(heading), '', f'.. automodule:: {module}', '']
    _write_changed(folder / f'{name}.rst', lines)
  title = 'API'
  entries = [f'   {name}' for name, _, _ in pages]
  text = (
    'One page for each room of the code; :doc:`/architecture` draws them. Shapes are written as '
    "``Float[Array, '*batch 21 3']``: the kind of number, the kind of array, and its axes by "
    'name or size. What ``import hand_jax`` offers is listed in ``hand_jax.__all__``.'
  )
  toctree = ['.. toctree::', '   :maxdepth: 1', '', *entries]
  _write_changed(folder / 'index.rst', [title, '=' * len(title), '', text, '', *toctree])


def _write_changed(path: pathlib.Path, lines: list[str]) -> None:
  """Leaves a page alone that is as it should be, so that it is not built anew."""
  text = '\n'.join(lines) + '\n'
  if not path.exists() or path.read_text() != text:
    path.write_text(text)


def escape_markup(app, what, name, obj, options, lines: list[str]) -> None:
  """Makes a docstring's own signs plain text: |x|, a*b and x_ are mathematics here."""
  lines[:] = _MARKUP.sub(_escaped, '\n'.join(lines)).split('\n')


def _escaped(match: re.Match) -> str:
  code, sign, letter = match.groups()
  if code:  # In a plural such as `HandBatch`es, an empty separator ends the code.
    return code + r'\ ' * match.string[match.end() :][:1].isalnum()
  return rf'\{sign}' if sign else rf'{letter}\_'


def skip_member(app, what, name, obj, skip, options) -> bool | None:
  """Leaves out what says nothing: fields whose types the signature has."""
  if name in _SKIPPED_NAMES or str(getattr(obj, '__doc__', '')).startswith(_FIELD):
    return True
  return None


def shorten_signature(app, what, name, obj, options, signature, returned):
  """Writes arrays as the code does: `Array`, not the module that JAX has it from."""

  def shorten(text: str | None) -> str | None:
    return text and text.replace('jaxlib._jax.Array', 'Array').replace('jax.Array', 'Array')

  return shorten(signature), shorten(returned)


def adapt_page(app, name: str, source: list[str]) -> None:
  """Points links to the READMEs of the data sets at their pages here, and titles the tables."""
  if name == 'results/ablations':
    source[0] = f'# Ablations\n\n{source[0]}'
  source[0] = re.sub(
    r'\]\((?:\.\./)+(?:datasets/)?(\w+)/README\.md', r'](/formats/\1.md', source[0]
  )


def setup(app) -> None:
  write_api_pages()
  # Before napoleon reads the sections.
  app.connect('autodoc-process-docstring', escape_markup, priority=100)
  app.connect('autodoc-skip-member', skip_member)
  app.connect('autodoc-process-signature', shorten_signature)
  app.connect('source-read', adapt_page)
  app.connect('include-read', lambda app, path, name, source: adapt_page(app, name, source))
