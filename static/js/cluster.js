/* The cluster's page: the map on the page's socket, its filter, its keys, and the node that is shown beside it. */

import { HeatMap } from "./heatmap.js";
import * as live from "./live.js";
import { replace } from "./morph.js";
import { say } from "./strings.js";

const canvas = document.getElementById("map");
const filters = document.getElementById("filters");
const said = document.getElementById("map-said");
const shown = document.getElementById("map-shown");
const outside = document.getElementById("key-outside");
const tip = document.getElementById("map-tip");
const scroll = document.getElementById("map-scroll");
const map = new HeatMap({ canvas, scroll, space: document.getElementById("map-space") });

/* Frames: drawn with the browser's next picture, then the next one is asked for. A page that is not seen draws none. */

let waiting = null;

live.on("layout", ({ layout }) => map.place(layout));
live.on("frame", ({ bytes }) => {
  waiting = bytes;
  requestAnimationFrame(() => {
    if (!waiting) return;
    const begun = performance.now();
    const first = !canvas.dataset.frames;
    const changed = map.show(waiting);
    waiting = null;
    outside.hidden = !map.outside;
    if (filtered() || first) filter();
    canvas.dataset.frames = Number(canvas.dataset.frames || 0) + 1;
    canvas.dataset.drawMs = (performance.now() - begun).toFixed(2);
    live.send({ type: "drawn" });
    /* At first too: what is opened was drawn by the server before this frame was made. */
    if (changed.has(opened())) show(opened(), { focus: false });
  });
});

/* The filter is the table's; the map follows it by itself. */

const asked = () => Object.fromEntries(new FormData(filters));

const filtered = () => {
  const { q, model, pool, state } = asked();
  return Boolean(q.trim() || model || pool || state);
};

function filter() {
  const { q, model, pool, state } = asked();
  const words = q.trim().toLowerCase();
  map.filter(
    filtered()
      ? (node, its, now) =>
          node.name.toLowerCase().includes(words) &&
          (!model || model === its) &&
          (!pool || pool === node.pool) &&
          (!state || state === now)
      : null,
  );
  shown.textContent = filtered() ? say("mapShown", { n: map.shown, all: map.count }) : "";
}

filters.addEventListener("input", filter);
document.addEventListener("haein:theme", () => map.readInks());

/* The cursor and the tip. */

function point(cell, { speak }) {
  map.choose(cell);
  if (speak) said.textContent = cell >= 0 ? map.words(cell) : "";
}

function hint(event) {
  const cell = map.hit(event.clientX, event.clientY);
  tip.hidden = cell < 0;
  canvas.style.cursor = cell < 0 ? "" : "pointer";
  if (cell < 0) return;
  tip.textContent = map.words(cell);
  const { left, bottom } = map.spot(cell);
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.min(bottom + 6, innerHeight - tip.offsetHeight - 8)}px`;
}

canvas.addEventListener("pointermove", hint);
canvas.addEventListener("pointerleave", () => (tip.hidden = true));
scroll.addEventListener("scroll", () => (tip.hidden = true), { passive: true });
canvas.addEventListener("click", (event) => {
  const cell = map.hit(event.clientX, event.clientY);
  if (cell < 0) return;
  point(cell, { speak: true });
  show(map.nodeOf(cell).name, { focus: true });
});
canvas.addEventListener("focus", () => point(map.cursor < 0 ? map.first : map.cursor, { speak: true }));
canvas.addEventListener("blur", () => map.draw());
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || map.cursor < 0) return;
  if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
    point(map.beside(map.cursor, event.key), { speak: true });
  } else if (event.key === "Enter" || event.key === " ") {
    show(map.nodeOf(map.cursor).name, { focus: true });
  } else if (event.key === "Escape") {
    close();
  } else return;
  event.preventDefault();
});

/* One node, beside the map. */

const detail = () => document.getElementById("node-detail");
const opened = () => detail().dataset.node;
let turn = 0;
let back = null;

async function show(name, { focus }) {
  const mine = ++turn;
  if (focus) back = document.activeElement;
  const response = await fetch(`/cluster/nodes/${encodeURIComponent(name)}/`, {
    headers: { "HX-Request": "true" },
  }).catch(() => null);
  if (!response?.ok || mine !== turn) return;
  replace("node-detail", await response.text());
  remember(name);
  if (!focus) return;
  detail().querySelector("h2").focus({ preventScroll: true });
  detail().scrollIntoView({ block: "nearest" });
}

function close() {
  if (!opened()) return;
  turn++;
  detail().replaceChildren();
  detail().hidden = true;
  delete detail().dataset.node;
  remember("");
  (back?.isConnected ? back : canvas).focus();
}

function remember(name) {
  const url = new URL(location.href);
  if (name) url.searchParams.set("node", name);
  else url.searchParams.delete("node");
  history.replaceState(history.state, "", url);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) return close();
  const link = event.target.closest("a[data-node]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  show(link.dataset.node, { focus: true });
});
