// What a switch means: the colour of each vertex and how light falls on it.

import {
  BufferAttribute, Color, DoubleSide, MeshBasicMaterial, MeshLambertMaterial, SRGBColorSpace,
} from 'three';

const PLAIN = [0.78, 0.84, 0.93];
const SEEN = [0.33, 0.6, 0.87];
const HIDDEN = [0.93, 0.55, 0.2];

/** A viridis colour, interpolated in the page's table of bytes; fraction in 0..1. */
function viridis(table, fraction) {
  const last = table.length / 3 - 1;
  const place = last * Math.min(Math.max(fraction, 0), 1);
  const lower = Math.min(Math.floor(place), last - 1);
  const weight = place - lower;
  return [0, 1, 2].map((channel) => {
    const low = table[3 * lower + channel];
    return (low + weight * (table[3 * lower + 3 + channel] - low)) / 255;
  });
}

const colorOfVertex = {
  plain: () => PLAIN,
  uncertainty: (mesh, vertex, table) => {
    const [low, high] = mesh.range;
    return viridis(table, (mesh.sigma[vertex] - low) / (high - low));
  },
  texture: (mesh, vertex) => [0, 1, 2].map((channel) => mesh.colors[3 * vertex + channel] / 255),
  visibility: (mesh, vertex) => (mesh.visible[vertex] ? SEEN : HIDDEN),
};

/** The colours of one switch as three.js wants them: linear. */
export function vertexColors(mesh, mode, table) {
  const count = mesh.sigma.length;
  const values = new Float32Array(3 * count);
  const color = new Color();
  for (let vertex = 0; vertex < count; vertex += 1) {
    color.setRGB(...colorOfVertex[mode](mesh, vertex, table), SRGBColorSpace);
    color.toArray(values, 3 * vertex);
  }
  return new BufferAttribute(values, 3);
}

/** The photo's colours hold its light already; all others are shaded. */
export function makeMaterials() {
  const settings = { vertexColors: true, side: DoubleSide };
  return { lit: new MeshLambertMaterial(settings), unlit: new MeshBasicMaterial(settings) };
}
