// One hand on one canvas: turning, zooming, switches and what the pointer is over.

import {
  BufferAttribute, BufferGeometry, Mesh, PerspectiveCamera, Raycaster, Spherical, Vector2, Vector3,
} from 'three';
import { OrbitControls } from 'three/examples/jsm/controls/OrbitControls.js';

import { readMesh } from './mesh_data.js';
import { vertexColors } from './painting.js';

const FIELD_OF_VIEW = 28; // degrees
const KEY_TURN = Math.PI / 18;
const KEY_ZOOM = 1.15;
const TURNS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ZOOMS = { '+': 1 / KEY_ZOOM, '=': 1 / KEY_ZOOM, '-': KEY_ZOOM, _: KEY_ZOOM };

export class HandView {
  /** `root` is the page's element of class `viewer`; `stage` draws for all views. */
  constructor(root, stage) {
    this.root = root;
    this.stage = stage;
    this.canvas = root.querySelector('canvas');
    this.context = this.canvas.getContext('2d');
    this.readout = root.querySelector('.readout');
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 10);
    this.mesh = null;
    this.shown = false;
    root.classList.add('ready');
    for (const input of root.querySelectorAll('input[type=radio]')) {
      input.addEventListener('change', () => this.paint());
    }
    root.querySelector('.zoom-in').addEventListener('click', () => this.zoom(1 / KEY_ZOOM));
    root.querySelector('.zoom-out').addEventListener('click', () => this.zoom(KEY_ZOOM));
    root.querySelector('.reset').addEventListener('click', () => this.reset());
    this.canvas.addEventListener('keydown', (event) => this.onKey(event));
    this.canvas.addEventListener('pointermove', (event) => this.readAt(event));
    this.canvas.addEventListener('pointerdown', (event) => this.readAt(event));
    this.canvas.addEventListener('pointerleave', () => this.say(''));
  }

  /** Decodes the mesh, the first time that the view comes near the screen; then draws. */
  async show() {
    this.shown = true;
    try {
      this.loading ??= readMesh(this.root.dataset.mesh).then((mesh) => this.place(mesh));
      await this.loading;
      this.paint();
    } catch (error) {
      this.root.classList.remove('ready');
      this.root.querySelector('.missing').textContent = `This 3D view cannot be shown: ${error.message}`;
    }
  }

  /** Gives back the memory of a view that is far from the screen. Where it was turned is kept. */
  hide() {
    this.shown = false;
    this.geometry?.dispose();
    this.canvas.width = 1;
    this.canvas.height = 1;
    delete this.canvas.dataset.drawn;
  }

  place(mesh) {
    this.mesh = mesh;
    this.geometry = new BufferGeometry();
    this.geometry.setAttribute('position', new BufferAttribute(mesh.positions, 3));
    this.geometry.setIndex(new BufferAttribute(mesh.faces, 1));
    this.geometry.computeVertexNormals();
    this.geometry.computeBoundingSphere();
    this.object = new Mesh(this.geometry);
    const { center, radius } = this.geometry.boundingSphere;
    const distance = (1.02 * radius) / Math.sin((FIELD_OF_VIEW * Math.PI) / 360);
    this.camera.near = distance / 100;
    this.camera.far = 10 * distance;
    // The first view is the photo's.
    const towards = new Vector3(...mesh.towardsCamera).sub(center).normalize();
    this.camera.position.copy(center).addScaledVector(towards, distance);
    this.addControls(center, distance);
  }

  addControls(center, distance) {
    const controls = new OrbitControls(this.camera, this.canvas);
    controls.target.copy(center);
    controls.minDistance = distance / 6;
    controls.maxDistance = 3 * distance;
    controls.zoomSpeed = 1.5;
    controls.update();
    controls.saveState();
    // A finger that moves up or down scrolls the page; one that moves sideways turns the hand.
    this.canvas.style.touchAction = 'pan-y';
    // The wheel scrolls the page until the view is clicked; two fingers always zoom.
    controls.enableZoom = false;
    const letZoom = () => { controls.enableZoom = true; };
    this.canvas.addEventListener('pointerdown', () => { this.canvas.focus({ preventScroll: true }); }, true);
    this.canvas.addEventListener('focus', letZoom);
    this.canvas.addEventListener('blur', () => { controls.enableZoom = false; });
    if (document.activeElement === this.canvas) letZoom();
    controls.addEventListener('change', () => this.draw());
    this.controls = controls;
  }

  get mode() {
    return this.root.querySelector('input[type=radio]:checked').value;
  }

  /** Colours the mesh as the switch says, and shows that switch's legend. */
  paint() {
    for (const legend of this.root.querySelectorAll('[data-for]')) {
      legend.hidden = legend.dataset.for !== this.mode;
    }
    if (!this.mesh) return;
    this.geometry.setAttribute('color', vertexColors(this.mesh, this.mode, this.stage.viridis));
    this.draw();
  }

  draw() {
    if (!this.shown || !this.mesh) return;
    const density = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * density));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * density));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.camera.aspect = width / height;
    // A narrow picture keeps the whole hand inside.
    this.camera.zoom = Math.min(1, this.camera.aspect);
    this.camera.updateProjectionMatrix();
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(this.stage.render(this, width, height), 0, 0);
    this.canvas.dataset.drawn = this.mode;
  }

  turn(sideways, upwards) {
    const offset = this.camera.position.clone().sub(this.controls.target);
    const angles = new Spherical().setFromVector3(offset);
    angles.theta += KEY_TURN * sideways;
    angles.phi += KEY_TURN * upwards;
    this.move(offset.setFromSpherical(angles.makeSafe()));
  }

  zoom(factor) {
    if (!this.controls) return;
    this.move(this.camera.position.clone().sub(this.controls.target).multiplyScalar(factor));
  }

  move(offset) {
    this.camera.position.copy(this.controls.target).add(offset);
    this.controls.update();
  }

  reset() {
    this.controls?.reset();
  }

  onKey(event) {
    if (!this.controls || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in TURNS) this.turn(...TURNS[event.key]);
    else if (event.key in ZOOMS) this.zoom(ZOOMS[event.key]);
    else if (event.key === '0' || event.key === 'r' || event.key === 'R') this.reset();
    else return;
    event.preventDefault();
  }

  /** Says what is known of the vertex nearest to the pointer. */
  readAt(event) {
    if (!this.mesh || (event.buttons && event.type === 'pointermove')) return;
    const box = this.canvas.getBoundingClientRect();
    const place = new Vector2(
      (2 * (event.clientX - box.left)) / box.width - 1,
      1 - (2 * (event.clientY - box.top)) / box.height,
    );
    const ray = new Raycaster();
    ray.setFromCamera(place, this.camera);
    const [hit] = ray.intersectObject(this.object);
    if (!hit) return this.say('');
    const corner = new Vector3();
    const [vertex] = [hit.face.a, hit.face.b, hit.face.c].sort((one, other) =>
      corner.fromArray(this.mesh.positions, 3 * one).distanceTo(hit.point) -
      corner.fromArray(this.mesh.positions, 3 * other).distanceTo(hit.point));
    const seen = this.mesh.visible[vertex] ? 'seen in the photo' : 'hidden in the photo';
    return this.say(`sigma ${this.mesh.sigma[vertex].toFixed(1)} mm, ${seen}`);
  }

  say(text) {
    this.readout.textContent = text;
  }
}
