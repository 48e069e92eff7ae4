// The map of the network on a canvas: pan by dragging, zoom by wheel, pinch or keys. It is drawn when something changed, and
// not otherwise; a table beside it says the same to those who do not see it.

import { place } from "./layout.js";

const SCALE_MIN = 0.05;
const SCALE_MAX = 4;
/** Until here every peer has its name; beyond, those near enough to be read. */
const NAMED_MAX = 60;
const PULSE_MS = 900;
const PULSES_MAX = 200;
/** How fast peers go to their new places: the part of the way in one frame. */
const GLIDE = 0.18;

export class Graph {
  #peers = [];
  #at = new Map();
  #goal = { places: new Map(), circles: [], extent: 0 };
  #view = { x: 0, y: 0, scale: 1 };
  #pulses = [];
  #size = { width: 0, height: 0 };
  #colours = {};
  #pointers = new Map();
  #frame = 0;
  #moved = false;
  #hovered = null;
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  selected = "";
  holders = new Set();

  /** `picked` is told which peer was chosen, "" for none. */
  constructor(canvas, { picked, signal }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picked = picked;
    const options = { signal };
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(canvas);
    signal.addEventListener("abort", () => {
      resized.disconnect();
      cancelAnimationFrame(this.#frame);
    });
    addEventListener("theme", () => this.#repaint(), options);
    canvas.addEventListener("pointerdown", (event) => this.#down(event), options);
    canvas.addEventListener("pointermove", (event) => this.#move(event), options);
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#up(event), options);
    canvas.addEventListener("pointerleave", () => this.#hover(null), options);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { signal, passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event), options);
    this.#repaint();
  }

  /** Shows these peers: `{id, name, own, connected, rtt, load, cpu, engines}`. */
  update(peers) {
    const first = this.#peers.length === 0;
    this.#peers = peers;
    this.#goal = place(peers);
    for (const [id, { x, y }] of this.#goal.places) {
      if (!this.#at.has(id) || this.#still.matches) this.#at.set(id, { x, y });
    }
    for (const id of this.#at.keys()) if (!this.#goal.places.has(id)) this.#at.delete(id);
    if (first || !this.#moved) this.fit();
    this.draw();
  }

  /** A word that goes from one to another. */
  pulse(from, to) {
    if (this.#pulses.length < PULSES_MAX && this.#at.has(from) && this.#at.has(to)) {
      this.#pulses.push({ from, to, since: performance.now() });
      this.draw();
    }
  }

  /** All of it, as large as it goes. */
  fit() {
    this.#moved = false;
    const { width, height } = this.#size;
    const room = Math.min(width, height) / (2 * (this.#goal.extent || 200));
    this.#view = { x: 0, y: 0, scale: Math.min(1.5, Math.max(SCALE_MIN, room * 0.98)) };
    this.draw();
  }

  zoom(factor, at = { x: this.#size.width / 2, y: this.#size.height / 2 }) {
    const view = this.#view;
    const before = this.#toWorld(at);
    view.scale = Math.min(SCALE_MAX, Math.max(SCALE_MIN, view.scale * factor));
    const after = this.#toWorld(at);
    view.x += before.x - after.x;
    view.y += before.y - after.y;
    this.#moved = true;
    this.draw();
  }

  pan(x, y) {
    this.#view.x -= x / this.#view.scale;
    this.#view.y -= y / this.#view.scale;
    this.#moved = true;
    this.draw();
  }

  /** Draws with the next frame. */
  draw() {
    if (!this.#frame) this.#frame = requestAnimationFrame((now) => this.#paint(now));
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const dense = Math.min(devicePixelRatio || 1, 2);
    [this.canvas.width, this.canvas.height] = [width * dense, height * dense];
    this.#size = { width, height, dense };
    if (!this.#moved) this.fit();
    this.draw();
  }

  #repaint() {
    // A canvas takes no variables: the style says what each is in this theme.
    for (const name of ["ink", "muted", "line", "faint", "accent", "surface", "raised", "warm"]) {
      this.canvas.style.color = `var(--${name})`;
      this.#colours[name] = getComputedStyle(this.canvas).color;
    }
    this.draw();
  }

  #toWorld({ x, y }) {
    const { width, height } = this.#size;
    const view = this.#view;
    return { x: (x - width / 2) / view.scale + view.x, y: (y - height / 2) / view.scale + view.y };
  }

  #peerAt(point) {
    const { x, y } = this.#toWorld(point);
    const reach = Math.max(14, 12 / this.#view.scale);
    let [best, least] = [null, reach * reach];
    for (const peer of this.#peers) {
      const at = this.#at.get(peer.id);
      const far = (at.x - x) ** 2 + (at.y - y) ** 2;
      if (far < least) [best, least] = [peer, far];
    }
    return best;
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, travelled: 0 });
  }

  #move(event) {
    const pointer = this.#pointers.get(event.pointerId);
    const now = { x: event.offsetX, y: event.offsetY };
    if (!pointer) return this.#hover(this.#peerAt(now));
    const step = { x: now.x - pointer.x, y: now.y - pointer.y };
    pointer.travelled += Math.abs(step.x) + Math.abs(step.y);
    if (this.#pointers.size === 2) {
      const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at.x - other.x, at.y - other.y);
      this.zoom(apart(now) / Math.max(1, apart(pointer)), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    } else if (pointer.travelled > 3) {
      this.pan(step.x, step.y);
    }
    Object.assign(pointer, now);
  }

  #up(event) {
    const pointer = this.#pointers.get(event.pointerId);
    this.#pointers.delete(event.pointerId);
    if (pointer && pointer.travelled <= 3 && event.type === "pointerup") this.picked(this.#peerAt(pointer)?.id ?? "");
  }

  #hover(peer) {
    if (peer === this.#hovered) return;
    this.#hovered = peer;
    this.canvas.classList.toggle("pointing", Boolean(peer));
    this.draw();
  }

  #wheel(event) {
    event.preventDefault();
    const step = event.deltaMode === 0 ? event.deltaY : event.deltaY * 30;
    this.zoom(Math.exp(-step * 0.0015), { x: event.offsetX, y: event.offsetY });
  }

  #key(event) {
    const does = {
      ArrowLeft: () => this.pan(60, 0),
      ArrowRight: () => this.pan(-60, 0),
      ArrowUp: () => this.pan(0, 60),
      ArrowDown: () => this.pan(0, -60),
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.fit(),
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  }

  #paint(now) {
    this.#frame = 0;
    const { context, canvas } = this;
    const { width, height, dense = 1 } = this.#size;
    const { x, y, scale } = this.#view;
    const gliding = this.#glide();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const [a, e, f] = [scale * dense, (width / 2 - x * scale) * dense, (height / 2 - y * scale) * dense];
    context.setTransform(a, 0, 0, a, e, f);
    this.#paintCircles(scale);
    this.#paintLinks(scale);
    this.#paintPeers(scale);
    this.#paintPulses(now, scale);
    this.#paintRingNames(scale);
    this.#paintNames(scale);
    if (gliding || this.#pulses.length > 0) this.draw();
  }

  #glide() {
    let gliding = false;
    for (const [id, goal] of this.#goal.places) {
      const at = this.#at.get(id);
      const [x, y] = [goal.x - at.x, goal.y - at.y];
      if (Math.abs(x) + Math.abs(y) < 0.5) Object.assign(at, goal);
      else {
        at.x += x * GLIDE;
        at.y += y * GLIDE;
        gliding = true;
      }
    }
    return gliding;
  }

  #paintCircles(scale) {
    const { context } = this;
    context.lineWidth = 1 / scale;
    context.strokeStyle = this.#colours.faint;
    context.setLineDash([3 / scale, 5 / scale]);
    for (const { radius } of this.#goal.circles) {
      context.beginPath();
      context.arc(0, 0, radius, 0, 2 * Math.PI);
      context.stroke();
    }
    context.setLineDash([]);
  }

  #paintRingNames(scale) {
    const { context } = this;
    context.font = `${11 / scale}px system-ui, sans-serif`;
    context.textAlign = "left";
    context.lineWidth = 4 / scale;
    context.strokeStyle = this.#colours.raised;
    context.fillStyle = this.#colours.muted;
    for (const { radius, name } of this.#goal.circles) {
      context.strokeText(name, radius * 0.74, radius * 0.7);
      context.fillText(name, radius * 0.74, radius * 0.7);
    }
  }

  #paintLinks(scale) {
    const { context } = this;
    const own = this.#peers.find((peer) => peer.own);
    const from = own && this.#at.get(own.id);
    if (!from) return;
    context.lineWidth = 1.2 / scale;
    context.strokeStyle = this.#colours.accent;
    context.globalAlpha = this.#peers.length > 200 ? 0.14 : 0.4;
    context.beginPath();
    for (const peer of this.#peers) {
      if (!peer.connected || peer.own) continue;
      const to = this.#at.get(peer.id);
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  #paintPeers(scale) {
    const { context } = this;
    const colours = this.#colours;
    // From afar a dot will do.
    const plain = scale < 0.3;
    for (const peer of this.#peers) {
      const at = this.#at.get(peer.id);
      const radius = radiusOf(peer);
      context.globalAlpha = this.holders.size === 0 || this.holders.has(peer.id) ? 1 : 0.45;
      context.beginPath();
      context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
      context.fillStyle = peer.own
        ? colours.accent
        : plain
          ? peer.connected
            ? colours.muted
            : colours.faint
          : colours.raised;
      context.fill();
      if (!plain && !peer.own) this.#paintLoad(peer, at, radius);
      if (!plain) this.#paintEngines(peer, at);
      if (peer.id === this.selected || peer === this.#hovered || this.holders.has(peer.id)) {
        context.beginPath();
        context.arc(at.x, at.y, radius + 5 / Math.max(scale, 0.3), 0, 2 * Math.PI);
        context.lineWidth = 2 / scale;
        context.strokeStyle = this.holders.has(peer.id) ? colours.warm : colours.ink;
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  #paintLoad(peer, at, radius) {
    const { context } = this;
    context.lineWidth = 3;
    context.strokeStyle = this.#colours.faint;
    context.setLineDash(peer.connected ? [] : [3, 3]);
    context.stroke();
    context.setLineDash([]);
    if (peer.load <= 0) return;
    context.beginPath();
    context.arc(at.x, at.y, radius, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * Math.min(1, peer.load / 100));
    context.strokeStyle = peer.load > 85 ? this.#colours.warm : this.#colours.accent;
    context.stroke();
  }

  #paintEngines(peer, at) {
    const { context } = this;
    const [wasm, docker] = [peer.engines.includes("wasm"), peer.engines.includes("docker")];
    context.fillStyle = peer.own ? this.#colours.surface : this.#colours.ink;
    if (wasm) {
      context.beginPath();
      context.arc(at.x - (docker ? 3.5 : 0), at.y, 2.4, 0, 2 * Math.PI);
      context.fill();
    }
    if (docker) context.fillRect(at.x + (wasm ? 1 : -2.4), at.y - 2.4, 4.8, 4.8);
  }

  #paintNames(scale) {
    const { context } = this;
    const all = this.#peers.length <= NAMED_MAX ? scale > 0.35 : scale > 0.8;
    context.textAlign = "center";
    context.font = `${12 / scale}px system-ui, sans-serif`;
    context.lineWidth = 3 / scale;
    context.strokeStyle = this.#colours.raised;
    context.fillStyle = this.#colours.ink;
    const { width, height } = this.#size;
    for (const peer of this.#peers) {
      if (!all && peer.id !== this.selected && peer !== this.#hovered && !peer.own) continue;
      const at = this.#at.get(peer.id);
      const screen = { x: (at.x - this.#view.x) * scale + width / 2, y: (at.y - this.#view.y) * scale + height / 2 };
      if (screen.x < -80 || screen.y < -30 || screen.x > width + 80 || screen.y > height + 30) continue;
      const below = at.y + radiusOf(peer) + 15 / scale;
      const name = peer.name.length > 22 ? `${peer.name.slice(0, 21)}…` : peer.name;
      context.strokeText(name, at.x, below);
      context.fillText(name, at.x, below);
    }
  }

  #paintPulses(now, scale) {
    const { context } = this;
    this.#pulses = this.#pulses.filter(
      (pulse) => now - pulse.since < PULSE_MS && this.#at.has(pulse.from) && this.#at.has(pulse.to),
    );
    context.fillStyle = this.#colours.warm;
    context.strokeStyle = this.#colours.warm;
    context.lineWidth = 2 / scale;
    for (const { from, to, since } of this.#pulses) {
      const [start, end] = [this.#at.get(from), this.#at.get(to)];
      const way = Math.max(0, (now - since) / PULSE_MS);
      context.globalAlpha = 1 - way * 0.6;
      context.beginPath();
      if (this.#still.matches) {
        context.moveTo(start.x, start.y);
        context.lineTo(end.x, end.y);
        context.stroke();
      } else {
        context.arc(
          start.x + (end.x - start.x) * way,
          start.y + (end.y - start.y) * way,
          4 / Math.max(scale, 0.4),
          0,
          2 * Math.PI,
        );
        context.fill();
      }
    }
    context.globalAlpha = 1;
  }
}

/** The more it has to give, the larger. */
function radiusOf(peer) {
  return peer.own ? 15 : Math.min(18, 8 + Math.sqrt(Math.max(0, peer.cpu)) * 1.6);
}
