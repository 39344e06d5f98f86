/* The log of an attempt: follows the newest lines, keeps few rows in the page, and goes back as far as there is a log. */

import { number, say } from "./strings.js";

const MOST_ROWS = 5000;
/* Rows are laid out in groups, so that dropping the oldest costs one removal and off-screen ones cost no painting. */
const NEAR_END_PX = 24;

const pad = (value, width) => String(value).padStart(width, "0");

function clock(epochSeconds) {
  const at = new Date(epochSeconds * 1000);
  return `${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}.${pad(at.getMilliseconds(), 3)}`;
}

const model = document.createElement("div");
model.className = "log-row";
model.append(document.createElement("time"), document.createElement("span"), document.createElement("span"));
model.children[1].className = "log-mark";
model.children[2].className = "log-text";

function row([at, from, text]) {
  const element = model.cloneNode(true);
  const [time, mark, words] = element.children;
  time.textContent = clock(at);
  if (from !== "out") {
    element.dataset.from = from;
    mark.textContent = from;
  }
  words.textContent = text;
  return element;
}

/* What one message brought. `from` counts the lines at its beginning that are not in the page. */
class Chunk {
  constructor({ start, next, skipped, lines }) {
    this.start = start;
    this.next = next;
    this.skipped = skipped || 0;
    this.lines = lines;
    this.from = Math.max(0, lines.length - MOST_ROWS);
    this.element = null;
  }

  get shown() {
    return this.lines.length - this.from;
  }

  render() {
    this.element = document.createElement("div");
    this.element.className = "log-chunk";
    if (this.skipped) this.element.append(this.gap());
    this.element.append(...this.lines.slice(this.from).map(row));
    return this.element;
  }

  gap() {
    const element = document.createElement("p");
    element.className = "log-gap";
    element.textContent = say("gap", { n: number(this.skipped) });
    return element;
  }

  /** Take the oldest `count` shown rows out of the page; they stay in memory. */
  hide(count) {
    this.from += count;
    if (!this.element) return;
    const rows = this.element.querySelectorAll(":scope > .log-row");
    for (let index = 0; index < count; index += 1) rows[index].remove();
  }

  /** Bring every line into the page. */
  reveal() {
    const hidden = this.lines.slice(0, this.from).map(row);
    const first = this.element.querySelector(":scope > .log-row");
    for (const element of hidden) this.element.insertBefore(element, first);
    this.from = 0;
  }
}

export class LogPanel {
  constructor(root, { send }) {
    this.root = root;
    this.send = send;
    this.part = Object.fromEntries([...root.querySelectorAll("[data-log]")].map((each) => [each.dataset.log, each]));
    this.forget(root.dataset.attempt);
    this.following = true;
    this.part.rows.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.part.follow.addEventListener("click", () => this.follow(!this.following));
    this.part.newest.addEventListener("click", () => this.follow(true));
    this.part.wrap.addEventListener("click", () => this.wrap());
    this.part.earlier.querySelector("button").addEventListener("click", () => this.loadEarlier());
  }

  /** Where the page is, for the server to go on from. */
  get position() {
    return { attempt: this.attempt || "", log: this.chunks.length || this.known ? this.next : null };
  }

  forget(attempt) {
    for (const chunk of this.chunks || []) chunk.element?.remove();
    this.attempt = attempt;
    this.chunks = [];
    this.shown = 0;
    this.unseen = 0;
    this.next = 0;
    this.known = false;
    this.reading = false;
  }

  /** Show another attempt's log. */
  choose(attempt) {
    this.forget(attempt);
    this.root.dataset.attempt = attempt;
    this.follow(true);
    this.send({ type: "follow", attempt });
    this.plan();
  }

  receive(message) {
    if (message.reset) {
      if (message.attempt !== this.attempt) this.root.dataset.attempt = message.attempt;
      this.forget(message.attempt);
    } else if (message.attempt !== this.attempt) {
      return;
    } else if (message.start !== this.next) {
      this.send({ type: "resume", attempt: this.attempt, log: this.known ? this.next : null, readings: this.readings?.() ?? null });
      return;
    }
    this.known = true;
    this.next = message.next;
    if (message.lines.length || message.skipped) this.add(new Chunk(message));
    this.plan();
  }

  add(chunk) {
    this.chunks.push(chunk);
    this.shown += chunk.shown;
    if (!this.following) this.unseen += chunk.lines.length;
    if (!this.reading) this.trim();
  }

  /** Drop the oldest rows over the limit: whole chunks, and the last one in part. */
  trim() {
    let over = this.shown - MOST_ROWS;
    while (over > 0 && this.chunks[0].shown <= over) {
      const oldest = this.chunks.shift();
      oldest.element?.remove();
      over -= oldest.shown;
    }
    if (over > 0) this.chunks[0].hide(over);
    this.shown = this.chunks.reduce((sum, chunk) => sum + chunk.shown, 0);
  }

  plan() {
    this.planned ??= requestAnimationFrame(() => {
      this.planned = undefined;
      this.draw();
    });
  }

  draw() {
    const { rows, earlier, start, empty, count, download } = this.part;
    const before = rows.scrollTop;
    for (const chunk of this.chunks) if (!chunk.element) rows.append(chunk.render());
    if (this.following) rows.scrollTop = rows.scrollHeight;
    else if (rows.scrollTop !== before) rows.scrollTop = before;
    const more = this.chunks.length > 0 && (this.chunks[0].start > 0 || this.chunks[0].from > 0);
    earlier.hidden = !more;
    start.hidden = more || !this.chunks.length;
    start.textContent = say("beginning");
    empty.hidden = this.shown > 0;
    count.textContent = this.shown ? say("lines", { n: number(this.shown) }) : "";
    if (this.attempt) {
      const url = new URL(download.href);
      url.searchParams.set("attempt", this.attempt);
      download.href = url.href;
    }
    this.drawNewest();
  }

  drawNewest() {
    const { newest, follow } = this.part;
    newest.hidden = this.following || !this.shown;
    newest.querySelector("span").textContent = this.unseen ? say("newLines", { n: number(this.unseen) }) : say("newest");
    follow.setAttribute("aria-pressed", String(this.following));
  }

  scrolled() {
    const { rows } = this.part;
    const away = rows.scrollHeight - rows.scrollTop - rows.clientHeight;
    /* Only a scroll upwards by the reader stops following: growth of the log moves the end, not the reader. */
    if (this.following && away > NEAR_END_PX && rows.scrollTop < this.lastTop) this.follow(false);
    else if (!this.following && away < 2 && !this.loading) this.follow(true);
    this.lastTop = rows.scrollTop;
  }

  follow(wanted) {
    if (wanted !== this.following) this.part.status.textContent = say(wanted ? "following" : "paused");
    this.following = wanted;
    if (wanted) {
      this.unseen = 0;
      this.reading = false;
      this.trim();
      this.part.rows.scrollTop = this.part.rows.scrollHeight;
    }
    this.plan();
  }

  wrap() {
    const wrapped = this.part.rows.classList.toggle("wrap");
    this.part.wrap.setAttribute("aria-pressed", String(wrapped));
    if (this.following) this.part.rows.scrollTop = this.part.rows.scrollHeight;
  }

  async loadEarlier() {
    if (this.loading || !this.chunks.length) return;
    this.loading = true;
    this.follow(false);
    this.reading = true;
    try {
      await this.prepend();
    } catch {
      this.part.status.textContent = say("logFailed");
      this.part.count.textContent = say("logFailed");
    }
    this.loading = false;
  }

  async prepend() {
    const oldest = this.chunks[0];
    let add = () => oldest.reveal();
    if (!oldest.from) {
      const url = new URL(this.root.dataset.url, location.href);
      url.searchParams.set("attempt", this.attempt);
      url.searchParams.set("before", oldest.start);
      const response = await fetch(url, { headers: { Accept: "application/json" } });
      if (!response.ok) throw new Error(String(response.status));
      const chunk = new Chunk(await response.json());
      if (this.chunks[0] !== oldest) return;
      chunk.from = 0;
      if (!chunk.lines.length) chunk.start = 0;
      add = () => {
        this.chunks.unshift(chunk);
        oldest.element.before(chunk.render());
      };
    }
    const { rows } = this.part;
    const height = rows.scrollHeight;
    const top = rows.scrollTop;
    add();
    this.shown = this.chunks.reduce((sum, chunk) => sum + chunk.shown, 0);
    this.draw();
    rows.scrollTop = top + rows.scrollHeight - height;
  }
}
