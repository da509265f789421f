/**
 * Forms that need the person to show once more that it is them: sent as soon as they have, in place. Beside `#portal` and
 * `#status` (see `page.js`) the page holds
 *
 *   <form data-step-up> or, where the service has just said that it is needed, <form data-step-up="always">
 *   <div id="wallets" hidden>, <button id="switch-chain" hidden> (see `wallet-page.js`)
 *
 * Without this script such a form is sent as it is, and the service answers with what it needs.
 */
import { describe, jsonBlock, onClick, reloadWhenBack, say } from "./page.js";
import { showPresence } from "./presence.js";
import { offerSwitch } from "./wallet-page.js";

const portal = jsonBlock("portal");
const status = document.getElementById("status");

async function send(button) {
  const form = /** @type {HTMLFormElement} */ (button.form);
  try {
    await showPresence(portal, status, { always: form.dataset.stepUp === "always" });
    form.submit();
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
    offerSwitch(portal, error, status);
  }
}

onClick(document.querySelectorAll("form[data-step-up] button[type=submit]"), send);
reloadWhenBack();
