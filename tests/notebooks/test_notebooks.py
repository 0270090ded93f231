"""Every notebook of the docs runs from its first cell to its last, and is kept without outputs."""

import os
import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[2] / 'docs' / 'notebooks').glob('*.ipynb'))
IDS = [path.stem for path in NOTEBOOKS]


def test_both_notebooks_are_there():
  assert IDS == ['gaussian_to_pixels', 'photo_to_mesh']


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('path', NOTEBOOKS, ids=IDS)
def test_a_notebook_runs(path, tmp_path):
  """In an empty folder, so that it rests on the package alone."""
  notebook = nbformat.read(path, as_version=4)
  resources = {'metadata': {'path': str(tmp_path)}}
  client = nbclient.NotebookClient(notebook, timeout=600, resources=resources)
  client.execute(env=dict(os.environ))
  printed = [
    output
    for cell in notebook.cells
    if cell.cell_type == 'code'
    for output in cell.outputs
    if output.output_type in ('stream', 'execute_result')
  ]
  assert printed and not [output for output in printed if output.get('name') == 'stderr']
  if path.stem == 'photo_to_mesh':
    (shown,) = [output for output in printed if output.output_type == 'execute_result']
    assert 'data:image/png;base64' in shown.data['text/html']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=IDS)
def test_a_notebook_is_kept_without_outputs(path):
  for cell in nbformat.read(path, as_version=4).cells:
    assert not cell.get('outputs') and cell.get('execution_count') is None
