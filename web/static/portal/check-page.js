/**
 * The page of one access. Beside `#portal` (see `page.js`) it holds
 *
 *   <script type="application/json" id="access">   an `Access` of `check.js`
 *   <button id="check">                            asks the chain through this service
 *   <button id="check-by-wallet" hidden>           shown where there is a wallet: asks through it
 *   <p id="check-status" role="status">
 *   <code id="check-hash">                         the hash that the opening makes here
 */
import { checkAccess, entryHashOf } from "./check.js";
import { serviceRpc, walletRpc } from "./chain.js";
import { describe, jsonBlock, onClick, say, textOf } from "./page.js";
import { discover } from "./wallet.js";

const portal = jsonBlock("portal");
const access = jsonBlock("access");
const status = document.getElementById("check-status");
const buttons = ["check", "check-by-wallet"].map((id) => /** @type {any} */ (document.getElementById(id)));
const time = new Intl.DateTimeFormat(portal.locale, { dateStyle: "long", timeStyle: "long" });

async function check(rpc) {
  say(status, textOf(portal.texts, "check_asking"));
  try {
    const found = await checkAccess(access, rpc);
    say(status, textOf(portal.texts, "check_same", { ...found, time: time.format(found.timestamp * 1000) }), "done");
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
  }
}

if (access) {
  const place = document.getElementById("check-hash");
  if (place) place.textContent = entryHashOf(access.entry);
  onClick(buttons.filter(Boolean), async (button) => {
    await check(button.id === "check" ? serviceRpc() : walletRpc((await discover())[0].provider));
  });
  if (buttons[1]) buttons[1].hidden = (await discover()).length === 0;
}
