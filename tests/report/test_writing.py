"""A written report read back: its parts, links between pages, and what may not get in."""

import base64
import errno
import hashlib
import re
import urllib.parse
import weakref

import pytest

from hand_jax.report import writing
from hand_jax.report.writing import write_report
from tests.report.page_reading import Page
from tests.report.report_hands import made_hand, made_photo

NASTY = '<b>&"\'</script><!--.jpg'


def written(folder, *photos) -> Page:
  (path,) = write_report(folder, photos)
  assert path == folder / 'report.html'
  return Page(path)


def test_a_page_has_a_section_for_every_photo_and_every_hand(tmp_path):
  hands = made_hand(0, name='two_1_right'), made_hand(1, 'left', name='two_2_left')
  page = written(tmp_path, made_photo('in/two.jpg', *hands), made_photo('in/one.jpg', made_hand(2)))
  assert [attributes['id'] for _, attributes, _ in page.all('section')] == ['photo-1', 'photo-2']
  titles = [text for _, _, text in page.all('h3')]
  assert titles == ['1 Right hand two_1_right', '2 Left hand two_2_left', '1 Right hand photo']
  assert '2 photos, 3 hands' in page.source
  anchors = {attributes['id'] for _, attributes, _ in page.elements if 'id' in attributes}
  links = [
    attributes['href'][1:] for _, attributes, _ in page.all('a') if '#' in attributes['href']
  ]
  assert len(links) == 3 and set(links) <= anchors


def test_ids_are_unique(tmp_path):
  photos = [made_photo(f'{k}.jpg', made_hand(k), made_hand(k, 'left')) for k in range(6)]
  page = written(tmp_path, *photos)
  ids = [attributes['id'] for _, attributes, _ in page.elements if 'id' in attributes]
  assert len(ids) == len(set(ids))


def test_photos_without_a_hand_and_errors_say_so(tmp_path):
  page = written(
    tmp_path,
    made_photo('none.jpg'),
    made_photo('bad.jpg', picture=None, error='bad.jpg: no photo.'),
  )
  none, bad = (text for _, _, text in page.all('section'))
  assert 'No hand was found in this photo.' in none and 'Error' not in none
  assert 'Error. bad.jpg: no photo.' in bad and 'No hand' not in bad
  assert '2 photos, no hands, 1 error' in page.source


def test_a_report_of_nothing_is_a_page(tmp_path):
  page = written(tmp_path)
  assert 'no photos, no hands' in page.source and not page.all('section')


@pytest.mark.parametrize('count', [4, 5])
def test_more_than_four_photos_get_a_contact_sheet(tmp_path, count):
  page = written(tmp_path, *(made_photo(f'p{k}.jpg', made_hand()) for k in range(count)))
  sheet = page.all('nav', class_='sheet')
  assert len(sheet) == (count > 4)
  if sheet:
    links = [attributes['href'] for _, attributes, text in page.all('a') if text == 'p2.jpg1 hand']
    assert links == ['#photo-3']


def test_every_picture_says_what_it_shows(tmp_path):
  page = written(tmp_path, *(made_photo(f'p{k}.jpg', made_hand()) for k in range(5)))
  pictures = page.all('img')
  assert len(pictures) == 3 * 5
  assert all(attributes['alt'].strip() for _, attributes, _ in pictures)


def test_what_comes_from_outside_is_text(tmp_path):
  hand = made_hand(
    name=NASTY, focal_source=NASTY, hand_model=NASTY, files=(NASTY,), pictures=()
  )._replace(pictures=(made_hand().pictures[0]._replace(caption=NASTY),))
  photo = made_photo(f'in/{NASTY}', hand, error=NASTY, files=(NASTY,))
  harmless = made_hand(name='x', focal_source='x', hand_model='x', files=('x.jpg',))
  page = written(tmp_path / 'nasty', photo)
  plain = written(tmp_path / 'plain', made_photo('in/x', harmless, error='x', files=('x.jpg',)))
  assert [tag for tag, _, _ in page.elements] == [tag for tag, _, _ in plain.elements]
  ((_, _, title),) = page.all('h2')
  assert title == NASTY.rsplit('/', 1)[-1]
  assert f'Error. {NASTY}' in [text for _, _, text in page.all('p', class_='error')]
  assert NASTY in [text for _, _, text in page.all('figcaption')]


def test_file_links_lead_to_the_files(tmp_path):
  names = ('a b#1?.glb', 'c%20d.npz', 'C:e.json', 'sub/f.png', 'g\udce4.ply', 'javascript:h.obj')
  page = written(tmp_path, made_photo('a.jpg', made_hand(files=names)))
  links = [attributes['href'] for _, attributes, _ in page.all('a', class_='name')]
  base = 'file:///folder/report.html'
  for name, link in zip(names, links, strict=True):
    target = urllib.parse.urlsplit(urllib.parse.urljoin(base, link))
    assert (target.scheme, target.query, target.fragment) == ('file', '', '')
    path = urllib.parse.unquote_to_bytes(target.path)
    assert path == b'/folder/' + name.encode('utf-8', 'surrogateescape')


def test_the_page_allows_itself_alone(tmp_path):
  page = written(tmp_path, made_photo('a.jpg', made_hand()))
  (policy,) = (
    attributes['content']
    for _, attributes, _ in page.all('meta')
    if attributes.get('http-equiv') == 'Content-Security-Policy'
  )
  ((_, _, style),) = page.all('style')
  programs = [text for _, attributes, text in page.all('script') if 'type' not in attributes]
  assert len(programs) == 1
  for text in (style, programs[0]):
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
  assert "default-src 'none'" in policy and 'connect-src' not in policy
  assert 'unsafe' not in policy and 'http' not in policy
  assert not any('style' in attributes for _, attributes, _ in page.elements)
  for _, attributes, _ in page.elements:
    for name in ('src', 'href'):
      assert re.match(r'data:|#|\./', attributes.get(name, '#')), attributes
  assert not re.search(r'url\((?!#)|@import', page.source.split('<script>')[0])


class TestPages:
  """A report that is too large for one page."""

  LIMIT = 790_000

  @pytest.fixture
  def pages(self, tmp_path):
    photos = [made_photo(f'p{k}.jpg', made_hand(k), made_hand(k, 'left')) for k in range(7)]
    paths = write_report(tmp_path, iter(photos), self.LIMIT)
    return paths, [Page(path) for path in paths]

  def test_each_page_is_below_the_limit_and_stands_alone(self, pages):
    paths, read = pages
    assert [path.name for path in paths] == ['report.html', 'report_2.html', 'report_3.html']
    for path, page in zip(paths, read, strict=True):
      assert path.stat().st_size <= self.LIMIT
      for _, attributes, _ in page.all('div', class_='viewer'):
        faces = page.block(attributes['data-mesh'])['faces']
        assert page.block(faces)['bits'] == 16

  def test_every_photo_stands_on_one_page(self, pages):
    _, read = pages
    sections = [attributes['id'] for page in read for _, attributes, _ in page.all('section')]
    assert sections == [f'photo-{k}' for k in range(1, 8)]

  def test_pages_link_to_one_another_and_say_which_photos_they_hold(self, pages):
    paths, read = pages
    for path, page in zip(paths, read, strict=True):
      links = [a for _, a, text in page.all('a') if text.startswith('Photos ')]
      assert [link['href'] for link in links] == 2 * [f'./{other.name}' for other in paths]
      assert {a['href'] for a in links if 'aria-current' in a} == {f'./{path.name}'}
      assert '7 photos, 14 hands' in page.source
      assert f'of {len(paths)}' in page.all('title')[0][2]

  def test_a_photo_above_the_limit_has_a_page_of_its_own(self, tmp_path):
    photos = [made_photo(f'p{k}.jpg', made_hand(k)) for k in range(3)]
    paths = write_report(tmp_path, photos, 1000)
    assert [len(Page(path).all('section')) for path in paths] == [1, 1, 1]


def test_photos_are_taken_one_by_one_and_let_go(tmp_path):
  alive = []

  def photos():
    for number in range(4):
      photo = made_photo(f'{number}.jpg', made_hand(number))
      alive.append(weakref.ref(photo.picture))
      yield photo
      del photo
      # The one before may still stand in a variable.
      assert all(picture() is None for picture in alive[:-2])

  write_report(tmp_path, photos())
  assert len(alive) == 4


def test_nothing_is_written_where_a_photo_fails(tmp_path):
  (tmp_path / 'report.html').write_text('the report before')

  def photos():
    yield made_photo('a.jpg', made_hand())
    raise OSError('the disk is gone')

  with pytest.raises(OSError, match='the disk is gone'):
    write_report(tmp_path, photos())
  assert [path.name for path in tmp_path.iterdir()] == ['report.html']
  assert (tmp_path / 'report.html').read_text() == 'the report before'


def test_the_first_page_is_written_last(tmp_path, monkeypatch):
  names = []

  def write(path, data):
    if path.name == 'report.html':
      raise OSError(errno.ENOSPC, 'No space left on device')
    names.append(path.name)

  monkeypatch.setattr(writing, 'write_whole', write)
  with pytest.raises(OSError, match='No space left'):
    write_report(tmp_path, [made_photo(f'{k}.jpg', made_hand()) for k in range(3)], 1000)
  assert names == ['report_3.html', 'report_2.html']
