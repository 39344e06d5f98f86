/* The switch between light, dark and the system's theme. */

import { say } from "./strings.js";

const ORDER = ["system", "light", "dark"];
const LABELS = { system: "themeSystem", light: "themeLight", dark: "themeDark" };
const root = document.documentElement;

const current = () => root.dataset.theme || "system";

function label(button) {
  button.querySelector("span").textContent = say(LABELS[current()]);
}

function choose(theme) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("haein-theme");
    else localStorage.setItem("haein-theme", theme);
  } catch {
    /* It then lasts as long as the page. */
  }
  document.dispatchEvent(new CustomEvent("haein:theme"));
}

export function start() {
  for (const button of document.querySelectorAll("[data-theme-switch]")) {
    button.hidden = false;
    label(button);
    button.addEventListener("click", () => {
      choose(ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length]);
      label(button);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("haein:theme")),
  );
}
