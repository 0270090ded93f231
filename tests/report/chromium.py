"""Drives Chromium by its DevTools protocol, over the pipes of `--remote-debugging-pipe`."""

import fcntl
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
NEEDED = 'HAND_JAX_NEEDS_CHROMIUM'
FLAGS = (
  '--headless=new',
  '--no-sandbox',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--remote-debugging-pipe',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-dev-shm-usage',
  '--hide-scrollbars',
)
# A browser that says nothing for so long is broken; no test waits for it otherwise.
PATIENCE_S = 120
# Chromium reads commands from file 3 and writes answers to file 4.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
  """The browser that $CHROMIUM names, or one on PATH."""
  candidates = [os.environ['CHROMIUM']] if os.environ.get('CHROMIUM') else NAMES
  return next((path for path in map(shutil.which, candidates) if path), None)


def chromium_or_skip() -> str:
  """The browser's path. Without one the test is skipped, or fails where a browser is a must."""
  path = find_chromium()
  if path is None:
    reason = f'Chromium was not found: by $CHROMIUM, or as one of {", ".join(NAMES)} on PATH.'
    if os.environ.get(NEEDED) == '1':
      pytest.fail(f'{reason} ${NEEDED} is 1, so it has to be there.')
    pytest.skip(reason)
  return path


class Chromium:
  """One browser with one page. Events that came in are kept in `events`."""

  def __init__(self, path: str):
    self.events: list[dict] = []
    self._ids = itertools.count(1)
    self._buffer = b''
    self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    self._process = self._launch(path)
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    self._session = None
    self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')
    self.call('Page.setLifecycleEventsEnabled', enabled=True)

  def _launch(self, path: str) -> subprocess.Popen:
    self._session = None
    (commands_out, commands_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    # Above 4, so that putting one into its place does not close the other.
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands_out, answers_in)]
    arguments = [path, *FLAGS, f'--user-data-dir={self._home.name}', 'about:blank']
    process = subprocess.Popen(
      [sys.executable, '-ISc', _LAUNCH, *map(str, given), *arguments],
      pass_fds=given,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    for end in (commands_out, answers_in, *given):
      os.close(end)
    self._commands, self._answers = commands_in, answers_out
    return process

  def close(self) -> None:
    """Ends the browser and removes its profile."""
    os.close(self._commands)
    try:
      self._process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    os.close(self._answers)
    self._home.cleanup()

  def call(self, method: str, **parameters: Any) -> dict:
    """Sends a command and returns its result."""
    number = next(self._ids)
    message = {'id': number, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    data = json.dumps(message).encode() + b'\0'
    while data:
      data = data[os.write(self._commands, data) :]
    while (answer := self._read()).get('id') != number:
      self.events.append(answer)
    assert 'error' not in answer, f'{method}: {answer["error"]}'
    return answer['result']

  def _read(self) -> dict:
    while b'\0' not in self._buffer:
      ready, _, _ = select.select([self._answers], [], [], PATIENCE_S)
      data = os.read(self._answers, 1 << 20) if ready else b''
      assert data, 'Chromium has ended, or says nothing more.'
      self._buffer += data
    message, self._buffer = self._buffer.split(b'\0', 1)
    return json.loads(message)

  def open(self, path: pathlib.Path, width: int = 1400, height: int = 900) -> None:
    """Loads a file in a window of this size and waits until it is loaded; forgets old events."""
    self.resize(width, height)
    self._navigate('about:blank')
    self.events.clear()
    self._navigate(path.resolve().as_uri())

  def _navigate(self, address: str) -> None:
    loader = self.call('Page.navigate', url=address)['loaderId']
    self._wait_for({'loaderId': loader, 'name': 'load'})

  def follow(self, click: str) -> None:
    """Evaluates a JavaScript expression that leads to another page, and waits until it is there."""
    self.events.clear()
    self.evaluate(click)
    self._wait_for({'name': 'load'})

  def _wait_for(self, parameters: dict) -> None:
    """Reads events until one has these parameters."""
    while not any(parameters.items() <= event.get('params', {}).items() for event in self.events):
      self.events.append(self._read())

  def resize(self, width: int, height: int, density: float = 1, mobile: bool = False) -> None:
    """Gives the page this size in CSS pixels."""
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=density,
      mobile=mobile,
    )

  def evaluate(self, expression: str) -> Any:
    """The value of a JavaScript expression; a promise is waited for."""
    result = self.call(
      'Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True
    )
    assert 'exceptionDetails' not in result, result['exceptionDetails']
    return result['result'].get('value')

  def wait_until(self, condition: str) -> None:
    """Waits, frame by frame, until a JavaScript condition holds."""
    self.evaluate(
      'new Promise((done, fail) => { let frames = 0; const look = () => {'
      f'if ({condition}) done(true); else if ((frames += 1) > 3000) fail(new Error("never so"));'
      'else requestAnimationFrame(look); }; look(); })'
    )

  def press(self, key: str, code: int, text: str = '', modifiers: int = 0) -> None:
    """Presses and releases a key; `code` is its Windows virtual key code."""
    common = {'key': key, 'windowsVirtualKeyCode': code, 'modifiers': modifiers}
    self.call('Input.dispatchKeyEvent', type='keyDown', text=text, **common)
    self.call('Input.dispatchKeyEvent', type='keyUp', **common)

  def screenshot(self, full_page: bool = False) -> str:
    """The page as PNG, in base64."""
    return self.call('Page.captureScreenshot', format='png', captureBeyondViewport=full_page)[
      'data'
    ]

  def problems(self) -> list[str]:
    """What went to the console as a warning or error, and exceptions nobody caught."""
    found = []
    for event in self.events:
      method, content = event.get('method'), event.get('params', {})
      if method == 'Runtime.exceptionThrown':
        found.append(str(content['exceptionDetails']))
      elif method == 'Runtime.consoleAPICalled' and content['type'] in ('error', 'warning'):
        found.append(str([value.get('value') for value in content['args']]))
      elif method == 'Log.entryAdded' and content['entry']['level'] in ('error', 'warning'):
        found.append(content['entry']['text'])
    return found

  def requests(self) -> list[str]:
    """The addresses that were asked for, pictures inside the page apart."""
    asked = [
      event['params']['request']['url']
      for event in self.events
      if event.get('method') == 'Network.requestWillBeSent'
    ]
    return [address for address in asked if not address.startswith('data:')]
