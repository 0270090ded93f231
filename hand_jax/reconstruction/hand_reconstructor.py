"""Reconstructs the hands of photos by the bundled weights or by a trained run.

hands = HandReconstructor()('photo.jpg')
hands[0].vertices
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from hand_jax.data.exif import read_focal_35mm
from hand_jax.data.photos import (
  box_round_joints,
  check_box,
  photo_from_pillow,
  read_photo_scaled,
)
from hand_jax.detection.detect import check_image, detect_hands
from hand_jax.detection.hand_views import HandView, view_hand
from hand_jax.detection.masks import estimate_hand_mask
from hand_jax.detection.reading import DetectedHand, read_regions
from hand_jax.files.compiled_programs import keep_compiled_programs
from hand_jax.fitting.detected import SeenHand, fit_detected_hands, hand_in_box
from hand_jax.fitting.released_weights import Release, release_for
from hand_jax.mano.assets import load_mano_model, resolve_mano_dir
from hand_jax.models.hand_network import naming_misfits
from hand_jax.reconstruction.camera_placement import PhotoCamera, photo_camera
from hand_jax.reconstruction.fitted import fitted_reconstruction
from hand_jax.reconstruction.hand_data import MaskSource
from hand_jax.reconstruction.output_names import hand_names
from hand_jax.reconstruction.reconstruction import Reconstruction
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  TrainedNetwork,
  check_mask,
  load_trained_network,
  reconstruct_in_box,
)
from hand_jax.reconstruction.whole_pixels import in_whole_pixels
from hand_jax.runs.packed_run import RELEASE
from hand_jax.types import ManoModel

MAX_HANDS = 10
# A given box shows no hand if the probability of a hand is below this.
_MIN_PRESENCE = 0.5
# A given mask marks at least this many of a hand's 21 landmarks.
_LEAST_SHOWN = 2

Photo = str | os.PathLike | np.ndarray | Image.Image
"""A file, an upright RGB array of 8 bits (height, width, 3), or a Pillow image."""


class PhotoRequest(NamedTuple):
  """An upright RGB photo and what is known of its hands. The detector finds the rest.

  Boxes and camera are in pixels of the whole photo, and so are results.
  """

  image: UInt8[np.ndarray, 'height width 3']
  """The photo, which may be reduced in size by `scale`."""
  name: str = 'the image'
  """The name of the photo in error messages."""
  boxes_xywh: Sequence[Float[np.ndarray, '4']] = ()
  """The boxes of its hands, in pixels. Without any, the detector looks for hands."""
  sides: Sequence[str] = ()
  """'left' or 'right' for each box, or one for all hands. Without any, the detector decides."""
  hand_mask: Bool[np.ndarray, 'height width'] | None = None
  """True where the photo shows the hand. None estimates this for each hand."""
  camera: PhotoCamera | None = None
  """None: the focal length is assumed, see `photo_camera`."""
  scale: float = 1.0
  """The size of `image` relative to the whole photo."""
  whole_size: tuple[int, int] | None = None
  """Width and height of the whole photo in pixels, or None where `image` is the whole one."""


class HandReconstructor:
  """Finds and reconstructs the hands of photos. The first photo compiles the programs.

  Attributes:
    model: the model of the right hand, to which the meshes belong.
    network: the trained run that makes the meshes, or None.
    release: the bundled weights for fitting `model`, or None with a run.
  """

  def __init__(
    self,
    workdir: str | os.PathLike | None = None,
    mano_dir: str | None = None,
    refine: bool = True,
  ):
    """Loads the networks and the hand model.

    From then on JAX keeps the programs that this process compiles in the user's cache folder,
    unless it has a folder for them already. `JAX_ENABLE_COMPILATION_CACHE=false` in the environment
    turns that off, and so does `jax.config.update('jax_enable_compilation_cache', False)` before.

    Args:
      workdir: folder of a trained run, 'release' for the run in the package, or None for the
        bundled weights. A leading `~` of a path is expanded.
      mano_dir: folder or file of MANO's files. None means $MANO_DIR, or the free hand without it.
      refine: whether the hand model is fitted to the evidence of all networks, if no run is given.
        False gives the unchanged estimates of the run in the package.

    Raises:
      FileNotFoundError, ValueError: the run or the hand model cannot be read.
    """
    keep_compiled_programs()
    self.network: TrainedNetwork | None = None
    self.release: Release | None = None
    if not (workdir or refine):
      workdir = RELEASE
    mano_dir = os.path.expanduser(mano_dir) if mano_dir else None
    if workdir:
      # All else stays as it is: a path `release` is not the text of that name.
      workdir = os.path.expanduser(workdir) if os.fspath(workdir)[:1] == '~' else workdir
      self.network = load_trained_network(workdir, mano_dir)
      self.model: ManoModel = self.network.model
    else:
      self.model = load_mano_model(resolve_mano_dir(mano_dir), 'right')
      self.release = release_for(self.model)

  def __call__(
    self,
    image: Photo | Sequence[Photo],
    boxes: Sequence[Any] | np.ndarray | None = None,
    sides: Sequence[str] | str | None = None,
    focal_length_px: float | int | None = None,
    hand_mask: Bool[np.ndarray, 'height width'] | None = None,
    max_hands: int = MAX_HANDS,
  ) -> list[Reconstruction] | list[list[Reconstruction]]:
    """Reconstructs every hand of a photo, or of each photo of a list, the most probable first.

    Args:
      image: a file, an upright RGB array of 8 bits, or a Pillow image. The hands of a
        list of such photos are fitted together. Files and Pillow images are turned upright.
      boxes: boxes of the hands of one photo, each x, y, width, height in pixels of the upright
        photo. A box without a hand gives no result, and `given_box` tells which box each hand is
        of. With None the detector looks for hands.
      sides: 'left' or 'right' for each box, or one for all hands. With None the detector decides.
      focal_length_px: the photo's focal length in pixels. None takes it from EXIF, or else assumes
        a field of view, which the result states.
      hand_mask: True where one photo shows the hand. An object hides the vertices outside it. None
        estimates the mask of each hand.
      max_hands: the search of a photo ends when this many hands are found.

    Returns:
      The hands of the photo, or a list of them for each photo. A photo without hands gives an empty
      list.

    Raises:
      FileNotFoundError, ValueError: a photo cannot be read or is no RGB picture, a side is neither
        'left' nor 'right', a box or mask does not fit the photo, or a run's estimate is not finite.
    """
    several = isinstance(image, list | tuple)
    photos = cast(Sequence[Photo], image if several else [image])
    if several and (boxes is not None or hand_mask is not None):
      raise ValueError('boxes and hand_mask belong to one photo: give one photo at a time.')
    sides = (sides,) if isinstance(sides, str) else tuple(sides or ())
    boxes_xywh = _as_boxes(boxes)
    requests = [
      read_request(photo, focal_length_px)._replace(
        boxes_xywh=boxes_xywh, sides=sides, hand_mask=hand_mask
      )
      for photo in photos
    ]
    hands = self.reconstruct(requests, max_hands)
    return hands if several else hands[0]

  def reconstruct(
    self, requests: Iterable[PhotoRequest], max_hands: int = MAX_HANDS
  ) -> list[list[Reconstruction]]:
    """Reconstructs the hands of photos that are read already. All hands are fitted in one batch.

    Args:
      requests: the photos, with known boxes, sides and masks of their hands.
      max_hands: the search of a photo ends when this many hands are found.

    Raises:
      ValueError: see `__call__`.
    """
    reduced = [_reduced(_checked(request)) for request in requests]
    found = [find_hands(request, max_hands) for request in reduced]
    for request, hands in zip(reduced, found, strict=True):
      _check_mask_shows_hand(request, hands)
    if self.network is None:
      results = self._fitted(reduced, found)
    else:
      pairs = zip(reduced, found, strict=True)
      results = [_by_run(self.network, request, hands) for request, hands in pairs]
    return [
      _named([in_whole_pixels(hand, request.scale, request.whole_size) for hand in hands])
      for request, hands in zip(reduced, results, strict=True)
    ]

  def _fitted(
    self, requests: list[PhotoRequest], found: list[list[DetectedHand]]
  ) -> list[list[Reconstruction]]:
    """Fits the hands of all photos in one batch."""
    assert self.release is not None
    # A box always gives a reading, but without a hand in it there is nothing to fit.
    places = [
      (number, place)
      for number, hands in enumerate(found)
      for place, hand in enumerate(hands)
      if hand.presence >= _MIN_PRESENCE
    ]
    seen = [
      SeenHand(found[number][place], _size(request.image), _camera(request).intrinsics)
      for number, place in places
      for request in [requests[number]]
    ]
    views: list[HandView] = []
    masks: list[tuple[Bool[np.ndarray, 'height width'], MaskSource]] = []

    def find_masks() -> list[Bool[np.ndarray, 'height width']]:
      for number, place in places:
        views.append(view_hand(requests[number].image, found[number][place]))
        masks.append(_hand_mask(requests[number], found[number][place], views[-1]))
      return [mask for mask, _ in masks]

    fitted = fit_detected_hands(self.model, seen, self.release, find_masks)
    results: list[list[Reconstruction]] = [[] for _ in requests]
    for (number, place), hand, view, mask in zip(places, fitted, views, masks, strict=True):
      request = requests[number]
      camera = _camera(request)
      made = fitted_reconstruction(
        hand, self.model, request.image, request.name, camera, view, *mask
      )
      results[number].append(dataclasses.replace(made, given_box=_given_box(request, place)))
    return results


def read_request(photo: Photo, focal_length_px: float | int | None = None) -> PhotoRequest:
  """Reads a photo and its focal length.

  Args:
    photo: a file, an upright RGB array, or a Pillow image.
    focal_length_px: the focal length in pixels. None takes it from EXIF, if the photo has it.

  Raises:
    FileNotFoundError, ValueError: the photo cannot be read.
    TypeError: `photo` is none of these.
  """
  if isinstance(photo, np.ndarray):
    image, name, focal_35mm = photo, 'the image', None
    check_image(image)
  elif isinstance(photo, Image.Image):
    name = str(getattr(photo, 'filename', '') or 'the image')
    image, focal_35mm = photo_from_pillow(photo), read_focal_35mm(photo)
  elif isinstance(photo, str | os.PathLike):
    photo = os.path.expanduser(os.fspath(photo))
    scaled, focal_35mm = read_photo_scaled(photo), read_focal_35mm(photo)
    camera = photo_camera(scaled.whole_size, focal_length_px, focal_35mm)
    name, size = photo, scaled.whole_size
    return PhotoRequest(scaled.image, name, camera=camera, scale=scaled.scale, whole_size=size)
  else:
    raise TypeError(
      f'A photo is a {type(photo).__name__}, expected a path, a NumPy array or a Pillow image.'
    )
  camera = photo_camera(_size(image), focal_length_px, focal_35mm)
  return PhotoRequest(image, name, camera=camera)


def _as_boxes(boxes: object) -> tuple[np.ndarray, ...]:
  """Reads a list of boxes. Anything else raises a ValueError."""
  if boxes is None:
    return ()
  try:
    array: np.ndarray = np.asarray(boxes, np.float64)
  except (TypeError, ValueError):
    array = np.zeros(0)
  if array.ndim != 2 or array.shape[-1] != 4:
    raise ValueError(
      f'boxes is {boxes!r}, expected a list of boxes, each of four numbers x, y, width, height.'
    )
  return tuple(np.asarray(box) for box in array)


def _named(hands: list[Reconstruction]) -> list[Reconstruction]:
  """Gives the hands of a photo the names of their files."""
  if not hands:
    return []
  stem = pathlib.PurePath(hands[0].photo_name).stem
  stem = 'hand' if hands[0].photo_name == PhotoRequest._field_defaults['name'] else stem
  names = hand_names(stem, [hand.side for hand in hands])
  return [
    dataclasses.replace(hand, file_stem=name) for hand, name in zip(hands, names, strict=True)
  ]


def find_hands(request: PhotoRequest, max_hands: int = MAX_HANDS) -> list[DetectedHand]:
  """Finds the hands of a photo, or reads the ones in the given boxes."""
  if request.boxes_xywh:
    sides = request.sides or (None,)
    sides = tuple(sides) * (len(request.boxes_xywh) if len(sides) == 1 else 1)
    return [
      hand_in_box(request.image, box, side)
      for box, side in zip(request.boxes_xywh, sides, strict=True)
    ]
  hands = detect_hands(request.image, max_hands)
  if not request.sides:
    return hands
  (side,) = request.sides
  return [
    hand._replace(side_score=1.0)
    if hand.side == side
    else read_regions(request.image, [hand.roi], side)[0]
    for hand in hands
  ]


def _by_run(
  network: TrainedNetwork, request: PhotoRequest, hands: list[DetectedHand]
) -> list[Reconstruction]:
  """Estimates hands by the run, in given boxes or in boxes like those that it was trained on."""
  boxes = request.boxes_xywh or [
    box_round_joints(np.asarray(hand.landmarks_image, np.float64)) for hand in hands
  ]
  meshes = []
  for place, (box, hand) in enumerate(zip(boxes, hands, strict=True)):
    mask, mask_source = _hand_mask(request, hand)
    photo = HandPhoto(
      request.image,
      box,
      hand.side,
      request.name,
      mask,
      _camera(request),
      np.asarray(hand.landmarks_image, np.float64),
      mask_source,
    )
    with naming_misfits(network.run):
      mesh = reconstruct_in_box(network, photo)
    given = _given_box(request, place)
    meshes.append(dataclasses.replace(mesh, detection=hand, given_box=given))
  return meshes


def _given_box(request: PhotoRequest, place: int) -> int | None:
  """The number of a found hand's box among the given ones, in whose order hands are found."""
  return place if request.boxes_xywh else None


def _hand_mask(
  request: PhotoRequest, hand: DetectedHand, view: HandView | None = None
) -> tuple[Bool[np.ndarray, 'height width'], MaskSource]:
  """The mask that was given, else the estimated one of this hand, and which of them it is."""
  if request.hand_mask is not None:
    return request.hand_mask, 'given'
  view = view or view_hand(request.image, hand)
  return estimate_hand_mask(view, *_size(request.image)), 'estimated'


def _check_mask_shows_hand(request: PhotoRequest, hands: list[DetectedHand]) -> None:
  """Refuses a given mask that marks no hand, such as one of another photo or an inverted one."""
  hands = [hand for hand in hands if hand.presence >= _MIN_PRESENCE]
  if request.hand_mask is None or not hands:
    return
  shown = [_marked_points(request.hand_mask, hand.landmarks_image) for hand in hands]
  if max(shown) < _LEAST_SHOWN:
    raise ValueError(
      f'The hand mask of {request.name} shows none of the hand there. It should be white where the '
      'photo shows the hand, and black elsewhere.'
    )


def _marked_points(mask: Bool[np.ndarray, 'height width'], points: np.ndarray) -> int:
  """Counts the points, in pixels, that lie on marked pixels. None beyond the borders does."""
  column, row = np.floor(points.T).astype(int)
  inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
  return int(np.count_nonzero(mask[row[inside], column[inside]]))


def _size(image: np.ndarray) -> tuple[int, int]:
  """Returns width and height in pixels."""
  return image.shape[1], image.shape[0]


def _reduced(request: PhotoRequest) -> PhotoRequest:
  """Converts everything in a request to pixels of its image."""
  if request.scale == 1:
    return request
  mask = request.hand_mask
  if mask is not None:
    # Take the nearest pixel, because a mask is true or false.
    mask = cv2.resize(mask.astype(np.uint8), _size(request.image), interpolation=0) > 0
  return request._replace(
    boxes_xywh=tuple(request.scale * np.asarray(box) for box in request.boxes_xywh),
    hand_mask=mask,
    camera=None if request.camera is None else request.camera.scaled(request.scale),
  )


def _camera(request: PhotoRequest) -> PhotoCamera:
  return request.camera or photo_camera(_size(request.image))


def _checked(request: PhotoRequest) -> PhotoRequest:
  """Checks that the parts of a request fit the photo and each other, and returns the request."""
  check_image(request.image)
  for side in request.sides:
    if side not in ('right', 'left'):
      raise ValueError(
        f"A side is {side!r}, expected 'right' or 'left'. Leave sides out where they are not known."
      )
  width, height = request.whole_size or _size(request.image)
  boxes, sides = len(request.boxes_xywh), len(request.sides)
  if sides > 1 and sides != boxes:
    raise ValueError(
      f'{sides} sides for {boxes} boxes of {request.name}: give one side for each box, or one for '
      'all.'
    )
  for box in request.boxes_xywh:
    check_box(np.asarray(box, np.float64), width, height, request.name)
  camera = request.camera
  if camera is not None and not (
    np.isfinite([camera.focal_length_px, *camera.principal_point]).all()
    and camera.focal_length_px > 0
  ):
    raise ValueError(
      f'The camera of {request.name} is {camera}, expected finite numbers with a focal length '
      'above zero.'
    )
  if request.hand_mask is not None:
    check_mask(request.hand_mask, width, height, request.name)
  return request
