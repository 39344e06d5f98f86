/* What one message of the log brought, as lines in memory and as rows in the page. */

import { number, say } from "./strings.js";

/* Rows are laid out in blocks: the browser skips the blocks that are out of sight. */
const BLOCK_ROWS = 100;

const pad = (value, width = 2) => String(value).padStart(width, "0");

function clock(epochSeconds) {
  const at = new Date(epochSeconds * 1000);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

/* The time and the mark are generated from attributes: two nodes a row instead of seven, and neither is copied. */
function row([at, from, text]) {
  const element = document.createElement("div");
  element.className = "log-row";
  element.dataset.at = clock(at);
  if (from !== "out") element.dataset.from = from;
  element.textContent = text;
  return element;
}

function block(lines) {
  const element = document.createElement("div");
  element.className = "log-block";
  /* A block out of sight has the size it is said to have: rows of one height, its longest line's width. */
  element.style.setProperty("--rows", lines.length);
  element.style.setProperty("--columns", Math.max(...lines.map(([, , text]) => text.length)));
  element.append(...lines.map(row));
  return element;
}

function gap(bytes) {
  const element = document.createElement("p");
  element.className = "log-gap";
  element.textContent = say("gap", { n: number(bytes) });
  return element;
}

export class Chunk {
  /** At most the newest `most` lines are shown; `from` counts those before them, which stay in memory. */
  constructor({ start, next, skipped, lines }, most = Infinity) {
    this.start = start;
    this.next = next;
    this.skipped = skipped || 0;
    this.lines = lines;
    this.from = Math.max(0, lines.length - most);
    this.element = null;
  }

  get shown() {
    return this.lines.length - this.from;
  }

  render() {
    this.element = document.createElement("div");
    this.element.className = "log-chunk";
    this.fill();
    return this.element;
  }

  fill() {
    const parts = this.skipped ? [gap(this.skipped)] : [];
    for (let at = this.from; at < this.lines.length; at += BLOCK_ROWS)
      parts.push(block(this.lines.slice(at, at + BLOCK_ROWS)));
    this.element.replaceChildren(...parts);
  }

  /** Take the oldest `count` shown rows out of the page. */
  hide(count) {
    this.from += count;
    if (!this.element) return;
    let left = count;
    while (left > 0) {
      const first = this.element.querySelector(".log-block");
      if (first.childElementCount <= left) {
        left -= first.childElementCount;
        first.remove();
      } else {
        for (; left > 0; left -= 1) first.firstChild.remove();
        first.style.setProperty("--rows", first.childElementCount);
      }
    }
  }

  /** Bring every line into the page. */
  reveal() {
    this.from = 0;
    this.fill();
  }
}
