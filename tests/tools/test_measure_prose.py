"""The measure of our prose counts right, and the library stays plain by it."""

import pathlib
import textwrap

import pytest

from tools.measure_prose import ROOT, measure_prose, starts_with_verb


@pytest.mark.parametrize(
  'docstring, expected',
  [
    ('Reads a photo.', True),
    ('Does one photo.', True),
    ('The photo, read.', False),
    ('Vertices of a hand.', False),
    ('', False),
    ('21 joints.', False),
  ],
)
def test_a_verb_is_told_from_a_noun(docstring, expected):
  assert starts_with_verb(docstring) == expected


def test_counts_are_those_of_the_text(tmp_path):
  text = '''
    """A module; with one semicolon."""

    def reads(a, b, c):
      """Reads three things.

      Args:
        a: one.
        b: two.
        c: three.
      """

    def the(a, b, *, c):
      """The thing."""  # why; because

    class Box:
      """Holds a thing."""

      width: int
      """In pixels; never in metres."""

      def area(self, unit):
        """Computes the area."""

      def _hidden(self, a, b, c):
        """Nothing; to count here but words."""
  '''
  path = pathlib.Path(tmp_path) / 'a.py'
  path.write_text(textwrap.dedent(text))
  prose, faults = measure_prose(tmp_path)
  assert (prose.documented, prose.verb_first) == (3, 2)
  assert (prose.many_arguments, prose.with_args) == (2, 1)
  assert prose.semicolons == 4
  reasons = [fault.reason for fault in faults]
  assert reasons.count('semicolon') == 4
  assert 'the: no verb first' in reasons and 'the: no Args:' in reasons


def test_the_library_is_written_plainly():
  prose, _ = measure_prose(ROOT / 'hand_jax')
  assert prose.with_args >= 0.95 * prose.many_arguments, prose.text()
  assert prose.verb_first >= 0.7 * prose.documented, prose.text()
  assert prose.semicolons_per_hundred_words < 0.4, prose.text()
