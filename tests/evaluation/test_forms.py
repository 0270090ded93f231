"""Flags of an evaluation: those of a run and of a file of predictions are not mixed."""

import pytest

from hand_jax.evaluation.forms import check_forms


@pytest.mark.parametrize(
  'given, message',
  [
    ({'dataset'}, 'Say what to measure: --workdir, .* or --predictions'),
    ({'workdir'}, '--dataset is missing'),
    ({'predictions', 'dataset'}, '--predictions needs --ground_truth beside it'),
    ({'ground_truth', 'dataset'}, '--ground_truth needs --predictions beside it'),
    (
      {'workdir', 'predictions', 'ground_truth', 'dataset'},
      '--workdir and --predictions, --ground_truth do not go together',
    ),
    ({'workdir', 'dataset', 'ground_truth'}, '--workdir and --ground_truth do not go together'),
    (
      {'predictions', 'ground_truth', 'dataset', 'split', 'limit'},
      '--split, --limit and --predictions, --ground_truth do not go together',
    ),
    ({'predictions', 'ground_truth', 'dataset', 'submission'}, '--submission and --predictions'),
  ],
)
def test_flags_of_both_forms_are_not_mixed(given, message):
  with pytest.raises(ValueError, match=message):
    check_forms(given)


@pytest.mark.parametrize(
  'given',
  [
    {'workdir', 'dataset'},
    {'workdir', 'dataset', 'split', 'data_dir', 'limit', 'submission', 'output', 'pck'},
    {'predictions', 'ground_truth', 'dataset', 'output', 'pck', 'allow_implausible'},
  ],
)
def test_flags_of_one_form_go_together(given):
  check_forms(given | {'logtostderr'})
