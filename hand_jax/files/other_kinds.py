"""Tells files of other kinds, which people save under the name of a pickle by mistake."""

# Their beginnings, in lower case.
_NOT_PICKLES = {
  b'<!doctype html': 'a web page, such as one that asks to sign in',
  b'<html': 'a web page, such as one that asks to sign in',
  b'version https://git-lfs': 'a Git LFS pointer without its content (git lfs pull fetches it)',
  b'pk\x03\x04': 'a zip archive that has to be unpacked first',
  b'\x1f\x8b': 'a gzip archive that has to be unpacked first',
  b'{': 'it holds JSON',
  b'[': 'it holds JSON',
  b'\x93numpy': 'an array of NumPy (.npy)',
  b'\x89hdf': 'an HDF5 file',
  b'\x89png': 'a picture (PNG)',
  b'\xff\xd8\xff': 'a picture (JPEG)',
  b'gif8': 'a picture (GIF)',
  b'%pdf': 'a PDF document',
}
_BYTE_ORDER_MARK = b'\xef\xbb\xbf'


def other_kind(data: bytes) -> str | None:
  """Says in words what a file is, given its content, or returns None where it may be a pickle."""
  if not data[:200].strip():
    return 'the file is empty'
  start = data[:200].removeprefix(_BYTE_ORDER_MARK).lstrip().lower()
  if start.startswith(b'pk\x03\x04') and b'.npy' in start:
    return 'an archive of NumPy arrays, whose name has to end in .npz'
  return next((what for begin, what in _NOT_PICKLES.items() if start.startswith(begin)), None)
