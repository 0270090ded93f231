"""Reads the focal length from a photo's EXIF data."""

import os

from PIL import Image, UnidentifiedImageError

from hand_jax.data.photo_opening import open_photo

_EXIF_IFD, _FOCAL_LENGTH_IN_35MM_FILM = 0x8769, 0xA405


def read_focal_35mm(photo: str | os.PathLike | Image.Image) -> float | None:
  """Reads the 35 mm equivalent focal length in mm, or returns None where it is unknown.

  The EXIF 2.3 tag `FocalLengthIn35mmFilm` holds it, and there 0 means unknown. The number describes
  the whole photo, so it is wrong for a part that was cut out.
  """
  try:
    if not isinstance(photo, Image.Image):
      with open_photo(photo) as file:
        return read_focal_35mm(file)
    value = float(photo.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_LENGTH_IN_35MM_FILM, 0))
  # Whoever reads the pixels reports a damaged picture. Nobody needs to report damaged EXIF data.
  except (OSError, ValueError, TypeError, SyntaxError, KeyError, UnidentifiedImageError):
    return None
  return value if value > 0 else None
