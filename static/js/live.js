/* The page's one socket: connects, comes back by itself, hands each message to whoever asked for its type. */

import { replace } from "./morph.js";
import { say } from "./strings.js";
import { setClock } from "./time.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const STALE_MS = 8000;
/* A connection that says nothing for so long is dead, whatever the browser thinks. */
const DEAD_MS = 20_000;
const FOR_GOOD = new Set([4401, 4404]);

const handlers = new Map();
const greetings = [];
const badge = document.getElementById("live");
const announcer = document.getElementById("announce");

let url;
let socket;
let wait = FIRST_WAIT_MS;
let retry;
let heardAt = 0;
let state = "connecting";
let over = false;
let wasLost = false;

/** Call `handle` with every message of the type; one of bytes is a "frame" and has them as `bytes`. */
export function on(type, handle) {
  handlers.set(type, [...(handlers.get(type) || []), handle]);
}

/** After every connect send what `make` returns, if anything, before all else. */
export function greet(make) {
  greetings.push(make);
}

export function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function show(next) {
  state = next;
  badge.dataset.state = next;
  const words = {
    connecting: () => say("connecting"),
    live: () => say("live"),
    stale: () => say("stale", { n: Math.round((performance.now() - heardAt) / 1000) }),
    reconnecting: () =>
      heardAt ? say("stale", { n: Math.round((performance.now() - heardAt) / 1000) }) : say("reconnecting"),
    off: () => say("gone"),
  };
  badge.textContent = next === "reconnecting" ? say("reconnecting") : words[next]();
  badge.title = next === "reconnecting" ? words[next]() : "";
}

function stop() {
  over = true;
  show("off");
  document.getElementById("gone").hidden = false;
  clearTimeout(retry);
}

function receive(event) {
  const message =
    event.data instanceof ArrayBuffer
      ? { type: "frame", bytes: new Uint8Array(event.data) }
      : JSON.parse(event.data);
  heardAt = performance.now();
  for (const handle of handlers.get(message.type) || []) handle(message);
}

function connect() {
  clearTimeout(retry);
  retry = undefined;
  const mine = new WebSocket(url);
  socket = mine;
  mine.binaryType = "arraybuffer";
  mine.onopen = () => {
    heardAt = performance.now();
    for (const message of greetings.map((make) => make())) if (message) send(message);
  };
  mine.onmessage = (event) => socket === mine && receive(event);
  mine.onclose = (event) => {
    if (socket !== mine || over) return;
    socket = undefined;
    if (FOR_GOOD.has(event.code)) return stop();
    if (!wasLost && heardAt) announcer.textContent = say("lost");
    wasLost = true;
    show("reconnecting");
    retry = setTimeout(connect, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  };
}

function now() {
  if (!over && retry !== undefined) connect();
}

function look() {
  if (over || !heardAt) return;
  const silent = performance.now() - heardAt;
  if (socket && silent > DEAD_MS) {
    const dead = socket;
    socket = undefined;
    dead.close();
    show("reconnecting");
    wasLost = true;
    connect();
  } else if (socket?.readyState === WebSocket.OPEN && silent > STALE_MS) {
    show("stale");
  } else if (state === "reconnecting") {
    show("reconnecting");
  }
}

on("fragment", ({ id, html }) => replace(id, html));
on("gone", stop);
on("fresh", ({ at }) => {
  setClock(at);
  wait = FIRST_WAIT_MS;
  if (state !== "live") show("live");
  if (wasLost) announcer.textContent = say("back");
  wasLost = false;
});

export function start(path) {
  url = Object.assign(new URL(path, location.href), { protocol: location.protocol === "https:" ? "wss:" : "ws:" });
  badge.hidden = false;
  show("connecting");
  connect();
  setInterval(look, 1000);
  addEventListener("online", now);
  document.addEventListener("visibilitychange", () => document.hidden || now());
}
