/* Pages whose charts stand still. */

import { charts } from "./charts.js";

charts();
