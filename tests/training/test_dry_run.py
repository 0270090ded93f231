"""A run that is only tried, and steps that are traced."""

import dataclasses

import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.training import dry_run as dry_run_module
from hand_jax.training import loop
from hand_jax.training.dry_run import dry_run
from hand_jax.training.loop import train_and_evaluate
from hand_jax.training.profiling import ProfiledSteps, Profiler, parse_profiled_steps
from tests.drawn_hands import DrawnSource

SETTINGS = ['training.num_steps=1', 'training.validation_examples=2']


@pytest.fixture
def config():
  return apply_overrides(get_config('toy_prior_weak'), SETTINGS)


def tell(config, folder, model):
  sources = DrawnSource(model, 4), DrawnSource(model, 2, seed=1)
  return '\n'.join(dry_run(config, str(folder), model, *sources))


@pytest.mark.slow
@pytest.mark.parametrize('parallel', ['pmap', 'mesh'])
def test_it_tells_what_a_run_needs_and_writes_nothing(config, toy_model, tmp_path, parallel):
  training = dataclasses.replace(config.training, parallel=parallel)
  config = dataclasses.replace(config, training=training)
  text = tell(config, tmp_path / 'run', toy_model)
  assert f'Workdir {tmp_path / "run"}: a new run.' in text
  assert f'2 cpu device(s) (cpu) of 1 host(s), by {parallel}.' in text
  assert '4 examples to train on, 2 to validate on.' in text and 'parameters (' in text
  assert not (tmp_path / 'run').exists()
  (memory,) = [line for line in text.splitlines() if line.startswith('Memory of each device')]
  assert 0.5 < float(memory.split(': ')[1].split()[0]) < 500  # MiB
  if parallel == 'pmap':
    sources = DrawnSource(toy_model, 4), DrawnSource(toy_model, 2, seed=1)
    train_and_evaluate(config, str(tmp_path / 'run'), toy_model, *sources)
    row = (tmp_path / 'run' / 'metrics.jsonl').read_text()
    loss = float(row.partition('"total": ')[2].partition(',')[0])
    assert f'One step: total loss {loss:.4g}, ' in text
    before = sorted(tmp_path.rglob('*'))
    assert 'continues a run after step 1.' in tell(config, tmp_path / 'run', toy_model)
    assert sorted(tmp_path.rglob('*')) == before


def test_runs_and_dry_runs_compare_the_settings_of_hosts_first(
  config, toy_model, tmp_path, monkeypatch
):
  def refuse(given):
    raise ValueError(f'settings of {given.name} differ')

  for module in (loop, dry_run_module):
    monkeypatch.setattr(module, 'check_same_settings', refuse)
  source = DrawnSource(toy_model, 4)
  with pytest.raises(ValueError, match='settings of toy_prior_weak differ'):
    train_and_evaluate(config, str(tmp_path / 'run'), toy_model, source, source)
  with pytest.raises(ValueError, match='settings of toy_prior_weak differ'):
    tell(config, tmp_path / 'run', toy_model)
  assert not (tmp_path / 'run').exists()


def test_mistakes_end_it(config, toy_model, tmp_path):
  training = dataclasses.replace(config.training, batch_size=3)
  wrong = dataclasses.replace(config, training=training)
  with pytest.raises(ValueError, match=r'training.batch_size should be a multiple'):
    tell(wrong, tmp_path, toy_model)
  (tmp_path / 'metrics.jsonl').touch()
  with pytest.raises(FileExistsError, match=r'holds metrics.jsonl'):
    tell(config, tmp_path, toy_model)


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('RESOURCE_EXHAUSTED: Used 16.12G of 15.75G hbm.', 'needs 16.12 GiB of 15.75 GiB a device'),
    ('RESOURCE_EXHAUSTED: Out of memory', 'does not fit into the memory'),
  ],
)
def test_a_step_that_does_not_fit_is_told_with_advice(text, told):
  error = dry_run_module._shortage(RuntimeError(text))
  assert isinstance(error, MemoryError) and told in str(error)
  assert 'training.remat=blocks' in str(error)
  other = RuntimeError('INTERNAL: no')
  assert dry_run_module._shortage(other) is other


@pytest.mark.parametrize('text', ['', '3', '3:', '0:2', '3:2', '2:9', '1:2:3', '-1:2', 'a:b'])
def test_steps_that_cannot_be_traced_are_refused(text):
  with pytest.raises(ValueError, match=r'^--profile_steps=.*two of the steps 1 to 8'):
    parse_profiled_steps(text, 8)
  assert parse_profiled_steps('2:8', 8) == ProfiledSteps(2, 8)


def test_the_steps_that_are_left_are_traced(tmp_path, monkeypatch, capsys):
  """From the second on, where a run goes on after the first; and what a stop left of them."""
  calls = []
  monkeypatch.setattr('jax.profiler.start_trace', lambda folder: calls.append(f'start {folder}'))
  monkeypatch.setattr('jax.profiler.stop_trace', lambda: calls.append('stop'))
  with Profiler(str(tmp_path), ProfiledSteps(2, 4)) as profiler:
    for step in (3, 4, 5):
      profiler.start(step)
      calls.append(str(step))
      profiler.stop(step, ())
  start = f'start {tmp_path / "profile"}'
  assert calls == [start, '3', '4', 'stop', '5']
  assert f'in {tmp_path / "profile"}.' in capsys.readouterr().out
  calls.clear()
  with pytest.raises(KeyboardInterrupt), Profiler(str(tmp_path), ProfiledSteps(2, 4)) as profiler:
    profiler.start(2)
    raise KeyboardInterrupt
  with Profiler(str(tmp_path), None) as profiler:
    profiler.start(2)
    profiler.stop(2, ())
  assert calls == [start, 'stop']
