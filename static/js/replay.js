/* A replay's page: how far it is, and once it is done its charts. */

import { charts } from "./charts.js";
import * as live from "./live.js";

charts();

/* The outcome is on the page itself, so that it is there without this script as well. */
const open = new Set(["queued", "running"]);
live.on("fragment", () => {
  if (!open.has(document.getElementById("replay-head").dataset.state)) location.reload();
});
