/* Looks every three seconds whether the server is whole again, and then shows the page that was asked for. */

const EVERY_MS = 3000;

async function look() {
  const response = await fetch(location.href, { redirect: "manual", cache: "no-store" }).catch(() => null);
  if (response && response.status !== 503 && response.status !== 502) location.replace(location.href);
  else setTimeout(look, EVERY_MS);
}

setTimeout(look, EVERY_MS);
