/* The translated words that scripts need; the base template holds them. */

const words = document.getElementById("strings").dataset;

export const language = document.documentElement.lang || "en";

export function say(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
