"""The commit that results name."""

import shutil
import subprocess

import pytest

from experiments.checkout import current_commit


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_the_commit_tells_changed_code_but_not_documents(tmp_path, monkeypatch):
  monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
  assert current_commit(tmp_path) == 'unknown'

  def git(*arguments):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    command = ['git', '-C', str(tmp_path), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  (tmp_path / 'docs').mkdir()
  for name in ('code.py', 'docs/results.md'):
    (tmp_path / name).write_text('1')
  git('init', '-q')
  git('add', '.')
  git('commit', '-q', '-m', 'first')
  commit = git('rev-parse', '--short', 'HEAD')
  assert len(commit) >= 7 and current_commit(tmp_path) == commit
  (tmp_path / 'docs/results.md').write_text('2')
  (tmp_path / 'new.py').write_text('not tracked')
  assert current_commit(tmp_path) == commit
  (tmp_path / 'code.py').write_text('2')
  assert current_commit(tmp_path) == f'{commit}-dirty'
