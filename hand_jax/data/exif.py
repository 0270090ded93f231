"""What a photo's EXIF data say of its lens."""

import os

from PIL import Image, UnidentifiedImageError

from hand_jax.data.photo_opening import open_photo

_EXIF_IFD, _FOCAL_LENGTH_IN_35MM_FILM = 0x8769, 0xA405


def read_focal_35mm(photo: str | os.PathLike | Image.Image) -> float | None:
  """Reads the 35 mm equivalent focal length in mm, or None where none is stated or readable.

  EXIF 2.3 has the tag `FocalLengthIn35mmFilm`, where 0 means unknown. It holds for the whole
  photo: cutting a part out of a photo makes it wrong.
  """
  try:
    if not isinstance(photo, Image.Image):
      with open_photo(photo) as file:
        return read_focal_35mm(file)
    value = float(photo.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_LENGTH_IN_35MM_FILM, 0))
  # A damaged picture is told by who reads it; damaged EXIF data by nobody.
  except (OSError, ValueError, TypeError, SyntaxError, KeyError, UnidentifiedImageError):
    return None
  return value if value > 0 else None
