"""The output folder is kept for one command; where that is impossible, nothing of it stays."""

import errno
import pathlib

import pytest

from hand_jax.files.outputs import OutputFolderError
from hand_jax.reconstruction import folder_lock
from hand_jax.reconstruction.folder_lock import locked_folder


def failing_with(number: int):
  def fail(*_, **__):
    raise OSError(number, 'reason of the System', 'file')

  return fail


def test_the_lock_lasts_as_long_as_the_block(tmp_path):
  with locked_folder(tmp_path / 'new' / 'out'):
    assert [path.name for path in (tmp_path / 'new' / 'out').iterdir()] == ['.hand_jax.lock']
    second = locked_folder(tmp_path / 'new' / 'out')
    with pytest.raises(BlockingIOError, match='Another hand-jax is writing to'), second:
      pass
  assert not list((tmp_path / 'new' / 'out').iterdir())


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_folders_made_for_nothing_are_taken_away(number, tmp_path, monkeypatch):
  """Where the lock's file cannot be made; a folder that was there stays."""
  monkeypatch.setattr(folder_lock, 'open', failing_with(number), raising=False)
  (tmp_path / 'there').mkdir()
  for folder in ('new/deeper', 'there/deeper', 'there'):
    message = f'^Results cannot go to .*{folder}: .* .*[.]$'
    with pytest.raises(OutputFolderError, match=message), locked_folder(tmp_path / folder):
      pass
    assert [path.name for path in tmp_path.iterdir()] == ['there']
    assert not list((tmp_path / 'there').iterdir())


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
  monkeypatch.setattr(pathlib.Path, 'mkdir', failing_with(errno.ENOENT))
  with (
    pytest.raises(OutputFolderError, match=r'out: reason of the System\. Name another folder\.$'),
    locked_folder(tmp_path / 'out'),
  ):
    pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
  monkeypatch.setattr(folder_lock.fcntl, 'flock', failing_with(errno.ENOLCK))
  with pytest.raises(OutputFolderError, match='reason of the System'), locked_folder(tmp_path):
    pass
  assert not list(tmp_path.iterdir())
