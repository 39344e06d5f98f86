/* A job's page: its log and its charts on the page's socket. */

import { charts } from "./charts.js";
import * as live from "./live.js";
import { LogPanel } from "./log.js";

const log = new LogPanel(document.getElementById("log"), { send: live.send });
const drawn = charts();
let measured = { attempt: log.attempt, last: null };

log.readings = () => (measured.attempt === log.attempt ? measured.last : null);

live.greet(() => ({ type: "resume", ...log.position, readings: log.readings() }));
live.on("log", (message) => log.receive(message));
live.on("readings", (message) => {
  if (!message.reset && message.attempt !== measured.attempt) return;
  for (const chart of drawn) chart.extend(message, { clear: message.reset && message.attempt !== measured.attempt });
  measured = { attempt: message.attempt, last: message.t.at(-1) ?? (message.reset ? null : measured.last) };
});

/* A job that moved on has most likely written something. Whoever stands in a folder is left there. */
const state = () => document.querySelector("#job-head [data-state]").dataset.state;
let seen = state();
live.on("fragment", () => {
  if (state() === seen) return;
  seen = state();
  if (!document.querySelector("#job-files nav")) document.getElementById("look-again").click();
});

/* Of several attempts, whose log is shown. */
function markAttempt() {
  for (const button of document.querySelectorAll("[data-follow-attempt]"))
    button.setAttribute("aria-pressed", String(button.dataset.followAttempt === log.attempt));
}

markAttempt();
document.addEventListener("haein:changed", markAttempt);
live.on("log", (message) => message.reset && markAttempt());
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-follow-attempt]");
  if (!button) return;
  log.choose(button.dataset.followAttempt);
  markAttempt();
  document.getElementById("log").scrollIntoView({ block: "nearest" });
});
