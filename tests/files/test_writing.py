"""Files and folders appear whole or not at all, and nothing unfinished stays beside them."""

import errno
import json
import pathlib

import pytest

from hand_jax.files.writing import unfinished_path, write_json, write_whole


def names(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


@pytest.mark.parametrize(
  'data, expected', [('zwölf\n', 'zwölf\n'.encode()), (b'\x00\xff', b'\x00\xff')]
)
def test_a_file_is_replaced_by_what_is_written(tmp_path, data, expected):
  path = tmp_path / 'a' / 'b' / 'file.txt'
  for content in ('the old one', data):
    write_whole(path, content)
  assert path.read_bytes() == expected
  assert names(tmp_path) == ['a', 'a/b', 'a/b/file.txt']


def test_the_name_appears_when_the_block_ends(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old')
  with unfinished_path(str(path)) as unfinished:
    unfinished.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new' and names(tmp_path) == ['file']


@pytest.mark.parametrize('is_folder', [False, True])
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, is_folder, error):
  path = tmp_path / 'result'
  path.write_text('old')

  def fail():
    with unfinished_path(path) as unfinished:
      if is_folder:
        unfinished.mkdir()
      (unfinished / 'part' if is_folder else unfinished).write_text('half of it')
      raise error('the disk is full')

  with pytest.raises(error, match='the disk is full'):
    fail()
  assert path.read_text() == 'old' and names(tmp_path) == ['result']


def test_a_block_that_makes_nothing_fails_and_keeps_what_was_there(tmp_path):
  path = tmp_path / 'result'
  path.write_text('old')
  with pytest.raises(FileNotFoundError), unfinished_path(path):
    pass
  assert path.read_text() == 'old' and names(tmp_path) == ['result']


def test_a_folder_appears_with_all_its_files(tmp_path):
  path = tmp_path / 'folder'
  with unfinished_path(path) as unfinished:
    unfinished.mkdir()
    (unfinished / 'first').write_text('1')
    (unfinished / 'second').write_text('2')
    assert not path.exists()
  assert names(tmp_path) == ['folder', 'folder/first', 'folder/second']


@pytest.mark.parametrize('left', ['file', 'folder', 'link'])
def test_what_a_killed_run_left_does_not_matter(tmp_path, left):
  """Found where the unfinished file goes, and removed; what a link points to stays."""
  path = tmp_path / 'file'
  with unfinished_path(path) as unfinished:
    unfinished.touch()
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  (elsewhere / 'kept').write_text('kept')
  if left == 'file':
    unfinished.write_text('half of it, and longer than the new content')
  elif left == 'folder':
    unfinished.mkdir()
    (unfinished / 'part').touch()
  else:
    unfinished.symlink_to(elsewhere)
  write_whole(path, 'new')
  assert path.read_text() == 'new' and not path.is_symlink()
  assert names(tmp_path) == ['elsewhere', 'elsewhere/kept', 'file']


def test_json_is_indented_and_ends_its_last_line(tmp_path):
  path = tmp_path / 'new' / 'rows.json'
  write_json(path, {'a': [1, None]})
  assert json.loads(path.read_text()) == {'a': [1, None]}
  assert path.read_text().startswith('{\n  "a"') and path.read_text().endswith('}\n')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_numbers_that_json_lacks_are_refused_and_the_old_file_stays(tmp_path, value):
  path = tmp_path / 'rows.json'
  write_json(path, [1])
  with pytest.raises(ValueError, match='JSON'):
    write_json(path, [value])
  assert json.loads(path.read_text()) == [1]


@pytest.mark.parametrize('write', [write_whole, write_json])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch, write):
  path = tmp_path / 'scores.json'
  write(path, 'old')
  before = path.read_bytes()
  real = pathlib.Path.write_bytes

  def half(self, data):
    real(self, data[: len(data) // 2])
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', half)
  with pytest.raises(OSError, match=r'^\[Errno 28\] No space left on device: .*/scores\.json\'$'):
    write(path, 'the new content')
  assert path.read_bytes() == before and names(tmp_path) == ['scores.json']


def test_a_folder_that_may_not_be_written_to_is_told_by_the_file_s_own_name(tmp_path, monkeypatch):
  path = tmp_path / 'scores.json'

  def refuse(self, data):
    raise PermissionError(errno.EACCES, 'Permission denied', str(self))

  monkeypatch.setattr(pathlib.Path, 'write_bytes', refuse)
  with pytest.raises(PermissionError, match=r"Permission denied: '.*/scores\.json'$"):
    write_whole(path, 'x')


def test_errors_about_other_files_stay_as_they_are(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"/elsewhere'$"), unfinished_path(tmp_path / 'a'):
    (tmp_path / 'elsewhere').read_text()
