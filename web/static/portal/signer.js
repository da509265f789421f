/** Who signs: the keys that a passkey brings back, or a wallet. The flows need not know which. */
import { PortalError } from "./errors.js";
import { addressOf, subjectKey } from "./keys.js";
import { stepUp } from "./passkey.js";
import { signTypedData } from "./sign.js";
import * as wallet from "./wallet.js";

/**
 * @typedef {{
 *   kind: "passkey" | "wallet",
 *   account: (institution: string) => Promise<string>,
 *   sign: (typedData: import("./typed.js").TypedData, institution: string) => Promise<string>,
 *   forget: () => void,
 * }} Signer
 */

/**
 * One touch of a passkey. Throws `prf_missing` where the passkey has no PRF, `root_missing` where it wraps no root.
 * @param {{chainId: number, contract: string}} domain
 * @returns {Promise<Signer>}
 */
export async function passkeySigner(domain, deps = { stepUp }) {
  const { root, prf } = await deps.stepUp();
  if (!root) throw new PortalError(prf ? "root_missing" : "prf_missing");
  const keyFor = (institution) => subjectKey(root, { ...domain, institution });
  return {
    kind: "passkey",
    account: async (institution) => addressOf(await keyFor(institution)),
    sign: async (typedData, institution) => signTypedData(typedData, await keyFor(institution)),
    forget: () => root.fill(0),
  };
}

/**
 * A wallet, connected to one of the person's linked accounts.
 * @param {import("./wallet.js").Provider | undefined} provider
 * @param {{chainId: number}} domain @param {string[]} accounts
 * @returns {Promise<Signer>}
 */
export async function walletSigner(provider, domain, accounts) {
  const account = await wallet.connect(provider, { chainId: domain.chainId, accounts });
  return {
    kind: "wallet",
    account: async () => account,
    sign: (typedData) => wallet.signTypedData(provider, account, typedData),
    forget: () => {},
  };
}
