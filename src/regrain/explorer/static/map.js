// All samples as points, drawn by WebGL; pan, zoom, lasso, and the same by keyboard.

const VERTEX = `
attribute vec2 place;
attribute vec4 colour;
attribute float weight;
uniform vec2 scale;
uniform vec2 shift;
uniform float size;
varying vec4 shown;
void main() {
  gl_Position = vec4(place * scale + shift, -0.25 * weight, 1.0);
  gl_PointSize = size * (weight > 1.5 ? 1.7 : 1.0);
  shown = colour;
}`;

const FRAGMENT = `
precision mediump float;
varying vec4 shown;
void main() {
  ROUND
  gl_FragColor = shown;
}`;

// Points of two or three pixels need not be round, and are drawn faster when they are not.
const ROUND = "vec2 from = gl_PointCoord - 0.5; if (dot(from, from) > 0.25) discard;";

const NEAR = 12;
const MOST_ZOOM = 400;
const MANY = 50000;

// While the map moves, a slow machine draws a part of the points, drawn at random; all of them once it rests.
const SLOW = 28;
const FAST = 18;
const FEWEST = 10000;
const REST = 150;

function program(gl, round) {
  const made = gl.createProgram();
  const fragment = FRAGMENT.replace("ROUND", round ? ROUND : "");
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  gl.useProgram(made);
  return made;
}

// The numbers below `count`, shuffled, always in the same way.
function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, row) => row);
  let state = 1;
  for (let last = count - 1; last > 0; last -= 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

export class ScatterMap extends EventTarget {
  // `places`: x, y of every point in [-1, 1]. `available` is false before `open`, and where there is no WebGL.
  constructor(canvas, overlay, places) {
    super();
    this.canvas = canvas;
    this.overlay = overlay;
    this.places = places;
    this.count = places.length / 2;
    this.mode = "pan";
    this.share = 1;
    this.available = false;
    this.home();
  }

  // Start to draw, which takes a while.
  open() {
    const { canvas } = this;
    this.gl = canvas.getContext("webgl", { antialias: false, alpha: false });
    this.available = this.gl !== null;
    if (!this.available) return;
    this.prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.prepare();
      this.paint(this.colours, this.weights, this.paper);
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  prepare() {
    const gl = this.gl;
    const made = program(gl, this.count <= MANY);
    this.at = Object.fromEntries(["place", "colour", "weight"].map((n) => [n, gl.getAttribLocation(made, n)]));
    this.uniform = Object.fromEntries(["scale", "shift", "size"].map((n) => [n, gl.getUniformLocation(made, n)]));
    this.buffers = { place: gl.createBuffer(), colour: gl.createBuffer(), weight: gl.createBuffer() };
    this.fill("place", this.places, 2, gl.FLOAT, false);
    gl.getExtension("OES_element_index_uint");
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, shuffled(this.count), gl.STATIC_DRAW);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
  }

  fill(name, values, width, type, normalised) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(this.at[name]);
    gl.vertexAttribPointer(this.at[name], width, type, normalised, 0, 0);
  }

  // `colours`: RGBA bytes; `weights`: bytes, 0 in the background, 1, or 2 in front and larger; `paper`: RGB in [0, 1].
  paint(colours, weights, paper) {
    if (!this.available) return;
    this.colours = colours;
    this.weights = weights;
    this.paper = paper;
    this.fill("colour", colours, 4, this.gl.UNSIGNED_BYTE, true);
    this.fill("weight", weights, 1, this.gl.UNSIGNED_BYTE, false);
    this.redraw();
  }

  // Show the same points at other places.
  place(places) {
    this.places = places;
    this.tell("hover", -1);
    if (!this.available) return;
    this.fill("place", places, 2, this.gl.FLOAT, false);
    this.home();
  }

  home() {
    this.zoom = 0.94;
    this.centre = [0, 0];
    this.redraw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    }
    this.redraw();
  }

  redraw() {
    if (this.frame || !this.gl || !this.colours) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = 0;
      if (this.moving) this.adapt(now);
      this.draw();
    });
  }

  // Called at every movement: what is drawn until the map rests may be a part of the points.
  moved() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.moving = false;
      this.last = undefined;
      this.redraw();
    }, REST);
    this.moving = true;
    this.redraw();
  }

  adapt(now) {
    const took = now - (this.last ?? now);
    this.last = now;
    if (took > SLOW) this.share = Math.max(Math.min(1, FEWEST / this.count), this.share * 0.7);
    else if (took > 0 && took < FAST) this.share = Math.min(1, this.share * 1.1);
  }

  // Clip space is place * scale + shift; the map keeps its shape in the shorter side.
  view() {
    const { width, height } = this.canvas;
    const side = Math.min(width, height);
    const scale = [(this.zoom * side) / width, (this.zoom * side) / height];
    return { scale, shift: [-this.centre[0] * scale[0], -this.centre[1] * scale[1]] };
  }

  pointSize() {
    const base = this.count > MANY ? 2.5 : this.count > 10000 ? 4 : this.count > 2000 ? 6 : 8;
    const room = Math.min(1, Math.max(0.55, Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 650));
    return base * room * (window.devicePixelRatio || 1) * Math.min(4, Math.max(1, Math.sqrt(this.zoom)));
  }

  draw() {
    const gl = this.gl;
    const { scale, shift } = this.view();
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(...this.paper, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform2f(this.uniform.scale, ...scale);
    gl.uniform2f(this.uniform.shift, ...shift);
    gl.uniform1f(this.uniform.size, this.pointSize());
    const drawn = this.moving ? Math.ceil(this.share * this.count) : this.count;
    gl.drawElements(gl.POINTS, drawn, gl.UNSIGNED_INT, 0);
    this.canvas.dataset.drawn = drawn;
  }

  // From CSS pixels within the canvas to the map, and back.
  toMap(x, y) {
    const { scale, shift } = this.view();
    const clip = [(2 * x) / this.canvas.clientWidth - 1, 1 - (2 * y) / this.canvas.clientHeight];
    return [(clip[0] - shift[0]) / scale[0], (clip[1] - shift[1]) / scale[1]];
  }

  toScreen(row) {
    const { scale, shift } = this.view();
    const clip = [0, 1].map((axis) => this.places[2 * row + axis] * scale[axis] + shift[axis]);
    return [((clip[0] + 1) / 2) * this.canvas.clientWidth, ((1 - clip[1]) / 2) * this.canvas.clientHeight];
  }

  pan(dx, dy) {
    const [x0, y0] = this.toMap(0, 0);
    const [x1, y1] = this.toMap(dx, dy);
    this.centre = [this.centre[0] - (x1 - x0), this.centre[1] - (y1 - y0)];
    this.moved();
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const before = this.toMap(x, y);
    this.zoom = Math.min(MOST_ZOOM, Math.max(0.3, this.zoom * factor));
    const after = this.toMap(x, y);
    this.centre = [this.centre[0] + before[0] - after[0], this.centre[1] + before[1] - after[1]];
    this.moved();
  }

  nearest(x, y) {
    const [mx, my] = this.toMap(x, y);
    const [ex] = this.toMap(x + NEAR, y);
    let best = (ex - mx) ** 2;
    let found = -1;
    for (let row = 0; row < this.count; row += 1) {
      const distance = (this.places[2 * row] - mx) ** 2 + (this.places[2 * row + 1] - my) ** 2;
      if (distance < best) {
        best = distance;
        found = row;
      }
    }
    return found;
  }

  inView() {
    const [left, top] = this.toMap(0, 0);
    const [right, bottom] = this.toMap(this.canvas.clientWidth, this.canvas.clientHeight);
    return this.inside([[left, top], [right, top], [right, bottom], [left, bottom]]);
  }

  // The points within a polygon of the map, by crossings.
  inside(polygon) {
    const xs = polygon.map((corner) => corner[0]);
    const ys = polygon.map((corner) => corner[1]);
    const [left, right] = [Math.min(...xs), Math.max(...xs)];
    const [low, high] = [Math.min(...ys), Math.max(...ys)];
    const rows = [];
    for (let row = 0; row < this.count; row += 1) {
      const x = this.places[2 * row];
      const y = this.places[2 * row + 1];
      if (x < left || x > right || y < low || y > high) continue;
      let within = false;
      for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
        const crosses = ys[i] > y !== ys[j] > y;
        if (crosses && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) within = !within;
      }
      if (within) rows.push(row);
    }
    return rows;
  }

  // Pointer and keys

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => this.start(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", () => this.drop());
    canvas.addEventListener("pointerleave", () => this.tell("hover", -1));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  start(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const lasso = this.mode === "lasso" || event.shiftKey;
    this.drag = { lasso, add: event.ctrlKey || event.metaKey, moved: 0, path: [[event.offsetX, event.offsetY]] };
  }

  move(event) {
    if (!this.drag) {
      this.tell("hover", this.nearest(event.offsetX, event.offsetY));
      return;
    }
    const [x, y] = this.drag.path.at(-1);
    this.drag.moved += Math.abs(event.offsetX - x) + Math.abs(event.offsetY - y);
    if (this.drag.lasso) {
      this.drag.path.push([event.offsetX, event.offsetY]);
      this.drawLasso();
    } else {
      this.drag.path = [[event.offsetX, event.offsetY]];
      this.pan(event.offsetX - x, event.offsetY - y);
    }
  }

  end(event) {
    const drag = this.drag;
    this.drop();
    if (!drag) return;
    if (drag.moved < 5) {
      const row = this.nearest(event.offsetX, event.offsetY);
      if (row >= 0) this.tell("pick", { row, add: drag.add });
    } else if (drag.lasso && drag.path.length > 2) {
      this.tell("lasso", { rows: this.inside(drag.path.map(([x, y]) => this.toMap(x, y))), add: drag.add });
    }
  }

  drop() {
    this.drag = null;
    this.overlay.getContext("2d").clearRect(0, 0, this.overlay.width, this.overlay.height);
  }

  drawLasso() {
    const pen = this.overlay.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.overlay.width, this.overlay.height);
    pen.beginPath();
    for (const [x, y] of this.drag.path) pen.lineTo(x, y);
    pen.closePath();
    const ink = getComputedStyle(this.canvas).getPropertyValue("--accent");
    pen.strokeStyle = ink;
    pen.fillStyle = ink;
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = 1;
  }

  key(event) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.25);
    else if (event.key === "-") this.zoomBy(0.8);
    else if (event.key === "0") this.home();
    else if (event.key === "Enter") this.tell("lasso", { rows: this.inView(), add: false });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
