/** Showing once more that it is the person, in place, before something that needs it. */
import { say, textOf } from "./page.js";
import { stepUp } from "./passkey.js";
import { chooseWallet, walletStepUp } from "./wallet-page.js";

const DEPS = { stepUp, wallet: async (portal) => walletStepUp(portal, await chooseWallet()) };

/**
 * One touch of a passkey or one signature of a wallet, unless it was less than five minutes ago. Of both kinds the one
 * that signed in is asked for: the other may be the one that was lost.
 * @param {any} portal see `page.js` @param {Element | null} status where to say what is asked
 * @param {{always?: boolean}} [given] `always`: the service says that it is too long ago, whatever the clock here says
 */
export async function showPresence(portal, status, { always = false } = {}, deps = DEPS) {
  if (!always && (portal.stepUpUntil ?? 0) > Date.now() / 1000) return;
  const byWallet = portal.wallets.length > 0 && (portal.signedInBy === "wallet" || !portal.passkey);
  say(status, textOf(portal.texts, byWallet ? "look_at_wallet" : "touch_passkey"));
  if (byWallet) await deps.wallet(portal);
  else (await deps.stepUp()).root?.fill(0);
}
