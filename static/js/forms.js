/* Small manners of forms: nothing is sent twice, the first fault gets the focus. */

const sent = new WeakSet();

export function start() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (sent.has(form)) return event.preventDefault();
    sent.add(form);
    event.submitter?.setAttribute("aria-busy", "true");
  });
  /* Back from the next page by the browser's memory: the form may be sent again. */
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.querySelector("[aria-invalid=true]")?.focus();
}
