"""The stages of the mask head: each is made once, and another plan is refused."""

import json

import numpy as np
import pytest

from hand_jax.release import appearance
from hand_jax.release.appearance import (
  appearance_plan,
  make_mask_head,
  read_parameters,
  write_parameters,
)

PARAMETERS = {'first': {'kernel': np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}}


@pytest.fixture
def calls(monkeypatch):
  """Replaces rendering, training and measuring, and returns what was asked for."""
  made = []
  monkeypatch.setattr(appearance, '_hands', lambda plans, *_: plans)

  def train(hands, settings, report):
    made.append(('trained', hands))
    report(50, 0.5, PARAMETERS)
    return PARAMETERS

  def measure(hands, parameters, settings):
    np.testing.assert_allclose(parameters['first']['kernel'], PARAMETERS['first']['kernel'], 1e-3)
    made.append(('measured', hands))
    return {'iou_mean': 0.9}

  monkeypatch.setattr(appearance, 'train_mask_head', train)
  monkeypatch.setattr(appearance, 'measure_mask_head', measure)
  return made


def test_parameters_are_kept_in_half_precision(tmp_path):
  write_parameters(tmp_path / 'a.npz', PARAMETERS)
  found = read_parameters(tmp_path / 'a.npz')['first']['kernel']
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, PARAMETERS['first']['kernel'].astype(np.float16))


def test_a_second_call_makes_nothing_again(calls, tmp_path):
  plan, lines = appearance_plan(0.01, 3), []
  card = make_mask_head(plan, tmp_path, 'abc', lines.append)
  assert [what for what, _ in calls] == ['trained', 'measured', 'measured', 'measured']
  assert calls[0][1] == plan.learned and calls[1][1] == (plan.measured['test'],)
  assert card['renders'] == {split: {'iou_mean': 0.9} for split in plan.measured}
  assert card['commit'] == 'abc' and any('step 50: loss 0.5' in line for line in lines)
  assert json.loads((tmp_path / 'hand_mask_card.json').read_text()) == card
  assert make_mask_head(plan, tmp_path, 'def') == card and len(calls) == 4


def test_another_plan_is_refused(calls, tmp_path):
  make_mask_head(appearance_plan(0.01, 3), tmp_path)
  with pytest.raises(ValueError, match=r'a mask head of another plan, see hand_mask_card\.json'):
    make_mask_head(appearance_plan(0.02, 3), tmp_path)


def test_the_shipped_card_is_of_the_plan():
  path = appearance.pathlib.Path(appearance.__file__).parents[1] / 'assets' / 'hand_mask_card.json'
  card, plan = json.loads(path.read_text()), appearance_plan()
  assert card['learned'] == [part._asdict() for part in plan.learned]
  assert card['settings'] == json.loads(json.dumps(plan.mask._asdict()))
  assert set(card['renders']) == set(plan.measured)
