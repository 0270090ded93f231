"""A run's lineage: weak only when every run in it is, recorded whole, damage named."""

import json

import pytest

from hand_jax.runs.checkpoints import claim_workdir
from hand_jax.runs.lineage import (
  Origin,
  claim_lineage,
  lineage_supervision,
  make_lineage,
  read_lineage,
)
from tests.saved_runs import FULL, WEAK, named_config


def record(labels: str, *origins: dict, camera_prior: dict | None = None) -> dict:
  prior = Origin('camera', 5, camera_prior) if camera_prior else None
  runs = [Origin(f'run{number}', number, lineage) for number, lineage in enumerate(origins)]
  return make_lineage(named_config('some', labels), runs, prior)


@pytest.mark.parametrize(
  'lineage, expected',
  [
    (record(WEAK), 'weak'),
    (record(FULL), 'full'),
    (record(WEAK, record(WEAK), record(WEAK, record(WEAK))), 'weak'),
    (record(WEAK, record(WEAK), record(WEAK, record(FULL))), 'full'),
    (record(FULL, record(WEAK)), 'full'),
    (record(WEAK, camera_prior=record(WEAK)), 'weak'),
    (record(WEAK, camera_prior=record(FULL)), 'full'),
    (record(WEAK, camera_prior=record(WEAK, record(FULL))), 'full'),
    (record(WEAK, record(WEAK, camera_prior=record(FULL))), 'full'),
  ],
)
def test_a_lineage_is_weak_only_when_every_run_in_it_is(lineage, expected, tmp_path):
  assert lineage_supervision(lineage) == expected
  claim_lineage(str(tmp_path), lineage)
  assert read_lineage(str(tmp_path)) == lineage
  assert lineage_supervision(read_lineage(str(tmp_path))) == expected


@pytest.mark.parametrize('training', [{'init_from': ('a',)}, {'camera_prior': 'a'}])
def test_a_run_from_others_without_its_record_is_refused(tmp_path, training):
  claim_workdir(str(tmp_path), named_config('from_others', WEAK, **training))
  with pytest.raises(ValueError, match=r'lineage.json is missing, though the run took'):
    read_lineage(str(tmp_path))


@pytest.mark.parametrize(
  'damage',
  [
    lambda tree: tree.pop('camera_prior'),
    lambda tree: tree.update(supervision='some'),
    lambda tree: tree.update(config=3),
    lambda tree: tree['init_from'][0].pop('step'),
    lambda tree: tree['init_from'][0].update(step='4'),
    lambda tree: tree['init_from'][0].update(lineage=None),
    lambda tree: tree['init_from'][0]['lineage'].pop('supervision'),
  ],
)
def test_a_damaged_record_is_named(tmp_path, damage):
  lineage = record(WEAK, record(WEAK))
  damage(lineage)
  (tmp_path / 'lineage.json').write_text(json.dumps(lineage))
  with pytest.raises(ValueError, match=r'lineage.json cannot be read as the record of a lineage'):
    read_lineage(str(tmp_path))
  (tmp_path / 'lineage.json').write_text(json.dumps(record(WEAK))[:-5])
  with pytest.raises(ValueError, match=r'lineage.json cannot be read.*JSONDecodeError'):
    read_lineage(str(tmp_path))
