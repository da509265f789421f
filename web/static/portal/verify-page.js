/**
 * The public page that checks receipts and proofs. What is opened stays in the browser. Beside `#portal` (see `page.js`)
 * it holds
 *
 *   <script type="application/json" id="jwks">   the custodian's public keys
 *   <form id="verify"> with a textarea `receipt`, a file input `file` and a submit button
 *   <p id="status" role="status">, <ul id="checks">, <pre id="claims">
 */
import { PortalError } from "./errors.js";
import { describe, jsonBlock, say, textOf } from "./page.js";
import { verify } from "./receipt.js";

const portal = jsonBlock("portal");
const byId = (id) => /** @type {any} */ (document.getElementById(id));
const form = byId("verify");
const { receipt, file } = form.elements;

async function show() {
  byId("checks").replaceChildren();
  byId("claims").textContent = "";
  try {
    if (!receipt.value.trim()) throw new PortalError("receipt_not_one");
    const { claims, checks, verdict } = await verify(receipt.value, jsonBlock("jwks"), portal);
    const kind = { good: "done", bad: "error", undecided: "warning" }[verdict];
    say(byId("status"), textOf(portal.texts, `receipt_${verdict}`), kind);
    byId("checks").replaceChildren(...checks.map(item));
    byId("claims").textContent = JSON.stringify(claims, null, 2);
  } catch (error) {
    say(byId("status"), describe(portal.texts, error), "error");
  }
}

function item({ name, good }) {
  const line = document.createElement("li");
  const ending = { true: "", false: "_bad", contract: "_contract" }[String(good)];
  line.textContent = textOf(portal.texts, `receipt_${name}${ending}`);
  line.dataset.good = String(good);
  return line;
}

form.addEventListener("submit", (event) => {
  // Nothing is sent: the form has no address, and this stops it in any case.
  event.preventDefault();
  show();
});
file?.addEventListener("change", async () => {
  receipt.value = (await file.files[0]?.text()) ?? "";
  await show();
});
