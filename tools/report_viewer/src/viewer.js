// Starts the report's 3D views: one WebGL context for all of them, each drawn when it is needed.

import { DirectionalLight, HemisphereLight, Scene, WebGLRenderer } from 'three';

import { HandView } from './hand_view.js';
import { readBlock } from './mesh_data.js';
import { makeMaterials } from './painting.js';

/** Draws any view's hand. Browsers allow about sixteen WebGL contexts a page, hence one for all. */
class Stage {
  constructor() {
    this.renderer = new WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setPixelRatio(1);
    const table = atob(readBlock('page-settings').viridis);
    this.viridis = Uint8Array.from(table, (letter) => letter.charCodeAt(0));
    this.materials = makeMaterials();
    this.scene = new Scene();
    this.sky = new HemisphereLight(0xffffff, 0xb8b4c8, 1);
    this.lamp = new DirectionalLight(0xffffff, 1);
    this.scene.add(this.sky, this.lamp, this.lamp.target);
  }

  /** A picture of the view's hand, to be copied before the next one is drawn. */
  render(view, width, height) {
    const { camera, object, mode } = view;
    const canvas = this.renderer.domElement;
    if (canvas.width !== width || canvas.height !== height) this.renderer.setSize(width, height, false);
    object.material = mode === 'texture' ? this.materials.unlit : this.materials.lit;
    // Colours that mean something are shaded less, so that they can be told.
    const ambient = mode === 'plain' ? 1.3 : 2.0;
    this.sky.intensity = ambient;
    this.lamp.intensity = 3.1 - ambient;
    // The lamp stands at the viewer's left shoulder.
    camera.updateMatrixWorld();
    this.lamp.position.set(-0.5, 0.6, 1).transformDirection(camera.matrixWorld);
    this.scene.add(object);
    this.renderer.render(this.scene, camera);
    this.scene.remove(object);
    return canvas;
  }
}

function start() {
  const roots = [...document.querySelectorAll('.viewer')];
  if (roots.length === 0) return;
  let stage;
  try {
    if (typeof DecompressionStream === 'undefined') throw new Error('an old browser');
    stage = new Stage();
  } catch {
    for (const root of roots) {
      root.querySelector('.missing').textContent =
        'The 3D view needs WebGL, which this browser does not offer here. The pictures show the same hand.';
    }
    return;
  }
  const views = new Map(roots.map((root) => [root, new HandView(root, stage)]));
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) views.get(target).show();
      else views.get(target).hide();
    }
  }, { rootMargin: '50% 0%' });
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) views.get(target.closest('.viewer')).draw();
  });
  for (const [root, view] of views) {
    near.observe(root);
    sizes.observe(view.canvas);
  }
  stage.renderer.domElement.addEventListener('webglcontextrestored', () => {
    for (const view of views.values()) view.draw();
  });
}

start();
