/**
 * Wallets: found by EIP-6963, spoken to by EIP-1193. Each way in which a wallet can say no has a code of its own.
 */
import { toHex, utf8 } from "./bytes.js";
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { post } from "./page.js";
import { signerOf } from "./sign.js";
import { digestOf } from "./typed.js";

/** @typedef {{request: (call: {method: string, params?: unknown}) => Promise<any>}} Provider */
/** @typedef {{info: {uuid: string, name: string, rdns: string, icon?: string}, provider: Provider}} Wallet */

const ANSWER_MILLISECONDS = 150;
// EIP-1193 and EIP-1474.
const CODES = { 4001: "wallet_rejected", 4100: "wallet_locked", 4900: "wallet_disconnected", 4901: "wallet_wrong_chain" };
const PENDING = -32002;
const UNKNOWN_CHAIN = 4902;

/**
 * The wallets that announce themselves, else the one that a browser put at `window.ethereum`.
 * @param {Window & typeof globalThis} [on] @param {number} [wait] milliseconds
 * @returns {Promise<Wallet[]>}
 */
export async function discover(on = window, wait = ANSWER_MILLISECONDS) {
  /** @type {Map<string, Wallet>} */
  const found = new Map();
  const hear = (event) => {
    const { info, provider } = event.detail ?? {};
    if (info?.uuid && typeof provider?.request === "function") found.set(info.uuid, { info, provider });
  };
  on.addEventListener("eip6963:announceProvider", hear);
  on.dispatchEvent(new Event("eip6963:requestProvider"));
  await new Promise((done) => setTimeout(done, wait));
  on.removeEventListener("eip6963:announceProvider", hear);
  const legacy = on.ethereum;
  if (found.size === 0 && typeof legacy?.request === "function") {
    found.set("legacy", { info: { uuid: "legacy", name: "Ethereum", rdns: "" }, provider: legacy });
  }
  return [...found.values()];
}

/**
 * An account of the wallet, on the right chain. Throws `wallet_missing`, `wallet_rejected`, `wallet_wrong_account`,
 * `wallet_wrong_chain`.
 * @param {Provider | undefined} provider
 * @param {{chainId: number, accounts?: string[]}} wanted `accounts`: one of these, where it matters
 * @returns {Promise<string>} in checksum form
 */
export async function connect(provider, { chainId, accounts }) {
  if (!provider) throw new PortalError("wallet_missing");
  const given = (await call(provider, "eth_requestAccounts")) ?? [];
  const all = given.filter((one) => /^0x[0-9a-f]{40}$/i.test(one)).map(checksummed);
  if (all.length === 0) throw new PortalError("wallet_locked");
  const account = accounts ? all.find((one) => accounts.map(checksummed).includes(one)) : all[0];
  if (!account) {
    throw new PortalError("wallet_wrong_account", { field: accounts?.join(", "), detail: all[0] });
  }
  if (Number(await call(provider, "eth_chainId")) !== chainId) throw new PortalError("wallet_wrong_chain");
  return account;
}

/**
 * Ask the wallet to change to a chain. Throws `wallet_unknown_chain` if it does not know it.
 * @param {Provider} provider @param {number} chainId
 */
export async function switchChain(provider, chainId) {
  await call(provider, "wallet_switchEthereumChain", [{ chainId: `0x${chainId.toString(16)}` }]);
  if (Number(await call(provider, "eth_chainId")) !== chainId) throw new PortalError("wallet_wrong_chain");
}

/**
 * Have typed data signed (`eth_signTypedData_v4`). A plain account's signature is checked here; a smart account's can
 * only be asked on chain, which the service does.
 * @param {Provider} provider @param {string} account @param {import("./typed.js").TypedData} typedData
 * @returns {Promise<string>}
 */
export async function signTypedData(provider, account, typedData) {
  const digest = digestOf(typedData);
  const signature = await call(provider, "eth_signTypedData_v4", [account, JSON.stringify(typedData)]);
  if (!/^0x(?:[0-9a-f]{2})+$/i.test(signature)) throw new PortalError("bad_signature");
  if (signature.length !== 132 || (await isContract(provider, account))) return signature;
  if (signerOf(digest, canonical(signature)) !== account) {
    throw new PortalError("wallet_wrong_account", { field: account });
  }
  return canonical(signature);
}

/**
 * Sign in, enrol, step up or link, by a text that the service made and keeps (ERC-4361).
 * @param {Provider | undefined} provider
 * @param {{use: "enrol" | "sign-in" | "step-up" | "link", chainId: number, code?: string, accounts?: string[], next?: string}} given
 * @returns {Promise<any>} the service's answer
 */
export async function prove(provider, { use, chainId, code, accounts, next }, deps = { post }) {
  const address = await connect(provider, { chainId, accounts });
  const { text } = await deps.post("/auth/wallet/challenge", { address, chainId, use, ...(code ? { code } : {}) });
  requireOurSite(text, address);
  const signature = await call(/** @type {Provider} */ (provider), "personal_sign", [toHex(utf8(text)), address]);
  return deps.post("/auth/wallet", { signature: canonical(signature), ...(next ? { next } : {}) });
}

/**
 * Some wallets write the recovery id as 0 or 1 instead of 27 or 28. What is longer or shorter is a smart account's own.
 * @param {string} signature
 */
function canonical(signature) {
  if (signature.length !== 132) return signature;
  return signature.toLowerCase().replace(/0([01])$/, (_, id) => (id === "0" ? "1b" : "1c"));
}

// A person who signs for another site by mistake would let it in here.
function requireOurSite(text, address) {
  const [first, second] = String(text).split("\n");
  const domain = globalThis.location?.host;
  if (domain && (!first.startsWith(`${domain} `) || second !== address)) throw new PortalError("wallet_text_foreign");
}

async function isContract(provider, account) {
  try {
    return (await provider.request({ method: "eth_getCode", params: [account, "latest"] })).length > 2;
  } catch {
    return false;
  }
}

/** @param {Provider} provider @param {string} method @param {unknown} [params] */
async function call(provider, method, params) {
  try {
    return await provider.request(params === undefined ? { method } : { method, params });
  } catch (cause) {
    const code = cause?.code ?? cause?.data?.originalError?.code;
    if (method === "wallet_switchEthereumChain" && code === UNKNOWN_CHAIN) {
      throw new PortalError("wallet_unknown_chain", { cause });
    }
    throw new PortalError(code === PENDING ? "wallet_busy" : (CODES[code] ?? "wallet_failed"), { cause });
  }
}
