"""The built viewer: from these sources, with its licence, and fit to stand inside a page."""

import hashlib
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
ASSETS = ROOT / 'hand_jax' / 'assets' / 'report'
BUILDER = ROOT / 'tools' / 'report_viewer'
VIEWER = (ASSETS / 'viewer.js').read_text(encoding='utf-8')


def test_it_was_built_from_these_sources():
  digest = hashlib.sha256((BUILDER / 'package-lock.json').read_bytes())
  for path in sorted((BUILDER / 'src').iterdir()):
    digest.update(path.read_bytes())
  assert f'sources {digest.hexdigest()}' in VIEWER, 'run npm ci && npm run build there'


def test_versions_are_pinned_and_named():
  package = json.loads((BUILDER / 'package.json').read_text())
  lock = json.loads((BUILDER / 'package-lock.json').read_text())['packages']
  for name, version in (package['dependencies'] | package['devDependencies']).items():
    assert lock[f'node_modules/{name}']['version'] == version
  version = package['dependencies']['three']
  assert f'three.js {version}' in VIEWER
  assert f'`three` {version}' in (ROOT / 'THIRD_PARTY.md').read_text()


def test_its_licence_is_inside_and_beside_it():
  for text in (VIEWER, (ASSETS / 'viewer_NOTICE.txt').read_text()):
    assert 'The MIT License' in text and 'three.js authors' in text
    assert 'The above copyright notice and this permission notice shall be included' in text


def test_it_can_stand_inside_a_script_element():
  lower = VIEWER.lower()
  assert '</script' not in lower and '<!--' not in lower and '\r' not in lower
  assert 'sourcemappingurl' not in lower


def test_it_has_no_way_to_the_network():
  for name in ('XMLHttpRequest', 'WebSocket', 'sendBeacon', 'EventSource', 'importScripts'):
    assert name not in VIEWER
  assert 'fetch(' not in VIEWER
