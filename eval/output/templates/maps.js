// Maps of the page of sinks: drawn on canvases, with layer, head and token to choose.
const STEPS = 255;
const PIXELS = 960; // width of a map's canvas, which is shown smaller
// viridis, from 0 to 1
const STOPS = [[68, 1, 84], [72, 31, 112], [68, 57, 131], [59, 82, 139], [49, 104, 142], [40, 124, 142],
  [33, 145, 140], [32, 164, 134], [53, 183, 121], [94, 201, 98], [144, 215, 67], [200, 224, 32], [253, 231, 37]];

function colour(share) {
  const at = Math.min(share * (STOPS.length - 1), STOPS.length - 1.001);
  const low = Math.floor(at);
  const mixed = STOPS[low].map((part, i) => Math.round(part + (at - low) * (STOPS[low + 1][i] - part)));
  return `rgb(${mixed})`;
}

const COLOURS = Array.from({ length: STEPS + 1 }, (_, byte) => colour(byte / STEPS));
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const short = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(2))));

class Viewer {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector("script").textContent);
    this.data.layers.forEach((layer) => {
      for (const key of ["before", "after", "sinks_before", "sinks_after"]) layer[key] = bytes(layer[key]);
    });
    this.layerSelect = root.querySelector("select.layer");
    this.headSelect = root.querySelector("select.head");
    this.canvases = [...root.querySelectorAll("canvas")];
    this.token = null;
    this.at = this.data.start;
    this.head = this.data.start_head;
    this.data.layers.forEach((layer, at) => {
      this.layerSelect.add(new Option(layer.shared === null ? layer.layer : `${layer.layer} (EAH)`, at));
    });
    this.layerSelect.addEventListener("change", () => this.go(Number(this.layerSelect.value), this.head));
    this.headSelect.addEventListener("change", () => this.go(this.at, Number(this.headSelect.value)));
    root.querySelectorAll(".controls button").forEach((button) => button.addEventListener("click", () =>
      this.step(Number(button.dataset.layer ?? 0), Number(button.dataset.head ?? 0))));
    root.addEventListener("keydown", (event) => this.key(event));
    this.canvases.forEach((canvas) => {
      canvas.addEventListener("pointermove", (event) => this.point(this.under(canvas, event)));
      canvas.addEventListener("pointerdown", (event) => this.point(this.under(canvas, event)));
      canvas.addEventListener("pointerleave", () => this.point(null));
      canvas.addEventListener("focus", () => this.point(this.token ?? 0));
      canvas.addEventListener("blur", () => this.point(null));
    });
    const image = root.querySelector("img");
    const cell = PIXELS / this.data.columns;
    this.cell = [cell, this.data.placed
      ? (PIXELS * image.getAttribute("height")) / image.getAttribute("width") / this.data.rows : 2 * cell];
    this.canvases.forEach((canvas) => {
      canvas.width = PIXELS;
      canvas.height = Math.round(this.cell[1] * this.data.rows);
    });
    root.querySelector(".controls").hidden = false;
    this.go(this.at, this.head);
  }

  get layer() { return this.data.layers[this.at]; }

  step(layers, heads) {
    const at = Math.min(Math.max(this.at + layers, 0), this.data.layers.length - 1);
    this.go(at, this.head + heads);
  }

  go(at, head) {
    this.at = at;
    this.head = Math.min(Math.max(head, 0), this.layer.heads - 1);
    const names = Array.from({ length: this.layer.heads }, (_, one) =>
      one === this.layer.shared ? `${one} (shared)` : one === this.layer.densest ? `${one} (densest)` : one);
    this.headSelect.replaceChildren(...names.map((name, one) => new Option(name, one)));
    this.layerSelect.value = at;
    this.headSelect.value = this.head;
    const start = this.data.layers[this.data.start].layer;
    this.root.querySelector(".about").textContent = this.layer.shared !== null
      ? `In this layer EAH gives the map of head ${this.layer.shared} to the heads that receive it.`
      : this.layer.layer < start ? `EAH starts at layer ${start}: nothing changes here.`
      : "EAH shares no map in this layer; attention changes where its input does.";
    const scale = this.layer.scales[this.head];
    [0, 0.25, 1].forEach((share, i) => { this.root.querySelectorAll(".scale b")[i].textContent = short(share * scale); });
    this.show();
  }

  value(side, token) {
    const byte = this.layer[side][this.head * this.data.tokens + token];
    return this.layer.scales[this.head] * (byte / STEPS) ** 2;
  }

  sink(side, token) {
    const row = this.head * Math.ceil(this.data.tokens / 8);
    return Boolean(this.layer[`sinks_${side}`][row + (token >> 3)] & (128 >> (token & 7)));
  }

  show() {
    this.canvases.forEach((canvas) => {
      const side = canvas.dataset.side;
      this.draw(canvas.getContext("2d"), side);
      let sinks = 0;
      for (let token = 0; token < this.data.tokens; token++) sinks += this.sink(side, token);
      const share = (100 * sinks) / this.data.tokens;
      const text = `${sinks} of ${this.data.tokens} tokens are sinks (${share.toFixed(share < 10 ? 1 : 0)} %)`;
      canvas.closest("figure").querySelector(".count").textContent = text;
      canvas.setAttribute("aria-label", `Layer ${this.layer.layer}, head ${this.head}, ${side} EAH: ${text}`);
    });
    this.say();
  }

  draw(context, side) {
    const [width, height] = this.cell;
    const { tokens, columns, placed } = this.data;
    const place = (token) => [(token % columns) * width, Math.floor(token / columns) * height];
    const outline = new Path2D();
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.globalAlpha = placed ? 0.8 : 1;
    for (let token = 0; token < tokens; token++) {
      const [x, y] = place(token);
      context.fillStyle = COLOURS[this.layer[side][this.head * tokens + token]];
      context.fillRect(x, y, width, height);
      if (!this.sink(side, token)) continue;
      // Between two sinks of a grid there is no line.
      const open = (other, inside) => !placed || !inside || !this.sink(side, other);
      const [left, top, right, bottom] = [x + 3, y + 3, x + width - 3, y + height - 3];
      const column = token % columns;
      const line = (wanted, ...ends) => { if (wanted) { outline.moveTo(ends[0], ends[1]); outline.lineTo(ends[2], ends[3]); } };
      line(open(token - 1, column > 0), left, y, left, y + height);
      line(open(token + 1, column < columns - 1), right, y, right, y + height);
      line(open(token - columns, token >= columns), x, top, x + width, top);
      line(open(token + columns, token + columns < tokens), x, bottom, x + width, bottom);
    }
    context.globalAlpha = 1;
    for (const [style, thick] of [["#000", 7], ["#fff", 3.5]]) {
      context.strokeStyle = style;
      context.lineWidth = thick;
      context.stroke(outline);
    }
    if (this.token !== null) {
      context.strokeStyle = "#e69f00";
      context.lineWidth = 9;
      context.strokeRect(...place(this.token), width, height);
    }
  }

  under(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.data.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.data.rows);
    const token = row * this.data.columns + column;
    const inside = column >= 0 && column < this.data.columns && token >= 0 && token < this.data.tokens;
    return inside ? token : null;
  }

  point(token) {
    if (token === this.token) return;
    this.token = token;
    this.show();
  }

  say() {
    const output = this.root.querySelector(".token");
    if (this.token === null) {
      output.textContent = "Point at a token, or move through the maps with Tab and the arrow keys, to read its value.";
      return;
    }
    const { columns, placed } = this.data;
    const where = placed ? ` (row ${Math.floor(this.token / columns)}, column ${this.token % columns})` : "";
    const of = (side) => `${side} ${short(this.value(side, this.token))}, ${this.sink(side, this.token) ? "a sink" : "no sink"}`;
    output.textContent = `Token ${this.token}${where}: ${of("before")}; ${of("after")}.`;
  }

  key(event) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if ((!x && !y) || event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
    event.preventDefault();
    if (event.target.tagName !== "CANVAS") return this.step(y, x);
    const token = (this.token ?? 0) + x + y * this.data.columns;
    if (token >= 0 && token < this.data.tokens) this.point(token);
  }
}

document.querySelectorAll(".viewer").forEach((root) => new Viewer(root));
