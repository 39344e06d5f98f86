/* The new-job page: a share means nothing without a GPU. */

const form = document.getElementById("job-form");
const gpus = form.elements.gpus;
const share = form.elements.share;

function agree() {
  share.readOnly = gpus.value === "0";
}

gpus.addEventListener("input", agree);
agree();
