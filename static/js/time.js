/* Rewrites the server's times in the reader's zone and words, and keeps the relative ones moving. */

import { language, say } from "./strings.js";

const FORMATS = {
  datetime: new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" }),
  moment: new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
  time: new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
};
const RELATIVE = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

/* The server's clock minus this one's, so that a job that began just now did not begin in the future. */
let ahead = 0;

const now = () => Date.now() + ahead;

export function setClock(epochSeconds) {
  ahead = epochSeconds * 1000 - Date.now();
}

/** Seconds as their two largest units: 2 h 14 min. */
function span(seconds) {
  let rest = Math.max(0, Math.floor(seconds));
  const first = UNITS.findIndex(([, size]) => rest >= size);
  if (first < 0) return `0 ${say("second")}`;
  const parts = [];
  for (const [unit, size] of UNITS.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) parts.push(`${count} ${say(unit)}`);
  }
  return parts.join(" ");
}

function ago(at) {
  const seconds = (now() - at) / 1000;
  if (Math.abs(seconds) < 10) return say("justNow");
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each);
  return RELATIVE.format(-Math.trunc(seconds / size), unit);
}

function write(element) {
  const at = Date.parse(element.dateTime);
  if (Number.isNaN(at)) return;
  const format = element.dataset.format;
  let text;
  if (format === "elapsed") {
    const until = element.dataset.until ? Date.parse(element.dataset.until) : now();
    /* Counted as the bill counts: from whole second to whole second. */
    text = span(Math.floor(until / 1000) - Math.floor(at / 1000));
  } else if (format === "ago") {
    text = ago(at);
  } else {
    text = FORMATS[format].format(at);
  }
  if (format !== "datetime") element.title = FORMATS.datetime.format(at);
  if (element.textContent !== text) element.textContent = text;
}

export function localise(root) {
  for (const element of root.querySelectorAll("time[data-format]")) write(element);
}

export function start() {
  localise(document);
  document.addEventListener("haein:changed", (event) => localise(event.detail));
  document.addEventListener("htmx:after:swap", () => localise(document));
  setInterval(() => {
    for (const element of document.querySelectorAll(
      "time[data-format=elapsed]:not([data-until]), time[data-format=ago]",
    ))
      write(element);
  }, 1000);
}
