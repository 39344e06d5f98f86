/* Makes an element like another without replacing it, so that focus, open details, scroll and a click under way survive. */

/* What the reader, not the server, decides. */
const KEPT = { DETAILS: ["open"], DIALOG: ["open"] };

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && (node.id || node.dataset.key)) || null;

const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

function syncAttributes(from, to) {
  const kept = KEPT[from.nodeName] || [];
  for (const { name } of [...from.attributes])
    if (!to.hasAttribute(name) && !kept.includes(name)) from.removeAttribute(name);
  for (const { name, value } of to.attributes)
    if (from.getAttribute(name) !== value && !kept.includes(name)) from.setAttribute(name, value);
}

function syncChildren(from, to) {
  const wanted = new Set([...to.childNodes].map(keyOf).filter(Boolean));
  const keyed = new Map();
  for (const child of [...from.children]) {
    const key = keyOf(child);
    if (key && !wanted.has(key)) child.remove();
    else if (key) keyed.set(key, child);
  }
  let cursor = from.firstChild;
  for (const node of [...to.childNodes]) {
    const key = keyOf(node);
    const found = key ? keyed.get(key) : cursor;
    if (found && alike(found, node) && keyOf(found) === key) {
      if (found === cursor) cursor = cursor.nextSibling;
      else from.insertBefore(found, cursor);
      morph(found, node);
    } else {
      from.insertBefore(node, cursor);
    }
  }
  while (cursor) {
    const next = cursor.nextSibling;
    cursor.remove();
    cursor = next;
  }
}

export function morph(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  syncAttributes(from, to);
  syncChildren(from, to);
}

/** Put the HTML of a fragment where the element with its id is. */
export function replace(id, html) {
  const element = document.getElementById(id);
  if (!element) return;
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = template.content.getElementById(id);
  if (!fresh) return;
  morph(element, fresh);
  window.htmx?.process(element);
  document.dispatchEvent(new CustomEvent("haein:changed", { detail: element }));
}
