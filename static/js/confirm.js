/* Asks again before what can't be undone. Without this script the form is sent at once, by a button that says what it does. */

const dialog = document.getElementById("confirm");
const sure = new WeakSet();

async function ask({ confirm, confirmText, confirmYes }) {
  dialog.querySelector("h2").textContent = confirm;
  dialog.querySelector("p").textContent = confirmText;
  dialog.querySelector("[value=yes]").textContent = confirmYes;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "yes";
}

export function start() {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.confirm || sure.has(form)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!(await ask(form.dataset)) || !form.isConnected) return;
    sure.add(form);
    form.requestSubmit();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close("no"));
}
