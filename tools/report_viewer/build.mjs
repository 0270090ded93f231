// Builds hand_jax/assets/report/viewer.js, with three.js' licence inside and beside it.

import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = new URL('./', import.meta.url);
const assets = new URL('../../hand_jax/assets/report/', here);
const target = fileURLToPath(new URL('viewer.js', assets));
const { version } = JSON.parse(readFileSync(new URL('node_modules/three/package.json', here)));
const licence = readFileSync(new URL('node_modules/three/LICENSE', here), 'utf8').trim();

// A test compares this with the sources, so that a change of them is not forgotten here.
const sources = ['package-lock.json', ...readdirSync(new URL('src/', here)).sort().map((name) => `src/${name}`)];
const digest = createHash('sha256');
for (const name of sources) digest.update(readFileSync(new URL(name, here)));
const about = `hand_jax's report viewer (Apache-2.0), sources ${digest.digest('hex')},\nwith three.js ${version}:`;

await build({
  entryPoints: [fileURLToPath(new URL('src/viewer.js', here))],
  outfile: target,
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2022',
  charset: 'ascii',
  legalComments: 'none', // the banner has the whole licence
  banner: { js: `/*\n${about}\n\n${licence}\n*/` },
});

writeFileSync(
  new URL('viewer_NOTICE.txt', assets),
  `viewer.js: the 3D view of the report, built by tools/report_viewer from its own src/ (this project's,
Apache-2.0) and from three.js with its OrbitControls, minified into one file.

Source: the npm package three ${version}, https://github.com/mrdoob/three.js

${licence}
`,
);
console.log(`${target}: ${statSync(target).size} bytes, three.js ${version}`);
