/**
 * The page of a consent request. It holds, beside `#portal` (see `page.js`):
 *
 *   <script type="application/json" id="request">   what is asked for, an `AskedFor` of `terms.js`
 *   <form id="answer">                              checkboxes `attributes` (optional ones), numbers `maxAccesses`,
 *                                                   `accessesPerDay`, `retentionDays`, `validityDays`; what a form does
 *                                                   not have is taken as it was asked for
 *     <button data-accept="passkey">, <button data-accept="wallet">
 *   <p id="status" role="status">
 *   <div id="wallets" hidden>                       where a wallet is chosen if there are several
 *   <button id="send-again" hidden>                 signed in this tab, and no answer came
 *   <button id="switch-chain" hidden>
 *   <a id="granted" hidden>                         to the consent, once it stands
 *   <dialog id="sign">                              what is signed: `#sign-terms` and `#sign-technical` (both dl),
 *                                                   `#sign-digest`, buttons `#sign-yes` and `#sign-no`
 */
import { serviceRpc } from "./chain.js";
import { PortalError } from "./errors.js";
import { handIn, keptGrant, signGrant } from "./grant.js";
import { describe, jsonBlock, onClick, post, reloadWhenBack, say, secondsOf, textOf } from "./page.js";
import { showPresence } from "./presence.js";
import { passkeySigner } from "./signer.js";
import { rowsOf, shortDigest } from "./terms.js";
import { connectedSigner, offerSwitch } from "./wallet-page.js";

const portal = jsonBlock("portal");
const asked = jsonBlock("request");
const byId = (id) => /** @type {any} */ (document.getElementById(id));
const status = byId("status");
const now = () => Math.floor(Date.now() / 1000);
const deps = { post, rpc: serviceRpc(), storage: sessionStorage, now };
let how = "passkey";

function choices() {
  const form = byId("answer");
  const number = (name) => (form.elements[name] ? Number(form.elements[name].value) : asked[name]);
  const ticked = [...form.querySelectorAll('input[name="attributes"]:checked:not(:disabled)')].map(({ value }) => value);
  return {
    attributes: ticked.filter((name) => asked.optional.includes(name)),
    maxAccesses: number("maxAccesses"),
    accessesPerDay: number("accessesPerDay"),
    retentionDays: number("retentionDays"),
    validityDays: number("validityDays"),
  };
}

async function accept(button) {
  how = button.dataset.accept;
  let signer;
  try {
    say(status, textOf(portal.texts, how === "passkey" ? "touch_passkey" : "look_at_wallet"));
    signer = how === "passkey" ? await passkeySigner(portal) : await connectedSigner(portal);
    const signed = await signGrant(asked, choices(), portal, signer, confirm, deps);
    if (signed) await send();
    else say(status, textOf(portal.texts, "not_signed"));
  } catch (error) {
    say(status, describe(portal.texts, inItsWords(error)), "error");
    offerSwitch(portal, error, status);
    byId("send-again").hidden = !keptGrant(sessionStorage, asked.token);
  } finally {
    signer?.forget();
  }
}

/** A limit that is not within what was asked is named as its field on the page is, and the field has the focus. */
function inItsWords(error) {
  const input = error?.code === "choice_outside" ? byId("answer").elements[error.field] : null;
  const [label] = input?.labels ?? [];
  if (!label) return error;
  // A field of a closed part takes no focus.
  for (let part = input.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  input.focus();
  return new PortalError(error.code, { field: label.textContent, detail: error.detail });
}

async function send() {
  say(status, textOf(portal.texts, "sending"));
  const outcome = await handIn(asked.token, portal, deps);
  byId("send-again").hidden = true;
  // Answered: nothing is left to choose, and nothing that could be pressed once more.
  for (const id of ["answer", "choose"]) byId(id).hidden = true;
  const seconds = secondsOf(outcome);
  say(status, textOf(portal.texts, `granted_${outcome.onChain}`, { ...outcome, seconds }), "done");
  const link = byId("granted");
  link.href = `/consents/${outcome.consentId}`;
  link.hidden = false;
  link.focus();
}

/** Signed already, and no answer came: prove presence anew if that is too long ago, and send the same again. */
async function sendAgain() {
  try {
    await showPresence(portal, status);
    await send();
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
    byId("send-again").hidden = !keptGrant(sessionStorage, asked.token);
  }
}

/** Shows what is signed, made from the typed data itself. */
function confirm(typedData, digest) {
  for (const id of ["sign-terms", "sign-technical"]) byId(id).replaceChildren();
  for (const row of rowsOf(typedData, portal)) {
    const list = byId(row.technical ? "sign-technical" : "sign-terms");
    const term = list.appendChild(document.createElement("dt"));
    term.textContent = row.label;
    term.dataset.name = row.name;
    for (const value of row.values) list.appendChild(document.createElement("dd")).textContent = value;
  }
  byId("sign-digest").textContent = shortDigest(digest);
  byId("sign-digest").title = digest;
  const dialog = byId("sign");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    byId("sign-yes").onclick = () => dialog.close("yes");
    byId("sign-no").onclick = () => dialog.close("no");
    // Also when it is left with Escape.
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

reloadWhenBack();
if (byId("answer")) onClick(document.querySelectorAll("button[data-accept]"), accept);
if (byId("send-again")) {
  onClick([byId("send-again")], sendAgain);
  if (keptGrant(sessionStorage, asked.token)) {
    byId("send-again").hidden = false;
    say(status, textOf(portal.texts, "signed_before"));
  }
}
