"""Surfaces: attributes at pixels, normals and light, which turn fragments into a picture."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Real

from hand_jax.rendering.inputs import checked_mesh
from hand_jax.rendering.rasterize import drawable_corners
from hand_jax.types import ArrayLike, Fragments

# Factors of the real spherical harmonics of a unit vector (x, y, z): of 1; of x, y and z; of xy, yz
# and xz; of 3z^2 - 1; of x^2 - y^2.
_HARMONICS = [math.sqrt(square / math.pi) for square in (1 / 4, 3 / 4, 15 / 4, 5 / 16, 15 / 16)]
# How much of each harmonic's light a diffuse surface sends out again: a clamped cosine's response,
# divided by pi.
DIFFUSE_SHARES = (1.0, *[2 / 3] * 3, *[1 / 4] * 5)


def interpolate(
  fragments: Fragments,
  faces: Int[ArrayLike, 'faces 3'],
  attributes: Real[ArrayLike, 'batch vertices channels'],
) -> Float[Array, 'batch height width channels']:
  """Vertex attributes at each pixel, linear in the image; 0 where nothing is hit.

  Differentiable in the attributes and, through the barycentrics, in the vertices. One row of a
  table by face is read per pixel rather than three rows by vertex: on a CPU several times faster.
  Raises ValueError for attributes of another batch or another number of axes, and for faces that
  name vertices without attributes.
  """
  attributes, faces = checked_mesh(attributes, faces, None, 'attributes')
  images = fragments.face_index.shape[0]
  if attributes.shape[0] != images:
    raise ValueError(f'attributes has shape {attributes.shape}, expected a batch of {images}')
  channels = attributes.shape[-1]

  def one(image):
    face_index, barycentric, values = image
    table = values[faces].reshape(faces.shape[0], 3 * channels)
    # Background pixels have zero weights, but an attribute may be NaN: leave their product out.
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
  """Unit normals, the area-weighted mean of the faces around each vertex; 0 for a lone vertex.

  They follow the right-hand rule of the winding: outwards for counter-clockwise faces. Faces that
  the rasterizer does not draw (a vertex is NaN, say) do not count, and pass no gradient on.
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
  """Unit vectors; one shorter than 1e-15 counts as zero and stays so, with a zero gradient."""
  squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
  # Far above float32's smallest number: the gradient's inverse powers stay finite.
  nonzero = squared > 1e-30
  return jnp.where(nonzero, vectors / jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)


def spherical_harmonics(directions: Float[ArrayLike, '*batch 3']) -> Float[ArrayLike, '*batch 9']:
  """Evaluates the nine real, orthonormal spherical harmonics of order 0 to 2 at unit directions.

  A NumPy array gives a NumPy array of its precision, anything else a JAX array.
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
  """Light that falls on a surface from all around, per colour channel (pi for a radiance of 1).

  `coefficients` are the light's projections on `spherical_harmonics`, radiance in the frame of
  `normals` (unit vectors). A diffuse surface of albedo a sends out a / pi times the result. Exact
  for light of order 2 and within a few percent for any distant light (Ramamoorthi and Hanrahan,
  "An efficient representation for irradiance environment maps", 2001); negative lobes are cut.
  """
  shares = np.pi * jnp.asarray(DIFFUSE_SHARES, coefficients.dtype)
  shares = shares.reshape((1,) * (coefficients.ndim - 2) + (9, 1))
  harmonics = spherical_harmonics(normals)
  return jnp.maximum(jnp.einsum('...k,...kc->...c', harmonics, coefficients * shares), 0)


def headlight(
  normals_camera: Float[Array, '*batch 3'], ambient: float = 0.35
) -> Float[Array, '*batch']:
  """Brightness in [ambient, 1] for a lamp beside the camera (x right, y down, z forward).

  The lamp sits a little up and to the left, so that relief shows; both sides of a face are lit.
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
  """Brightness in [ambient, 1] under a distant lamp: ambient + (1 - ambient) max(0, n . l).

  `direction` points from the surface towards the lamp, in the frame of `normals`; its length is of
  no matter. Surfaces that face away get the ambient part alone, and so do zero normals.
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
  """The foreground over the background where the mask is set."""
  weight = opacity * mask[..., None].astype(background.dtype)
  return background * (1 - weight) + foreground * weight


def downsample(
  image: Float[Array, 'batch height width channels'], factor: int
) -> Float[Array, 'batch small_height small_width channels']:
  """Means of factor x factor blocks: anti-aliasing for pictures rendered larger.

  Raises ValueError when the size is no multiple of the factor.
  """
  batch, height, width, channels = image.shape
  if height % factor or width % factor:
    raise ValueError(f'image of {height} x {width} pixels cannot be divided by {factor}')
  blocks = image.reshape(batch, height // factor, factor, width // factor, factor, channels)
  return jnp.mean(blocks, axis=(2, 4))
