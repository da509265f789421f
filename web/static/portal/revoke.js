/**
 * Stopping consents: one click, and one touch or one prompt for each account that granted.
 *
 *   (1) the service says which consents they are, in groups: one for each account that granted, one signature each
 *   (2) nothing else than what was asked to be stopped is in them, and each is exactly a revocation of its consents
 *   (3) each group is signed by the account that granted; what no key at hand granted is left to the custodian's stop
 *   (4) the service answers, and it is shown as stopped only when the chain says so
 */
import { untilState } from "./chain.js";
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { requireSame } from "./signed.js";
import { typedDataOf } from "./typed.js";

/**
 * @typedef {{institution: string, subject: string, consents: string[], typedData: any}} Group
 * @typedef {{revoked: string[], unsigned: string[], onChain: "yes" | "pending" | "unknown", milliseconds: number}} Stopped
 *   `unsigned`: consents that an account granted whose key is not at hand, or whose signature the service did not take
 */

/**
 * @param {string[] | "all"} consents @param {import("./terms.js").Place} place
 * @param {(groups: Group[]) => Promise<import("./signer.js").Signer[]>} signers who can sign, asked for once
 * @param {{post: (url: string, body: unknown) => Promise<any>, rpc: import("./chain.js").Rpc,
 *   pause?: (milliseconds: number) => Promise<unknown>, sending?: () => void}} deps
 * @returns {Promise<Stopped>}
 */
export async function revoke(consents, place, signers, deps) {
  const started = Date.now();
  const { groups } = await deps.post("/consents/revocations", { consents });
  for (const group of groups) requireRevocation(group, consents, place);
  const able = await signers(groups);
  const revocations = [];
  const unsigned = [];
  try {
    for (const group of groups) {
      const signer = await signerFor(group, able);
      if (!signer) unsigned.push(...group.consents);
      else {
        const signature = await signer.sign(group.typedData, group.institution);
        revocations.push({ consents: group.consents, signature });
      }
    }
  } finally {
    for (const signer of able) signer.forget();
  }
  if (revocations.length === 0) throw new PortalError(groups.length ? "no_key_for_these" : "nothing_to_stop");
  deps.sending?.();
  const { results } = await deps.post("/consents/revoke", { revocations });
  const revoked = results.flatMap((result) => result.consents);
  unsigned.push(...revocations.flatMap(({ consents }) => consents).filter((id) => !revoked.includes(id)));
  const onChain = await ended(revoked, place, deps);
  return { revoked, unsigned, onChain, milliseconds: Date.now() - started };
}

/** Throws `draft_differs`. @param {Group} group @param {string[] | "all"} asked */
export function requireRevocation(group, asked, place) {
  const { consents, typedData } = group;
  if (consents.length === 0 || new Set(consents).size !== consents.length) differ("consents");
  if (asked !== "all" && !consents.every((id) => asked.includes(id))) differ("consents");
  requireSame(typedData, typedDataOf("ConsentRevocation", place, { consentIds: consents }));
}

async function signerFor({ subject, institution }, signers) {
  for (const signer of signers) if ((await signer.account(institution)) === checksummed(subject)) return signer;
  return null;
}

async function ended(ids, place, { rpc, pause }) {
  try {
    return (await untilState(rpc, place, ids, ["revoked"], pause ? { pause } : {})) ? "yes" : "pending";
  } catch {
    return "unknown";
  }
}

/** @returns {never} */
function differ(field) {
  throw new PortalError("draft_differs", { field });
}
