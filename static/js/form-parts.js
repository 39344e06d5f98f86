/* Shows of the form only what belongs to what was chosen. */

const form = document.querySelector("form.form");

function look() {
  for (const part of form.querySelectorAll("[data-when]")) {
    const [name, value] = part.dataset.when.split("=");
    part.hidden = form.elements[name].value !== value;
  }
}

form.addEventListener("change", look);
look();
