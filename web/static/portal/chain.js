/**
 * What the chain says, asked by JSON-RPC: through this service (`POST /rpc`) or, to ask without it, through the wallet.
 * Anything that is not an answer of the contract throws `chain_unreachable`.
 */
import { PortalError } from "./errors.js";
import { keccakOf } from "./typed.js";

/** @typedef {(method: string, params: unknown[]) => Promise<any>} Rpc */

export const STATES = ["unknown", "active", "paused", "revoked"];
export const ENTRY_EVENTS = {
  [keccakOf("AccessRecorded(bytes32,bytes32)")]: "recorded",
  [keccakOf("AccessRefused(bytes32,bytes32,uint8)")]: "refused",
  [keccakOf("AccessLate(bytes32,bytes32,uint8)")]: "late",
};
/** Of as many consents as one signature can stop, and for as long as is waited, these are within the service's limit. */
const SIDE_BY_SIDE = 4;
const CONSENT_OF = keccakOf("consentOf(bytes32)").slice(0, 10);

/** By way of this service. @returns {Rpc} */
export function serviceRpc(send = fetch, url = "/rpc") {
  let id = 0;
  return async (method, params) => {
    const mine = (id += 1);
    const token = globalThis.document?.querySelector('meta[name="csrf-token"]')?.getAttribute("content") ?? "";
    let answer;
    try {
      const response = await send(url, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
        body: JSON.stringify({ jsonrpc: "2.0", id: mine, method, params }),
        signal: AbortSignal.timeout(15_000),
      });
      answer = await response.json();
    } catch (cause) {
      throw new PortalError("chain_unreachable", { cause });
    }
    if (answer.error || answer.id !== mine || !("result" in answer)) throw new PortalError("chain_unreachable");
    return answer.result;
  };
}

/** By way of a wallet. @param {import("./wallet.js").Provider} provider @returns {Rpc} */
export function walletRpc(provider) {
  return async (method, params) => {
    try {
      return await provider.request({ method, params });
    } catch (cause) {
      throw new PortalError("chain_unreachable", { cause });
    }
  };
}

/**
 * The state of a consent on chain.
 * @param {Rpc} rpc @param {{chainId: number, contract: string}} domain @param {string} consentId
 */
export async function consentOn(rpc, domain, consentId) {
  await requireChain(rpc, domain);
  return slotOf(rpc, domain, consentId);
}

async function requireChain(rpc, { chainId }) {
  if (Number(await rpc("eth_chainId", [])) !== chainId) throw new PortalError("wallet_wrong_chain");
}

async function slotOf(rpc, { contract }, consentId) {
  const data = CONSENT_OF + consentId.slice(2);
  const answer = await rpc("eth_call", [{ to: contract, data }, "latest"]);
  const words = typeof answer === "string" ? (answer.slice(2).match(/[0-9a-f]{64}/gi) ?? []) : [];
  const [validFrom, expiresAt, maxAccesses, accesses, , pauseSequence, state] = words.map((word) => Number(`0x${word}`));
  if (words.length !== 7 || STATES[state] === undefined) throw new PortalError("chain_unreachable");
  return { validFrom, expiresAt, maxAccesses, accesses, pauseSequence, state: STATES[state] };
}

/**
 * Wait until the chain says of every consent that it is in one of the `states`. Those of a transaction get there at
 * once, so only the first few are asked for until they are: the service answers no more than so many questions a minute.
 * @param {Rpc} rpc @param {{chainId: number, contract: string}} domain @param {string[]} ids @param {string[]} states
 * @returns {Promise<boolean>} false if it did not within the time
 */
export async function untilState(rpc, domain, ids, states, { seconds = 30, pause = later } = {}) {
  let waiting = [...ids];
  for (let asked = 0; asked <= seconds; asked += 1) {
    await requireChain(rpc, domain);
    let behind = [];
    while (waiting.length > 0 && behind.length === 0) {
      const first = waiting.slice(0, SIDE_BY_SIDE);
      const found = await Promise.all(first.map((id) => slotOf(rpc, domain, id)));
      behind = first.filter((_, at) => !states.includes(found[at].state));
      waiting = waiting.slice(SIDE_BY_SIDE);
    }
    waiting = [...behind, ...waiting];
    if (waiting.length === 0) return true;
    if (asked < seconds) await pause(1000);
  }
  return false;
}

/** @param {number} milliseconds */
export const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
