"""Makes pictures from fragments: interpolates attributes, and computes normals and light."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Real

from hand_jax.rendering.inputs import checked_mesh
from hand_jax.rendering.rasterize import drawable_corners
from hand_jax.types import ArrayLike, Fragments

# Factors of the real spherical harmonics of a unit vector (x, y, z). The five factors belong to 1,
# to x, y and z, to xy, yz and xz, to 3z^2 - 1, and to x^2 - y^2.
_HARMONICS = [math.sqrt(square / math.pi) for square in (1 / 4, 3 / 4, 15 / 4, 5 / 16, 15 / 16)]
# The share of each harmonic's light that a diffuse surface sends out again. It is the response of a
# clamped cosine, divided by pi.
DIFFUSE_SHARES = (1.0, *[2 / 3] * 3, *[1 / 4] * 5)


def interpolate(
  fragments: Fragments,
  faces: Int[ArrayLike, 'faces 3'],
  attributes: Real[ArrayLike, 'batch vertices channels'],
) -> Float[Array, 'batch height width channels']:
  """Interpolates vertex attributes at each pixel, linearly in the image.

  The result is differentiable in the attributes and, through the barycentrics, in the vertices. One
  row of a table by face is read per pixel rather than three rows by vertex, which is several times
  faster on a CPU.

  Args:
    fragments: the faces that pixels see, from `rasterize`.
    faces: vertex ids.
    attributes: values of the vertices.

  Returns:
    The values at the pixels, and 0 where no face is hit.

  Raises:
    ValueError: the attributes have another batch size or number of axes, or faces name vertices
      without attributes.
  """
  attributes, faces = checked_mesh(attributes, faces, None, 'attributes')
  images = fragments.face_index.shape[0]
  if attributes.shape[0] != images:
    raise ValueError(f'attributes has shape {attributes.shape}, expected a batch of {images}')
  channels = attributes.shape[-1]

  def one(image):
    face_index, barycentric, values = image
    table = values[faces].reshape(faces.shape[0], 3 * channels)
    # Background pixels have zero weights, but an attribute may be NaN. Leave their product out.
    rows = table[jnp.maximum(face_index, 0)]
    rows = jnp.where((face_index >= 0)[..., None], rows, 0)
    first, second, third = jnp.split(rows, 3, axis=-1)
    weights = jnp.split(barycentric, 3, axis=-1)
    return first * weights[0] + second * weights[1] + third * weights[2]

  if faces.shape[0] == 0:
    return jnp.zeros((*fragments.depth.shape, channels), attributes.dtype)
  return lax.map(one, (fragments.face_index, fragments.barycentric, attributes))


def vertex_normals(
  vertices: Float[Array, '*batch vertices 3'], faces: Int[Array, 'faces 3']
) -> Float[Array, '*batch vertices 3']:
  """Computes unit normals as the area-weighted mean of the faces around each vertex.

  A vertex without faces gets 0. Normals follow the right-hand rule of the winding, so they point
  outwards for counter-clockwise faces. Faces that the rasterizer does not draw, such as those with
  a NaN vertex, do not count and pass no gradient on.
  """
  return normalize(area_normals(vertices, faces))


def area_normals(
  vertices: Float[Array, '*batch vertices 3'], faces: Int[Array, 'faces 3']
) -> Float[Array, '*batch vertices 3']:
  """Sums the normals of the faces around each vertex, each twice as long as its face's area."""
  corners = drawable_corners(vertices, faces)
  face_normals = jnp.cross(
    corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
  )
  repeated = jnp.repeat(face_normals, 3, axis=-2)
  return jnp.zeros_like(vertices).at[..., faces.reshape(-1), :].add(repeated)


def normalize(vectors: Float[Array, '*batch 3']) -> Float[Array, '*batch 3']:
  """Scales vectors to length 1.

  A vector shorter than 1e-15 counts as zero and becomes zero, with a zero gradient.
  """
  squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
  # The limit is far above float32's smallest number, so the gradient's inverse powers stay finite.
  nonzero = squared > 1e-30
  return jnp.where(nonzero, vectors / jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)


def spherical_harmonics(directions: Float[ArrayLike, '*batch 3']) -> Float[ArrayLike, '*batch 9']:
  """Evaluates the nine real, orthonormal spherical harmonics of order 0 to 2 at unit directions.

  A NumPy array gives a NumPy array of the same precision, and anything else gives a JAX array.
  """
  library = np if isinstance(directions, np.ndarray) else jnp
  x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
  constant, linear, product, axial, difference = _HARMONICS
  functions = [
    library.full_like(x, constant),
    *(linear * y, linear * z, linear * x),
    *(product * x * y, product * y * z),
    axial * (3 * z * z - 1),
    product * x * z,
    difference * (x * x - y * y),
  ]
  return library.stack(functions, axis=-1)


def irradiance(
  coefficients: Float[Array, '*#batch 9 3'], normals: Float[Array, '*batch 3']
) -> Float[Array, '*batch 3']:
  """Computes the light that falls on a surface from all around, per colour channel.

  A radiance of 1 from everywhere gives pi. `coefficients` are the projections of the light's
  radiance on `spherical_harmonics`, in the frame of `normals` (unit vectors). A diffuse surface of
  albedo a sends out a / pi times the result. The result is exact for light of order 2, and correct
  within a few percent for any distant light (Ramamoorthi and Hanrahan, "An efficient representation
  for irradiance environment maps", 2001). Negative values are set to zero.
  """
  shares = np.pi * jnp.asarray(DIFFUSE_SHARES, coefficients.dtype)
  shares = shares.reshape((1,) * (coefficients.ndim - 2) + (9, 1))
  harmonics = spherical_harmonics(normals)
  return jnp.maximum(jnp.einsum('...k,...kc->...c', harmonics, coefficients * shares), 0)


def headlight(
  normals_camera: Float[Array, '*batch 3'], ambient: float = 0.35
) -> Float[Array, '*batch']:
  """Computes brightness in [ambient, 1] for a lamp beside the camera (x right, y down, z forward).

  The lamp sits a little up and to the left, which shows relief. Both sides of a face are lit.
  """
  towards = np.array([-0.35, -0.5, -0.8])
  towards = jnp.asarray(towards / np.linalg.norm(towards), normals_camera.dtype)
  facing = jnp.where(normals_camera[..., 2:] > 0, -normals_camera, normals_camera)
  return ambient + (1 - ambient) * jnp.maximum(facing @ towards, 0)


def directional_light(
  normals: Float[Array, '*batch 3'],
  direction: Float[Array, '*#batch 3'],
  ambient: float = 0.35,
) -> Float[Array, '*batch']:
  """Computes brightness under a distant lamp: ambient + (1 - ambient) max(0, n . l).

  Surfaces that face away get only the ambient part, and so do zero normals.

  Args:
    normals: unit normals.
    direction: points from the surface towards the lamp, in the frame of `normals`. Its length does
      not matter.
    ambient: brightness without the lamp.
  """
  towards = normalize(direction)
  towards = towards.reshape((1,) * (normals.ndim - towards.ndim) + towards.shape)
  facing = jnp.sum(normals * towards, axis=-1)
  return ambient + (1 - ambient) * jnp.maximum(facing, 0)


def composite(
  background: Float[Array, 'batch height width 3'],
  foreground: Float[Array, 'batch height width 3'],
  mask: Bool[Array, 'batch height width'],
  opacity: float = 1.0,
) -> Float[Array, 'batch height width 3']:
  """Draws the foreground over the background where the mask is set.

  Args:
    background: colours of the background.
    foreground: colours of the foreground.
    mask: True where the foreground is drawn.
    opacity: opacity of the foreground, in [0, 1].
  """
  weight = opacity * mask[..., None].astype(background.dtype)
  return background * (1 - weight) + foreground * weight


def downsample(
  image: Float[Array, 'batch height width channels'], factor: int
) -> Float[Array, 'batch small_height small_width channels']:
  """Averages blocks of factor x factor pixels, which smooths the edges of pictures rendered larger.

  Raises:
    ValueError: the size of the image is not a multiple of the factor.
  """
  batch, height, width, channels = image.shape
  if height % factor or width % factor:
    raise ValueError(f'image of {height} x {width} pixels cannot be divided by {factor}')
  blocks = image.reshape(batch, height // factor, factor, width // factor, factor, channels)
  return jnp.mean(blocks, axis=(2, 4))
