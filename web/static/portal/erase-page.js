/**
 * The page that erases: the form is sent once the person has shown again that it is them. Beside `#portal` and `#status`
 * (see `page.js`) it holds <form id="erase"> with its button `#erase-now`.
 */
import { describe, jsonBlock, onClick, reloadWhenBack, say, textOf } from "./page.js";
import { stepUp } from "./passkey.js";
import { chooseWallet, offerSwitch, walletStepUp } from "./wallet-page.js";

const portal = jsonBlock("portal");
const status = document.getElementById("status");
const form = /** @type {HTMLFormElement} */ (document.getElementById("erase"));

async function erase() {
  try {
    if ((portal.stepUpUntil ?? 0) <= Date.now() / 1000) {
      say(status, textOf(portal.texts, portal.passkey ? "touch_passkey" : "look_at_wallet"));
      if (portal.passkey) (await stepUp()).root?.fill(0);
      else await walletStepUp(portal, await chooseWallet());
    }
    form.submit();
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
    offerSwitch(portal, error, status);
  }
}

onClick([/** @type {HTMLButtonElement} */ (document.getElementById("erase-now"))], erase);
reloadWhenBack();
