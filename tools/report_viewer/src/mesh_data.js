// Reads the meshes that the page holds as JSON blocks. `hand_jax/report/mesh_blocks.py` writes them.

const lists = new Map();

/** The JSON inside the page's block of this id. */
export function readBlock(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Bytes from base64 text that was compressed by zlib. */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

/** The triangles of a block, decoded once for all hands that share them. */
function readFaces(id) {
  if (!lists.has(id)) {
    const { data, bits } = readBlock(id);
    lists.set(
      id,
      inflate(data).then((bytes) => (bits === 16 ? new Uint16Array(bytes) : new Uint32Array(bytes))),
    );
  }
  return lists.get(id);
}

/**
 * One hand: positions in metres (x right, y up, z towards the viewer), sigma in mm, whether the photo
 * shows each vertex, colours in 0..255 or null, and triangles.
 */
export async function readMesh(id) {
  const block = readBlock(id);
  const bytes = await inflate(block.data);
  const count = block.vertices;
  const stored = new Int16Array(bytes, 0, 3 * count);
  const positions = Float32Array.from(stored, (value, index) =>
    (index % 3 === 0 ? value : -value) * block.metres_per_step);
  const sigma = Float32Array.from(
    new Uint16Array(bytes, 6 * count, count), (value) => value * block.mm_per_step);
  const visible = new Uint8Array(bytes, 8 * count, count);
  const colors = block.colors ? new Uint8Array(bytes, 9 * count, 3 * count) : null;
  const faces = await readFaces(block.faces);
  return { positions, sigma, visible, colors, faces, range: block.range_mm, towardsCamera: block.camera };
}
