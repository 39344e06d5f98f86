/* The log of an attempt: follows the newest lines, keeps few rows in the page, goes back as far as there is a log. */

import { Chunk } from "./log-chunk.js";
import { number, say } from "./strings.js";

const MOST_ROWS = 5000;
/* Drawing takes at most a quarter of the time, however fast lines come; what is outrun is never drawn. */
const REST_FACTOR = 3;
const LONGEST_REST_MS = 1000;
const UPWARDS = new Set(["ArrowUp", "PageUp", "Home"]);

const total = (chunks, property) => chunks.reduce((sum, chunk) => sum + chunk[property], 0);

export class LogPanel {
  constructor(root, { send }) {
    this.root = root;
    this.send = send;
    this.part = Object.fromEntries([...root.querySelectorAll("[data-log]")].map((each) => [each.dataset.log, each]));
    this.following = true;
    this.chosen = false;
    this.drawAt = 0;
    this.lastTop = 0;
    this.forget(root.dataset.attempt);
    this.listen();
  }

  listen() {
    const { rows, follow, newest, wrap, earlier } = this.part;
    /* The reader's own movements, not the scroll events: under a flood those come after the next lines are drawn. */
    rows.addEventListener("wheel", (event) => event.deltaY < 0 && this.follow(false), { passive: true });
    rows.addEventListener("touchmove", () => this.follow(false), { passive: true });
    rows.addEventListener("keydown", (event) => UPWARDS.has(event.key) && this.follow(false));
    rows.addEventListener("pointerdown", (event) => event.offsetX > rows.clientWidth && this.follow(false));
    rows.addEventListener("scroll", () => this.scrolled(), { passive: true });
    follow.addEventListener("click", () => this.follow(!this.following));
    newest.addEventListener("click", () => this.follow(true));
    wrap.addEventListener("click", () => this.wrap());
    earlier.querySelector("button").addEventListener("click", () => this.loadEarlier());
  }

  /** Where the page is, for the server to go on from. */
  get position() {
    return { attempt: this.attempt || "", chosen: this.chosen, log: this.known ? this.next : null };
  }

  forget(attempt) {
    for (const chunk of this.chunks || []) chunk.element?.remove();
    this.attempt = attempt;
    this.root.dataset.attempt = attempt || "";
    this.chunks = [];
    this.pending = [];
    this.outrun = false;
    this.unseen = 0;
    this.next = 0;
    this.known = false;
  }

  /** Show another attempt's log. */
  choose(attempt) {
    this.forget(attempt);
    this.chosen = true;
    this.follow(true);
    this.send({ type: "follow", attempt });
  }

  receive(message) {
    if (message.reset) this.forget(message.attempt);
    else if (message.attempt !== this.attempt) return;
    else if (message.start !== this.next) return this.ask();
    this.known = true;
    this.next = message.next;
    if (message.lines.length || message.skipped) this.add(new Chunk(message, MOST_ROWS));
    this.plan();
  }

  /** Say where the page is: what came does not join on. */
  ask() {
    this.send({ type: "resume", ...this.position, readings: this.readings?.() ?? null });
  }

  /** Lines that come while the reader looks at older ones wait outside the page. */
  add(chunk) {
    if (this.following) {
      this.chunks.push(chunk);
      this.trim();
      return;
    }
    this.unseen += chunk.lines.length;
    this.pending.push(chunk);
    while (total(this.pending, "shown") - this.pending[0].shown >= MOST_ROWS) {
      this.pending.shift();
      this.outrun = true;
    }
  }

  /** Drop the oldest rows over the limit: whole chunks, and the last one in part. */
  trim() {
    let over = total(this.chunks, "shown") - MOST_ROWS;
    while (over > 0 && this.chunks[0].shown <= over) {
      const oldest = this.chunks.shift();
      oldest.element?.remove();
      over -= oldest.shown;
    }
    if (over > 0) this.chunks[0].hide(over);
  }

  catchUp() {
    if (this.outrun) {
      for (const chunk of this.chunks) chunk.element?.remove();
      this.chunks = [];
    }
    this.chunks.push(...this.pending);
    this.pending = [];
    this.outrun = false;
    this.unseen = 0;
    this.trim();
  }

  follow(wanted) {
    if (wanted === this.following) return;
    this.following = wanted;
    this.part.status.textContent = say(wanted ? "following" : "paused");
    if (wanted) this.catchUp();
    this.plan();
  }

  scrolled() {
    const { rows } = this.part;
    const atEnd = rows.scrollHeight - rows.scrollTop - rows.clientHeight < 2;
    if (!this.following && atEnd && rows.scrollTop > this.lastTop) this.follow(true);
    this.lastTop = rows.scrollTop;
  }

  wrap() {
    const wrapped = this.part.rows.classList.toggle("wrap");
    this.part.wrap.setAttribute("aria-pressed", String(wrapped));
    this.plan();
  }

  plan() {
    if (this.planned) return;
    this.planned = true;
    setTimeout(() => requestAnimationFrame(() => this.draw()), Math.max(0, this.drawAt - performance.now()));
  }

  draw() {
    this.planned = false;
    const began = performance.now();
    const { rows } = this.part;
    const fresh = this.chunks.filter((chunk) => !chunk.element).map((chunk) => chunk.render());
    rows.append(...fresh);
    this.drawEdges();
    if (this.following) {
      rows.scrollTop = rows.scrollHeight;
      this.lastTop = rows.scrollTop;
    }
    const ended = performance.now();
    this.drawAt = ended + Math.min(LONGEST_REST_MS, (ended - began) * REST_FACTOR);
  }

  drawEdges() {
    const { earlier, start, empty, count, download, newest, follow } = this.part;
    const shown = total(this.chunks, "shown");
    const more = this.chunks.length > 0 && (this.chunks[0].start > 0 || this.chunks[0].from > 0);
    earlier.hidden = !more;
    start.hidden = more || !shown;
    start.textContent = say("beginning");
    empty.hidden = shown > 0;
    if (!this.trouble) count.textContent = shown ? say("lines", { n: number(shown) }) : "";
    newest.hidden = this.following || !shown;
    newest.querySelector("span").textContent = this.unseen ? say("newLines", { n: number(this.unseen) }) : say("newest");
    follow.setAttribute("aria-pressed", String(this.following));
    if (this.attempt) download.search = new URLSearchParams({ attempt: this.attempt });
  }

  async loadEarlier() {
    if (this.loading || !this.chunks.length) return;
    this.loading = true;
    this.follow(false);
    try {
      await this.prepend(this.chunks[0]);
      this.trouble = false;
    } catch {
      this.trouble = true;
      this.part.count.textContent = this.part.status.textContent = say("logFailed");
    }
    this.loading = false;
  }

  async prepend(oldest) {
    const older = oldest.from ? null : await this.fetchBefore(oldest.start);
    if (this.chunks[0] !== oldest) return;
    if (!oldest.element) this.draw();
    const { rows } = this.part;
    const height = rows.scrollHeight;
    const top = rows.scrollTop;
    if (older) {
      this.chunks.unshift(older);
      oldest.element.before(older.render());
    } else {
      oldest.reveal();
    }
    this.drawEdges();
    rows.scrollTop = this.lastTop = top + rows.scrollHeight - height;
  }

  async fetchBefore(offset) {
    const url = new URL(this.root.dataset.url, location.href);
    url.search = new URLSearchParams({ attempt: this.attempt, before: offset });
    const response = await fetch(url, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(String(response.status));
    const chunk = new Chunk(await response.json());
    /* Nothing is kept before this: the page then stands at the beginning. */
    if (!chunk.lines.length) chunk.start = 0;
    return chunk;
  }
}
