/**
 * Granting what a consent request asks for, or less. What the page holds is in `grant-page.js`.
 *
 *   (1) who signs: one touch of a passkey (which is also the step-up), or the wallet
 *   (2) the draft comes from the service and must be, field by field, what was chosen
 *   (3) the person sees what is signed, made from the typed data, with its digest, and signs
 *   (4) the signed grant is kept in this tab until its outcome is known, so that it is never signed twice
 *   (5) the service answers; the chain is asked whether the consent stands there, and is what was signed
 */
import { consentOn, later } from "./chain.js";
import { PortalError } from "./errors.js";
import { perDay, requireMatch, requireWithin } from "./terms.js";
import { digestOf } from "./typed.js";

const KEPT_PREFIX = "consent-ledger/signed-grant/";
const RETRY_AFTER = [1000, 3000, 9000];
// No answer, or one that says that the grant is on file and will be relayed: the same signed grant goes on.
const UNDECIDED = ["network_lost", "step_up_required", "sign_in_required", "rate_limited"];
const STANDS_ALREADY = "already_granted";

/**
 * @typedef {{
 *   post: (url: string, body: unknown) => Promise<any>,
 *   rpc: import("./chain.js").Rpc,
 *   storage: Storage,
 *   now: () => number,
 *   pause?: (milliseconds: number) => Promise<unknown>,
 * }} Deps `now` in Unix seconds
 * @typedef {{consentId: string, onChain: "yes" | "pending" | "revoked" | "unknown", blockNumber: number | null,
 *   milliseconds: number | null}} Outcome
 */

/**
 * (1) to (3): returns what was signed, which is then kept, or null if the person did not sign.
 * @param {import("./terms.js").AskedFor} asked @param {import("./terms.js").Choices} choices
 * @param {import("./terms.js").Place} place @param {import("./signer.js").Signer} signer
 * @param {(typedData: import("./typed.js").TypedData, digest: string) => Promise<boolean>} confirm shows it
 * @param {Deps} deps
 */
export async function signGrant(asked, choices, place, signer, confirm, deps) {
  requireWithin(asked, choices);
  const subject = await signer.account(asked.institution);
  const { attributes, maxAccesses, retentionDays, validityDays } = choices;
  const limits = { maxAccesses, accessesPerDay: perDay(choices), retentionDays, validityDays };
  const draft = await deps.post(`/requests/${asked.token}/draft`, { subject, attributes, ...limits });
  const { typedData, consentId } = draft;
  requireMatch(typedData, asked, choices, { ...place, subject, now: deps.now() });
  const digest = digestOf(typedData);
  if (digest !== consentId) throw new PortalError("draft_differs", { field: "consentId" });
  if (!(await confirm(typedData, digest))) return null;
  const signed = { grant: typedData.message, signature: await signer.sign(typedData, asked.institution), consentId };
  deps.storage.setItem(KEPT_PREFIX + asked.token, JSON.stringify(signed));
  return signed;
}

/** What was signed for this request in this tab and has no known outcome, or null. @param {string} token */
export function keptGrant(storage, token) {
  try {
    return JSON.parse(storage.getItem(KEPT_PREFIX + token) ?? "null");
  } catch {
    return null;
  }
}

/**
 * (4) and (5): hand in what was signed, again if no answer comes. While the outcome is not known it stays kept.
 * @param {string} token @param {import("./terms.js").Place} place @param {Deps} deps
 * @returns {Promise<Outcome>}
 */
export async function handIn(token, place, deps) {
  const signed = keptGrant(deps.storage, token);
  if (!signed) throw new PortalError("nothing_signed");
  const started = Date.now();
  let answer;
  try {
    answer = await withRetries(() => deps.post(`/requests/${token}/accept`, pick(signed)), deps.pause ?? later);
  } catch (error) {
    if (error.code === STANDS_ALREADY) answer = { consentId: signed.consentId };
    else {
      const undecided = UNDECIDED.includes(error.code) || (error.status ?? 0) >= 500;
      if (!undecided) deps.storage.removeItem(KEPT_PREFIX + token);
      throw error;
    }
  }
  if (answer.consentId !== signed.consentId) throw new PortalError("answer_differs", { field: "consentId" });
  const onChain = await standing(signed, place, deps.rpc);
  deps.storage.removeItem(KEPT_PREFIX + token);
  const { blockNumber = null, milliseconds = Date.now() - started } = answer;
  return { consentId: signed.consentId, onChain, blockNumber, milliseconds };
}

/** Throws `chain_differs` if another consent than the signed one stands under this id, which cannot be. */
async function standing({ grant, consentId }, place, rpc) {
  let found;
  try {
    found = await consentOn(rpc, place, consentId);
  } catch {
    return "unknown";
  }
  if (found.state === "unknown") return "pending";
  if (found.state === "revoked") return "revoked";
  for (const field of ["validFrom", "expiresAt", "maxAccesses"]) {
    if (found[field] !== grant[field]) throw new PortalError("chain_differs", { field });
  }
  return "yes";
}

async function withRetries(send, pause) {
  for (const wait of RETRY_AFTER) {
    try {
      return await send();
    } catch (error) {
      if (error.code !== "network_lost") throw error;
      await pause(wait);
    }
  }
  return send();
}

const pick = ({ grant, signature }) => ({ grant, signature });
