"""Runs other libraries that find the face of each pixel, on the same images as our rasterizer.

- trimesh with embree (`pip install trimesh embreex`) finds the first hits of one ray per pixel,
  parallel to the depth axis. Rays and embree's scenes are made before the timing, which favours
  embree, because every new hand would need a new scene.
- PyTorch3D has a CPU rasterizer (`pytorch3d._C.rasterize_meshes`), which is used without blur, with
  one face per pixel and without perspective correction. It has no package for most platforms, and
  can be installed from source. It is also enough to build its source file
  `csrc/rasterize_meshes/rasterize_meshes_cpu.cpp` by `torch.utils.cpp_extension`, with that one
  binding, into a module `pytorch3d/_C` on the path.
"""

import importlib.util
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Rival = Callable[[], Int[np.ndarray, 'batch size size']]


def available(
  vertices_image: Float[np.ndarray, 'batch vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  size: int,
) -> dict[str, Rival]:
  """Returns functions that find the face at each pixel (-1 for none), by the name of the library.

  The names of missing libraries are printed.

  Args:
    vertices_image: pixels and depth.
    faces: triangles.
    size: height and width of the images in pixels.
  """
  rivals = {}
  makers = {
    'trimesh with embree': (('trimesh', 'embreex'), ray_casting),
    'pytorch3d': (('torch', 'pytorch3d'), pytorch3d_rasterizer),
  }
  for name, (modules, make) in makers.items():
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
      print(f'{name}: not measured, {" and ".join(missing)} not installed')
    else:
      rivals[name] = make(vertices_image, faces, size)
  return rivals


def ray_casting(vertices_image: np.ndarray, faces: np.ndarray, size: int) -> Rival:
  """Returns a function that finds the faces with trimesh and embree.

  Args:
    vertices_image: pixels and depth.
    faces: triangles.
    size: height and width of the images in pixels.
  """
  import trimesh
  from trimesh.ray.ray_pyembree import RayMeshIntersector

  # Depth is scaled to the size of the image, so that embree's tolerance resolves it.
  depth = vertices_image[..., 2:]
  spread = (depth - depth.min()) / np.ptp(depth) * size
  images = np.concatenate([vertices_image[..., :2], spread], axis=-1).astype(np.float64)
  y, x = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing='ij')
  origins = np.stack([x, y, np.full_like(x, -size)], axis=-1).reshape(-1, 3)
  directions = np.broadcast_to(np.array([0.0, 0, 1]), origins.shape)

  meshes = [trimesh.Trimesh(image, faces, process=False, validate=False) for image in images]
  scenes = [RayMeshIntersector(mesh) for mesh in meshes]

  def cast():
    seen = [scene.intersects_first(origins, directions) for scene in scenes]
    return np.reshape(seen, (len(scenes), size, size))

  return cast


def pytorch3d_rasterizer(vertices_image: np.ndarray, faces: np.ndarray, size: int) -> Rival:
  """Returns a function that finds the faces with PyTorch3D.

  Args:
    vertices_image: pixels and depth.
    faces: triangles.
    size: height and width of the images in pixels.
  """
  import torch
  from pytorch3d import _C

  # In PyTorch3D x points left and y up, both from -1 to 1 over the image, and depth is above zero.
  normalized = 1 - 2 * vertices_image[..., :2] / size
  depth = vertices_image[..., 2:] - vertices_image[..., 2].min() + 1
  points = np.concatenate([normalized, depth], axis=-1).astype(np.float32)
  batch, count = len(points), len(faces)
  corners = torch.from_numpy(points[:, faces].reshape(-1, 3, 3))
  first = torch.arange(batch) * count
  counts = torch.full((batch,), count)
  neighbours = torch.full((batch * count,), -1)

  def rasterize():
    # The blur is 0, and there is 1 face per pixel. A CPU uses no bins. The three values False turn
    # off perspective correction, clipping and culling.
    arguments = (corners, first, counts, neighbours, (size, size), 0.0, 1, 0, 0)
    packed = _C.rasterize_meshes(*arguments, False, False, False)[0][..., 0].numpy()
    offset = first.numpy()[:, None, None]
    return np.where(packed < 0, -1, packed - offset)

  return rasterize
