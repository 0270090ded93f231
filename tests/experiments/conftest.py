"""What the tests of ablation runs share."""

import pytest

from tests.fake_ablations import make_settings


@pytest.fixture
def settings(tmp_path):
  return make_settings(tmp_path)
