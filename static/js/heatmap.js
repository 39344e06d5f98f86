/* The map of every device: where each cell is, how a frame of bytes is drawn, what a cell is called.

A frame's columns are described in dashboard/heatmap.py. Only what is in view is drawn, and of a new frame only the
cells that changed. */

import { language, number, say } from "./strings.js";

const FULL = 2;
const CARVED = 4;
const BROKEN = 8;
const DRAINED = 16;
const STEPS = 250;
const SLOTS = 8;
const HEADER = 4;
const COLUMNS = 4;

const PER_ROW = 8;
const SIZES = [36, 28, 22, 18, 15, 12, 10, 8, 7, 6];
/* A finger needs more than a mouse does. */
const LEAST_COARSE = 10;
/* From which size of a cell on there is room for the names of nodes, and of racks. */
const NAMED_FROM = 18;
const RACKS_NAMED_FROM = 8;
const NAME_HEIGHT = 15;
const BOLD_FROM = 12;
const FONT = "11px";

const INKS = {
  surface: "--sunken",
  line: "--control-line",
  held: "--accent",
  outside: "--outside",
  carved: "--active",
  open: "--line-strong",
  bad: "--bad",
  badSoft: "--bad-soft",
  drained: "--waiting",
  words: "--ink-2",
  cursor: "--ink",
  ground: "--surface",
};

export class HeatMap {
  #canvas;
  #scroll;
  #space;
  #pen;
  #ink = {};
  #pods = [];
  #labels = [];
  #nodes = [];
  #cells = [];
  #order = []; /* the cells as they stand, pod by pod, rack by rack */
  #frame = null;
  #fits = null;
  #size = 0;
  #width = 0;
  #height = 0;
  #block = { width: 0, height: 0, top: 0 };
  cursor = -1;

  /** `canvas` stays in view at the top of `scroll`, whose height `space` gives. */
  constructor({ canvas, scroll, space }) {
    this.#canvas = canvas;
    this.#scroll = scroll;
    this.#space = space;
    this.#pen = canvas.getContext("2d");
    this.readInks();
    new ResizeObserver(() => this.arrange()).observe(scroll);
    scroll.addEventListener("scroll", () => this.draw(), { passive: true });
  }

  /* A canvas does not know the colours of the style sheet, so an element is asked. */
  readInks() {
    const style = getComputedStyle(this.#canvas);
    const probe = document.createElement("i");
    this.#canvas.after(probe);
    for (const [name, variable] of Object.entries(INKS)) {
      probe.style.color = `var(${variable})`;
      this.#ink[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    this.#ink.font = `${FONT} ${style.fontFamily}`;
    this.draw();
  }

  get count() {
    return this.#cells.length;
  }

  get first() {
    return this.#order[0] ?? -1;
  }

  get shown() {
    return this.#fits ? this.#fits.reduce((sum, one) => sum + one, 0) : this.count;
  }

  /** Whether work that was not submitted here holds any of it. */
  get outside() {
    return Boolean(this.#frame?.subarray(3 * this.count).some(Boolean));
  }

  nodeOf(cell) {
    return this.#cells[cell]?.node;
  }

  /** Take a layout: {models, nodes: [[name, pod, rack, pool, [[model, first index, how many]]]]}; of devices that are
      carved for good a run has their instances' memory slices and starts, too. */
  place({ models, nodes }) {
    this.#nodes = [];
    this.#cells = [];
    const pods = new Map();
    for (const [name, pod, rack, pool, runs] of nodes) {
      const node = { name, pool, first: this.#cells.length, count: 0, x: 0, y: 0 };
      if (!pods.has(pod)) pods.set(pod, { name: pod, racks: new Map() });
      /* A node of no rack stands alone. */
      const { racks } = pods.get(pod);
      const key = rack || node;
      if (!racks.has(key)) racks.set(key, { name: rack, nodes: [] });
      racks.get(key).nodes.push(node);
      for (const [model, first, many, mask = 0, starts = 0] of runs)
        for (let index = first; index < first + many; index++)
          this.#cells.push({ node, index, model: models[model], mask, starts, at: node.count++ });
      this.#nodes.push(node);
    }
    this.#pods = [...pods.values()].map(({ name, racks }) => ({ name, racks: [...racks.values()].sort(byName) }));
    this.#pods.sort(byName);
    const inRacks = this.#pods.flatMap((pod) => pod.racks).flatMap((rack) => rack.nodes.sort(byName));
    this.#order = inRacks.flatMap((node) => Array.from({ length: node.count }, (_, at) => node.first + at));
    this.#order.forEach((cell, rank) => (this.#cells[cell].rank = rank));
    this.#frame = null;
    this.#fits = null;
    this.cursor = Math.min(this.cursor, this.count - 1);
    this.arrange();
  }

  /** Take a frame; returns the names of the nodes that look otherwise than before. */
  show(bytes) {
    const before = this.#frame;
    const columns = bytes.subarray(HEADER);
    if (columns.length !== COLUMNS * this.count) return new Set();
    this.#frame = columns;
    if (!before) {
      this.draw();
      return new Set(this.#nodes.map((node) => node.name));
    }
    const changed = new Set();
    const { top, bottom } = this.#view();
    this.#begin();
    for (let cell = 0; cell < this.count; cell++) {
      if (this.#same(before, cell)) continue;
      const { node } = this.#cells[cell];
      changed.add(node.name);
      if (node.y + this.#block.height > top && node.y < bottom) this.#paint(cell, true);
    }
    return changed;
  }

  /** Show the cells for which `fits(node, model, state)` is true, the others faintly; null shows all. */
  filter(fits) {
    this.#fits = fits && this.#frame && Uint8Array.from(this.#cells, (cell, at) => fits(cell.node, cell.model, this.state(at)));
    this.draw();
  }

  state(cell) {
    const flags = this.#frame[cell];
    if (flags & BROKEN) return "unusable";
    if (flags & DRAINED) return "drained";
    return ["free", "partly", "full"][flags & 3];
  }

  #same(before, cell) {
    const all = this.count;
    for (let at = cell; at < COLUMNS * all; at += all) if (before[at] !== this.#frame[at]) return false;
    return true;
  }

  /** What the cell is, in words. */
  words(cell) {
    const { node, index, model } = this.#cells[cell];
    return say("mapCell", { node: node.name, index, model, state: this.#frame ? this.#stateWords(cell) : "" });
  }

  #stateWords(cell) {
    const [flags, second, third, outside] = this.#bytes(cell);
    const parts = [];
    if (flags & BROKEN) parts.push(say("mapUnusable"));
    if (flags & DRAINED) parts.push(say("mapDrained"));
    if (flags & CARVED) parts.push(say("mapCarved", { n: bits(third), slices: bits(second) }));
    else if ((flags & 3) === FULL && !outside) parts.push(say("mapFull", { n: third }));
    else if (second > outside)
      parts.push(say("mapPartly", { percent: number(((second - outside) * 100) / STEPS), n: third }));
    else if (!parts.length && !outside) parts.push(say("mapFree"));
    if (outside && flags & CARVED) parts.push(say("mapOutsideSlices", { slices: bits(outside) }));
    else if (outside) parts.push(say("mapOutside", { percent: number((outside * 100) / STEPS) }));
    return parts.join(", ");
  }

  #bytes(cell) {
    const all = this.count;
    return [this.#frame[cell], this.#frame[cell + all], this.#frame[cell + 2 * all], this.#frame[cell + 3 * all]];
  }

  /* The largest cells with which all of it is in view; the smallest where there are none. */
  arrange() {
    const width = this.#scroll.clientWidth;
    if (!width) return;
    const room = parseFloat(getComputedStyle(this.#scroll).maxHeight) || 480;
    const least = matchMedia("(pointer: coarse)").matches ? LEAST_COARSE : 0;
    const sizes = SIZES.filter((size) => size >= least);
    const fitting = sizes.find((size) => this.#measure(size, width) <= room);
    this.#size = fitting ?? sizes.at(-1);
    const height = this.#measure(this.#size, width);
    this.#space.style.height = `${height}px`;
    this.#scroll.style.height = `${Math.min(height, room)}px`;
    this.#width = width;
    this.#height = Math.min(height, room);
    const dense = devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * dense);
    this.#canvas.height = Math.round(this.#height * dense);
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${this.#height}px`;
    this.draw();
  }

  get #pitch() {
    return this.#size + (this.#size < LEAST_COARSE ? 1 : 2);
  }

  /* Gives each node its place, the nodes of a rack on top of each other, racks and pods side by side as far as they go;
     returns the height of it all. */
  #measure(size, width) {
    this.#size = size;
    const most = Math.max(1, ...this.#nodes.map((node) => node.count));
    const columns = Math.min(PER_ROW, most);
    const gap = Math.max(4, Math.round(size * 0.7));
    const top = size >= NAMED_FROM && columns > 3 ? NAME_HEIGHT : 0;
    this.#block = { width: columns * this.#pitch, height: top + Math.ceil(most / PER_ROW) * this.#pitch, top };
    const step = this.#block.height + (this.#size < LEAST_COARSE ? 1 : 3);
    const named = size >= RACKS_NAMED_FROM ? NAME_HEIGHT : 0;
    for (const pod of this.#pods) {
      for (const rack of pod.racks) {
        rack.width = this.#block.width;
        rack.top = rack.name ? named : 0;
        rack.height = rack.top + rack.nodes.length * step;
      }
      const size = flow(pod.racks, width, gap);
      pod.top = pod.name ? NAME_HEIGHT : 0;
      pod.width = size.width;
      pod.height = pod.top + size.height;
    }
    const whole = flow(this.#pods, width, 2 * gap);
    this.#labels = [];
    for (const pod of this.#pods) {
      if (pod.top) this.#labels.push({ text: pod.name, x: pod.x, y: pod.y, width: pod.width });
      for (const rack of pod.racks) {
        const x = pod.x + rack.x;
        const y = pod.y + pod.top + rack.y;
        if (rack.top) this.#labels.push({ text: rack.name, x, y, width: rack.width });
        rack.nodes.forEach((node, at) => Object.assign(node, { x, y: y + rack.top + at * step }));
      }
    }
    return whole.height + 2;
  }

  #at(cell) {
    const { node, at } = this.#cells[cell];
    return {
      x: node.x + (at % PER_ROW) * this.#pitch + 1,
      y: node.y + this.#block.top + Math.floor(at / PER_ROW) * this.#pitch + 1,
    };
  }

  #view() {
    const top = this.#scroll.scrollTop;
    return { top, bottom: top + this.#height };
  }

  #begin() {
    const dense = devicePixelRatio || 1;
    this.#pen.setTransform(dense, 0, 0, dense, 0, -this.#view().top * dense);
  }

  draw() {
    if (!this.#width) return;
    const { top, bottom } = this.#view();
    this.#begin();
    this.#pen.clearRect(0, top, this.#width, this.#height);
    this.#pen.font = this.#ink.font;
    this.#pen.fillStyle = this.#ink.words;
    for (const { text, x, y, width } of this.#labels)
      if (y + NAME_HEIGHT > top && y < bottom) this.#pen.fillText(text, x + 1, y + NAME_HEIGHT - 4, width);
    for (const node of this.#nodes) {
      if (node.y + this.#block.height <= top || node.y >= bottom) continue;
      if (this.#block.top) {
        this.#pen.fillStyle = this.#ink.words;
        this.#pen.fillText(node.name, node.x + 1, node.y + NAME_HEIGHT - 4, this.#block.width);
      }
      if (this.#frame) for (let cell = node.first; cell < node.first + node.count; cell++) this.#paint(cell, false);
    }
  }

  #paint(cell, wipe) {
    const pen = this.#pen;
    const size = this.#size;
    const { x, y } = this.#at(cell);
    const [flags, second, third, outside] = this.#bytes(cell);
    if (wipe) pen.clearRect(x - 1, y - 1, size + 2, size + 2);
    pen.globalAlpha = this.#fits && !this.#fits[cell] ? 0.15 : 1;
    this.#fill(flags & BROKEN ? this.#ink.badSoft : this.#ink.surface, x, y, size, size);
    if (flags & CARVED) {
      const { mask, starts } = this.#cells[cell];
      this.#instances(mask, starts & ~third, starts, x, y, this.#ink.open);
      this.#instances(second, third & ~outside, third, x, y, this.#ink.carved);
      this.#instances(second, third & outside, third, x, y, this.#ink.outside);
    } else if (second) {
      const tall = Math.max(2, Math.round((size * second) / STEPS));
      this.#fill(outside ? this.#ink.outside : this.#ink.held, x, y + size - tall, size, tall);
      const ours = outside ? Math.round((size * (second - outside)) / STEPS) : 0;
      if (ours) this.#fill(this.#ink.held, x, y + size - ours, size, ours);
    }
    const edge = flags & BROKEN ? this.#ink.bad : flags & DRAINED ? this.#ink.drained : this.#ink.line;
    if (flags & BROKEN) this.#strokes(this.#ink.bad, x, y, true);
    else if (flags & DRAINED) this.#strokes(this.#ink.drained, x, y, false);
    pen.strokeStyle = edge;
    pen.lineWidth = flags & (BROKEN | DRAINED) && size >= LEAST_COARSE ? 2 : 1;
    const inset = pen.lineWidth / 2;
    /* A whole one is as plain without its edge, and they are the most. */
    if (size >= LEAST_COARSE || flags !== FULL)
      pen.strokeRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset);
    if (cell === this.cursor) {
      pen.globalAlpha = 1;
      pen.strokeStyle = this.#ink.cursor;
      pen.lineWidth = 2;
      pen.strokeRect(x, y, size, size);
    }
    pen.globalAlpha = 1;
  }

  #fill(ink, x, y, width, height) {
    this.#pen.fillStyle = ink;
    this.#pen.fillRect(x, y, width, height);
  }

  /* From left to right, by memory slices, with a gap before each instance: those of `all` that have these starts. */
  #instances(mask, starts, all, x, y, ink) {
    const slot = this.#size / SLOTS;
    const gap = this.#size >= LEAST_COARSE ? 1 : 0.5;
    for (let start = 0; start < SLOTS; start++) {
      if (!(starts & (1 << start))) continue;
      let end = start + 1;
      while (end < SLOTS && mask & (1 << end) && !(all & (1 << end))) end++;
      this.#fill(ink, x + start * slot + gap, y + 1, (end - start) * slot - gap, this.#size - 2);
    }
  }

  #strokes(ink, x, y, both) {
    const pen = this.#pen;
    const size = this.#size;
    pen.strokeStyle = ink;
    pen.lineWidth = size >= BOLD_FROM ? 2 : 1;
    pen.beginPath();
    pen.moveTo(x, y + size);
    pen.lineTo(x + size, y);
    if (both) {
      pen.moveTo(x, y);
      pen.lineTo(x + size, y + size);
    }
    pen.stroke();
  }

  /** The cell at a point of the window, or -1. */
  hit(clientX, clientY) {
    const box = this.#canvas.getBoundingClientRect();
    const x = clientX - box.left;
    const y = clientY - box.top + this.#view().top;
    const node = this.#nodes.find(
      (one) =>
        x >= one.x && x < one.x + this.#block.width && y >= one.y + this.#block.top && y < one.y + this.#block.height,
    );
    if (!node) return -1;
    const at =
      Math.floor((y - node.y - this.#block.top) / this.#pitch) * PER_ROW + Math.floor((x - node.x) / this.#pitch);
    return at < node.count ? node.first + at : -1;
  }

  /** Where a cell is in the window: its left, its bottom. */
  spot(cell) {
    const box = this.#canvas.getBoundingClientRect();
    const { x, y } = this.#at(cell);
    return { left: box.left + x, bottom: box.top + y - this.#view().top + this.#size };
  }

  choose(cell) {
    this.cursor = cell;
    if (cell >= 0) {
      const { y } = this.#at(cell);
      const { top, bottom } = this.#view();
      if (y < top + 2 * NAME_HEIGHT) this.#scroll.scrollTop = Math.max(0, y - 2 * NAME_HEIGHT);
      else if (y + this.#size > bottom) this.#scroll.scrollTop = y + this.#size + 4 - this.#height;
    }
    this.draw();
  }

  /** The next cell in a direction that fits the filter; the same where there is none. */
  beside(cell, key) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: 1, End: -1 }[key];
    if (step) {
      let rank = { Home: 0, End: this.count - 1 }[key] ?? this.#cells[cell].rank + step;
      while (rank >= 0 && rank < this.count && !this.#open(this.#order[rank])) rank += step;
      return this.#order[rank] ?? cell;
    }
    return this.#above(cell, key === "ArrowUp" ? -1 : 1);
  }

  #above(cell, direction) {
    const from = this.#at(cell);
    let best = cell;
    let least = Infinity;
    for (let other = 0; other < this.count; other++) {
      const to = this.#at(other);
      const down = (to.y - from.y) * direction;
      /* The nearest row first, and in it the nearest cell. */
      const far = down * 10_000 + Math.abs(to.x - from.x);
      if (down > 0 && far < least && this.#open(other)) [best, least] = [other, far];
    }
    return best;
  }

  #open(cell) {
    return !this.#fits || Boolean(this.#fits[cell]);
  }
}

const collator = new Intl.Collator(language, { numeric: true });
const byName = (one, other) => collator.compare(one.name, other.name);

/* Side by side, line by line: gives each its x and y; returns the width and the height that they take together. */
function flow(items, width, gap) {
  let [x, y, tall, wide] = [0, 0, 0, 0];
  for (const item of items) {
    if (x && x + item.width > width) [x, y, tall] = [0, y + tall + gap, 0];
    Object.assign(item, { x, y });
    x += item.width + gap;
    wide = Math.max(wide, x - gap);
    tall = Math.max(tall, item.height);
  }
  return { width: wide, height: y + tall };
}

function bits(byte) {
  let count = 0;
  for (let rest = byte; rest; rest &= rest - 1) count++;
  return count;
}
