/** What pages share about wallets: which one, its linked account, and the way out if it is on another chain. */
import { PortalError } from "./errors.js";
import { describe, say, textOf } from "./page.js";
import { walletSigner } from "./signer.js";
import { discover, prove, switchChain } from "./wallet.js";

/** @type {import("./wallet.js").Provider | undefined} */
let chosen;

/**
 * The wallet to use: the only one, or the one that the person picks in `#wallets`.
 * @returns {Promise<import("./wallet.js").Provider>}
 */
export async function chooseWallet() {
  if (chosen) return chosen;
  const found = await discover();
  if (found.length === 0) throw new PortalError("wallet_missing");
  const place = document.getElementById("wallets");
  chosen = found.length === 1 || !place ? found[0].provider : await picked(found, place);
  return chosen;
}

function picked(found, place) {
  return new Promise((done) => {
    const buttons = found.map(({ info, provider }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = info.name;
      button.addEventListener("click", () => {
        place.hidden = true;
        done(provider);
      });
      return button;
    });
    place.querySelectorAll("button").forEach((old) => old.remove());
    place.append(...buttons);
    place.hidden = false;
    buttons[0].focus();
  });
}

/** Signs with a linked account; proves presence first if that is too long ago. */
export async function connectedSigner(portal) {
  if (portal.wallets.length === 0) throw new PortalError("wallet_not_linked");
  const provider = await chooseWallet();
  const signer = await walletSigner(provider, portal, portal.wallets);
  if ((portal.stepUpUntil ?? 0) <= Date.now() / 1000) await walletStepUp(portal, provider);
  return signer;
}

/** Prove presence with a linked account. @param {import("./wallet.js").Provider} provider */
export async function walletStepUp(portal, provider) {
  await prove(provider, { use: "step-up", chainId: portal.chainId, accounts: portal.wallets });
}

/** Where the wallet is on another chain: show `#switch-chain`, which asks it to change. */
export function offerSwitch(portal, error, status) {
  const button = document.getElementById("switch-chain");
  if (!button) return;
  button.hidden = error.code !== "wallet_wrong_chain";
  button.onclick = async () => {
    try {
      await switchChain(await chooseWallet(), portal.chainId);
      button.hidden = true;
      say(status, textOf(portal.texts, "wallet_switched"));
    } catch (failed) {
      say(status, describe(portal.texts, failed), "error");
    }
  };
}
