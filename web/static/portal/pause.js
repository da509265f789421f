/** Pausing and resuming one consent. As `revoke.js`; a pause is effective in the service at once, a resume on chain. */
import { untilState } from "./chain.js";
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { requireSame } from "./signed.js";
import { typedDataOf } from "./typed.js";

/**
 * @param {{id: string, subject: string, institution: string}} consent as the page shows it @param {boolean} paused
 * @param {import("./terms.js").Place} place @param {() => Promise<import("./signer.js").Signer[]>} signers
 * @param {{post: (url: string, body: unknown) => Promise<any>, rpc: import("./chain.js").Rpc,
 *   pause?: (milliseconds: number) => Promise<unknown>, sending?: () => void}} deps
 * @returns {Promise<{onChain: "yes" | "pending" | "unknown", milliseconds: number}>}
 */
export async function setPaused(consent, paused, place, signers, deps) {
  const started = Date.now();
  const { typedData } = await deps.post(`/consents/${consent.id}/pause-draft`, { paused });
  const sequence = typedData?.message?.sequence;
  if (!Number.isSafeInteger(sequence) || sequence < 1) throw new PortalError("draft_differs", { field: "sequence" });
  requireSame(typedData, typedDataOf("ConsentPause", place, { consentId: consent.id, paused, sequence }));
  const able = await signers();
  let signature;
  try {
    for (const signer of able) {
      if ((await signer.account(consent.institution)) !== checksummed(consent.subject)) continue;
      signature = await signer.sign(typedData, consent.institution);
    }
  } finally {
    for (const signer of able) signer.forget();
  }
  if (!signature) throw new PortalError("no_key_for_these");
  deps.sending?.();
  await deps.post(`/consents/${consent.id}/pause`, { paused, sequence, signature });
  const states = [paused ? "paused" : "active"];
  let onChain = "unknown";
  try {
    const there = await untilState(deps.rpc, place, [consent.id], states, deps.pause ? { pause: deps.pause } : {});
    onChain = there ? "yes" : "pending";
  } catch {
    // What is known is that the service has it.
  }
  return { onChain, milliseconds: Date.now() - started };
}
