/* What pages without a reader start: sign-in, errors. */

import * as forms from "./forms.js";
import * as theme from "./theme.js";

theme.start();
forms.start();
