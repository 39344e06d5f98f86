/* A list that is filtered and paged by its address: fetched again when the server hints that it changed. */

import { replace } from "./morph.js";

const LEAST_MS = 1000;

export function start(live) {
  let last = 0;
  let planned;
  let asked = 0;

  async function fetchAgain() {
    planned = undefined;
    last = performance.now();
    const list = document.querySelector("[data-refresh]");
    if (!list) return;
    const url = list.dataset.refresh;
    const turn = ++asked;
    const response = await fetch(url, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (!response?.ok) return;
    const html = await response.text();
    if (turn === asked && list.isConnected && list.dataset.refresh === url) replace(list.id, html);
  }

  const plan = () => (planned ??= setTimeout(fetchAgain, Math.max(0, last + LEAST_MS - performance.now())));
  live.on("refresh", plan);

  /* Hints sent while the socket was away are gone, so look once after every return. */
  let first = true;
  live.greet(() => {
    if (!first) plan();
    first = false;
  });
}
