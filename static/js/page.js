/* What every page of a signed-in reader starts. */

import * as confirm from "./confirm.js";
import * as forms from "./forms.js";
import * as live from "./live.js";
import * as menu from "./menu.js";
import * as refresh from "./refresh.js";
import * as theme from "./theme.js";
import * as time from "./time.js";

theme.start();
time.start();
menu.start();
confirm.start();
forms.start();
if (document.querySelector("[data-refresh]")) refresh.start(live);

/* By then the page's own scripts have said what they listen to. */
addEventListener("DOMContentLoaded", () => document.body.dataset.live && live.start(document.body.dataset.live));
