"""A report in a browser: it draws, its switches and keys work, the network is left alone."""

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from hand_jax.report.content import ReportPicture
from hand_jax.report.writing import write_report
from tests.report.chromium import Chromium, chromium_or_skip
from tests.report.report_hands import made_hand, made_photo

pytestmark = pytest.mark.slow

MODES = ('plain', 'uncertainty', 'texture', 'visibility')


@pytest.fixture(scope='module')
def browser():
  browser = Chromium(chromium_or_skip())
  yield browser
  browser.close()


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """One photo with a textured right hand and a left hand without texture."""
  folder = tmp_path_factory.mktemp('report')
  wide = ReportPicture('Wider than a phone', np.full((240, 1100, 3), 90, np.uint8))
  hands = (
    made_hand(0, name='<b>&_1_right'),
    made_hand(1, 'left', 'two', vertex_colors=None, pictures=(wide,)),
  )
  (path,) = write_report(folder, [made_photo('in/<b>&.jpg', *hands)])
  return path


def canvas(hand: int = 1) -> str:
  return f"document.querySelector('#photo-1-hand-{hand} canvas')"


def show(browser: Chromium, hand: int = 1) -> None:
  """Scrolls to a hand's view and waits until it is drawn."""
  browser.evaluate(f"{canvas(hand)}.scrollIntoView({{block: 'center'}})")
  browser.wait_until(f'{canvas(hand)}.dataset.drawn')


def picture(browser: Chromium, hand: int = 1) -> np.ndarray:
  """What a view has drawn: RGBA."""
  address = browser.evaluate(f"{canvas(hand)}.toDataURL('image/png')")
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(',')[1]))).convert('RGBA'))


def choose(browser: Chromium, mode: str, hand: int = 1) -> np.ndarray:
  """The view's picture after a click on a switch."""
  browser.evaluate(f"document.querySelector('#photo-1-hand-{hand} input[value={mode}]').click()")
  assert browser.evaluate(f'{canvas(hand)}.dataset.drawn') == mode
  return picture(browser, hand)


def changed(one: np.ndarray, other: np.ndarray) -> float:
  """The share of pixels that differ."""
  return float((one != other).any(axis=-1).mean())


def middle(browser: Chromium) -> tuple[float, float]:
  """The middle of the first hand's view, in CSS pixels of the window."""
  place = f'{canvas()}.getBoundingClientRect()'
  x, y = browser.evaluate(f'(b => [b.left + b.width / 2, b.top + b.height / 2])({place})')
  return x, y


def focused(browser: Chromium) -> str:
  return browser.evaluate(
    "(e => e.tagName + ' ' + (e.value || e.textContent || e.className))(document.activeElement)"
  )


@pytest.mark.parametrize('width, height', [(1400, 900), (390, 844)])
def test_it_draws_without_complaint_and_without_requests(browser, report, width, height):
  browser.open(report, width, height)
  for hand in (1, 2):
    show(browser, hand)
    drawn = picture(browser, hand)
    share = (drawn[..., 3] > 0).mean()
    assert 0.1 < share < 0.8
    assert len(np.unique(drawn[drawn[..., 3] == 255], axis=0)) > 100  # shaded
    # The whole hand is inside: nothing touches the border.
    assert not drawn[[0, -1]][..., 3].any() and not drawn[:, [0, -1], 3].any()
  assert browser.problems() == []
  assert browser.requests() == [report.resolve().as_uri()]
  assert browser.evaluate('document.documentElement.scrollWidth') == width


def test_the_page_cannot_reach_the_network_even_if_it_tried(browser, report):
  browser.open(report)
  asked = browser.evaluate(
    "fetch('http://127.0.0.1:9/').then(() => 'sent', error => String(error))"
  )
  assert 'Failed to fetch' in asked
  assert any('Content Security Policy' in problem for problem in browser.problems())
  browser.evaluate(
    "(s => { s.textContent = 'window.intruded = true'; document.body.append(s) })"
    "(document.createElement('script'))"
  )
  assert not browser.evaluate('window.intruded === true')


def test_every_switch_changes_the_picture(browser, report):
  browser.open(report)
  show(browser)
  pictures = {}
  for mode in MODES:
    pictures[mode] = choose(browser, mode)
    legends = browser.evaluate(
      "[...document.querySelectorAll('#photo-1-hand-1 .legend')]"
      '.filter(legend => legend.checkVisibility()).map(legend => legend.dataset.for)'
    )
    assert legends == [mode]
  for one, other in itertools.combinations(MODES, 2):
    assert changed(pictures[one], pictures[other]) > 0.1
  np.testing.assert_array_equal(choose(browser, 'plain'), pictures['plain'])


def test_colours_mean_what_the_legend_says(browser, tmp_path):
  """A hand of one sigma but for its upper half: seen are the two ends of the colours."""
  hand = made_hand()
  upper = hand.vertices[:, 1] < np.median(hand.vertices[:, 1])
  hand = hand._replace(
    vertex_sigma_mm=np.where(upper, 8.0, 2.0), vertex_visible=upper, vertex_colors=None
  )
  (path,) = write_report(tmp_path, [made_photo('a.jpg', hand)])
  browser.open(path)
  show(browser)
  drawn = choose(browser, 'uncertainty').astype(int)
  solid = drawn[..., 3] == 255
  red, green, blue = (drawn[..., channel] for channel in range(3))
  yellow = solid & (green > blue + 60) & (red > blue + 40)
  dark = solid & (blue > green + 30)
  assert yellow.mean() > 0.04 and dark.mean() > 0.04
  rows = np.arange(len(drawn))[:, None] * np.ones_like(yellow)
  # The fingers' end is up, as in the camera's picture.
  assert rows[yellow].mean() < rows[dark].mean()
  drawn = choose(browser, 'visibility').astype(int)
  orange = solid & (drawn[..., 0] > drawn[..., 2] + 40)
  bluish = solid & (drawn[..., 2] > drawn[..., 0] + 40)
  assert rows[bluish].mean() < rows[orange].mean()


def test_the_first_view_is_the_photos(browser, tmp_path):
  """Right stays right, up stays up, and what is nearer to the camera hides what is behind."""
  x, y = np.meshgrid([0.0, 0.1], [0.0, -0.1])
  near = np.stack([x, y, 0 * x], axis=-1).reshape(4, 3)
  # An L, long side up and foot to the right: points of a square, one quarter left out.
  corner = near * 0.5 + np.array([0.0, -0.05, 0.0])
  foot = near * np.array([1.0, 0.5, 1.0])
  vertices = np.concatenate([foot, corner])
  faces = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6], [5, 7, 6]])
  hand = made_hand(
    vertices=vertices,
    faces=faces,
    vertex_sigma_mm=np.linspace(2, 3, 8),
    vertex_visible=np.ones(8, bool),
    vertex_colors=None,
    wrist_camera=np.array([-0.05, 0.05, 0.5]),
  )
  (path,) = write_report(tmp_path, [made_photo('a.jpg', hand)])
  browser.open(path)
  show(browser)
  covered = picture(browser)[..., 3] > 0
  rows, columns = np.nonzero(covered)
  top, bottom = rows.min(), rows.max() + 1
  left, right = columns.min(), columns.max() + 1
  half_row, half_column = (top + bottom) // 2, (left + right) // 2
  quarters = {
    (place, side): covered[rows_, columns_].mean()
    for place, rows_ in (('upper', slice(top, half_row)), ('lower', slice(half_row, bottom)))
    for side, columns_ in (('left', slice(left, half_column)), ('right', slice(half_column, right)))
  }
  assert quarters[('upper', 'right')] < 0.1
  assert min(share for place, share in quarters.items() if place != ('upper', 'right')) > 0.9


def test_tab_reaches_everything_and_keys_turn_the_hand(browser, report):
  browser.open(report)
  show(browser)
  browser.evaluate("document.querySelector('#photo-1-hand-1 input').focus()")
  stations = []
  for _ in range(5):
    stations.append(focused(browser))
    browser.press('Tab', 9)
  assert [station.split()[0] for station in stations] == ['INPUT', 'CANVAS', *3 * ['BUTTON']]
  browser.evaluate(f'{canvas()}.focus()')
  first = before = picture(browser)
  # A key that the view takes must not scroll the page too.
  browser.evaluate(
    "addEventListener('keydown', event => { window.taken = event.defaultPrevented })"
  )
  for key, code, text in [
    ('ArrowLeft', 37, ''),
    ('ArrowUp', 38, ''),
    ('ArrowRight', 39, ''),
    ('ArrowDown', 40, ''),
    ('+', 187, '+'),
    ('-', 189, '-'),
    ('ArrowLeft', 37, ''),
  ]:
    browser.press(key, code, text)
    after = picture(browser)
    assert changed(before, after) > 0.02, key
    assert browser.evaluate('window.taken'), key
    before = after
  for key, code in (('0', 48), ('r', 82), ('R', 82)):
    browser.press('ArrowLeft', 37)
    assert changed(picture(browser), first) > 0.02
    browser.press(key, code, key)
    np.testing.assert_array_equal(picture(browser), first)
  browser.press('PageDown', 34)
  assert not browser.evaluate('window.taken')


def test_plus_makes_the_hand_larger(browser, report):
  browser.open(report)
  show(browser)
  sizes = [(picture(browser)[..., 3] > 0).mean()]
  for button in ('zoom-in', 'zoom-out', 'zoom-out'):
    browser.evaluate(f"document.querySelector('#photo-1-hand-1 .{button}').click()")
    sizes.append((picture(browser)[..., 3] > 0).mean())
  assert sizes[1] > 1.1 * sizes[0] > 1.2 * sizes[3] and sizes[2] == pytest.approx(
    sizes[0], rel=0.01
  )


def test_arrow_keys_move_between_the_switches(browser, report):
  browser.open(report)
  show(browser)
  browser.evaluate("document.querySelector('#photo-1-hand-1 input').focus()")
  browser.press('ArrowRight', 39)
  assert browser.evaluate(f'{canvas()}.dataset.drawn') == 'uncertainty'


def test_the_mouse_turns_and_reads_the_hand(browser, report):
  browser.open(report)
  show(browser)
  first = picture(browser)
  x, y = middle(browser)
  send = 'Input.dispatchMouseEvent'
  browser.call(send, type='mouseMoved', x=x, y=y)
  said = browser.evaluate("document.querySelector('#photo-1-hand-1 .readout').textContent")
  assert said.startswith('sigma ') and ' mm, ' in said and said.endswith('in the photo')
  # Before a click the wheel is the page's.
  browser.call(send, type='mouseWheel', x=x, y=y, deltaX=0, deltaY=-1)
  np.testing.assert_array_equal(picture(browser), first)
  browser.call(send, type='mousePressed', x=x, y=y, button='left', clickCount=1)
  browser.call(send, type='mouseMoved', x=x + 60, y=y, button='left', buttons=1)
  browser.call(send, type='mouseReleased', x=x + 60, y=y, button='left', clickCount=1)
  turned = picture(browser)
  assert changed(first, turned) > 0.05
  browser.evaluate(f'window.before = {canvas()}.toDataURL()')
  browser.call(send, type='mouseWheel', x=x, y=y, deltaX=0, deltaY=-120)
  browser.wait_until(f'{canvas()}.toDataURL() !== window.before')
  assert (picture(browser)[..., 3] > 0).mean() > (turned[..., 3] > 0).mean()


def test_a_finger_turns_the_hand_and_two_zoom(browser, report):
  browser.open(report, 390, 844)
  browser.resize(390, 844, density=3, mobile=True)
  browser.call('Emulation.setTouchEmulationEnabled', enabled=True)
  show(browser)
  x, y = middle(browser)

  def touch(kind: str, *places: float) -> None:
    points = [{'x': place, 'y': y, 'id': number} for number, place in enumerate(places)]
    browser.call('Input.dispatchTouchEvent', type=kind, touchPoints=points)

  pictures = [picture(browser)]
  for moves in (
    [(x,), (x + 30,), (x + 90,)],
    [(x - 20, x + 20), (x - 40, x + 40), (x - 80, x + 80)],
  ):
    browser.evaluate(f'window.before = {canvas()}.toDataURL()')
    touch('touchStart', *moves[0])
    for places in moves[1:]:
      touch('touchMove', *places)
    touch('touchEnd')
    browser.wait_until(f'{canvas()}.toDataURL() !== window.before')
    pictures.append(picture(browser))
  browser.call('Emulation.setTouchEmulationEnabled', enabled=False)
  assert changed(pictures[0], pictures[1]) > 0.02
  shares = [(drawn[..., 3] > 0).mean() for drawn in pictures]
  assert shares[2] > 1.1 * shares[1]
  # Two device pixels for a CSS pixel, at most.
  side = browser.evaluate(f'{canvas()}.clientWidth')
  assert len(pictures[0]) == 2 * side


def test_views_far_from_the_screen_are_not_held(browser, tmp_path):
  """More hands than a page may have WebGL contexts: each is drawn when it is scrolled to."""
  photos = [made_photo(f'{k}.jpg', made_hand(k)) for k in range(20)]
  (path,) = write_report(tmp_path, photos)
  browser.open(path)
  for number in (1, 20, 1):
    place = f"document.querySelector('#photo-{number}-hand-1 canvas')"
    browser.evaluate(f"{place}.scrollIntoView({{block: 'center'}})")
    browser.wait_until(f'{place}.dataset.drawn')
    far = f"document.querySelector('#photo-{21 - number}-hand-1 canvas')"
    browser.wait_until(f'!{far}.dataset.drawn')
    held = browser.evaluate("document.querySelectorAll('canvas[data-drawn]').length")
    assert 1 <= held <= 3
  assert browser.problems() == []


def test_the_contact_sheet_leads_to_the_photos(browser, tmp_path):
  (path,) = write_report(tmp_path, [made_photo(f'{k}.jpg', made_hand(k)) for k in range(6)])
  browser.open(path)
  browser.evaluate('document.querySelector(\'.sheet a[href="#photo-5"]\').click()')
  browser.wait_until(
    "Math.abs(document.querySelector('#photo-5').getBoundingClientRect().top) < 100"
  )


def test_pages_lead_to_one_another(browser, tmp_path):
  photos = [made_photo(f'{k}.jpg', made_hand(k)) for k in range(2)]
  paths = write_report(tmp_path, photos, page_limit_bytes=1000)
  browser.open(paths[0])
  browser.follow("document.querySelector('.pages a:not([aria-current])').click()")
  assert browser.evaluate("document.querySelector('#photo-2') !== null")
  assert browser.evaluate('location.href') == paths[1].resolve().as_uri()


def test_without_webgl_the_page_says_so_and_the_pictures_stay(browser, report):
  script = browser.call(
    'Page.addScriptToEvaluateOnNewDocument',
    source='HTMLCanvasElement.prototype.getContext = () => null',
  )
  browser.open(report)
  browser.call('Page.removeScriptToEvaluateOnNewDocument', identifier=script['identifier'])
  shown = browser.evaluate("document.querySelector('#photo-1-hand-1 .viewer').innerText")
  assert 'needs WebGL' in shown and 'Uncertainty' not in shown
  assert browser.evaluate("document.querySelector('#photo-1-hand-1 .pictures img').complete")


def test_without_scripts_the_page_says_so(browser, report):
  browser.call('Emulation.setScriptExecutionDisabled', value=True)
  browser.open(report)
  browser.call('Emulation.setScriptExecutionDisabled', value=False)
  shown = browser.evaluate("document.querySelector('#photo-1-hand-1 .viewer').innerText")
  assert 'needs JavaScript' in shown and 'Uncertainty' not in shown


def test_a_mesh_that_cannot_be_read_says_so(browser, report, tmp_path):
  broken = tmp_path / 'broken.html'
  text = report.read_text()
  start = text.index('"data": "', text.index('photo-1-hand-1-mesh">')) + len('"data": "')
  broken.write_text(text[:start] + 'AAAA' + text[start + 4 :])
  browser.open(broken)
  browser.evaluate(f"{canvas()}.scrollIntoView({{block: 'center'}})")
  browser.wait_until(
    "document.querySelector('#photo-1-hand-1 .missing').textContent.includes('cannot be shown')"
  )
  show(browser, 2)
