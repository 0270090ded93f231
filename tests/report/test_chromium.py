"""A missing browser skips the tests that need one, and fails them where it has to be there."""

import pytest

from tests.report.chromium import NEEDED, chromium_or_skip, find_chromium


@pytest.fixture
def absent(monkeypatch, tmp_path):
  monkeypatch.setenv('CHROMIUM', str(tmp_path / 'chromium'))
  monkeypatch.delenv(NEEDED, raising=False)


def test_without_a_browser_the_tests_are_skipped(absent):
  with pytest.raises(pytest.skip.Exception, match='Chromium was not found'):
    chromium_or_skip()


def test_where_it_is_needed_they_fail(absent, monkeypatch):
  monkeypatch.setenv(NEEDED, '1')
  with pytest.raises(pytest.fail.Exception, match=NEEDED):
    chromium_or_skip()


def test_the_browser_named_by_the_environment_comes_first(monkeypatch, tmp_path):
  browsers = [tmp_path / 'mine' / 'chromium', tmp_path / 'path' / 'chromium']
  for browser in browsers:
    browser.parent.mkdir()
    browser.write_text('#!/bin/sh\n')
    browser.chmod(0o755)
  monkeypatch.setenv('PATH', str(browsers[1].parent))
  monkeypatch.delenv('CHROMIUM', raising=False)
  assert find_chromium() == str(browsers[1])
  monkeypatch.setenv('CHROMIUM', str(browsers[0]))
  assert find_chromium() == str(browsers[0])
