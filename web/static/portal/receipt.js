/**
 * Receipts and proofs (`ledger/receipts.py`), checked here and sent nowhere: whoever has one can show that it is genuine,
 * without this service.
 *
 *   custodian    the JWS (ES256) is by the custodian's key
 *   place        it is about this chain and contract
 *   consent      the consent's id is the EIP-712 digest of the grant in the receipt
 *   subject      the grant is signed by the account that it names
 *   revocation   the revocation of exactly these consents is signed by that account, where it says that the subject did it
 *   entry        the entry's hash is the one that its opening makes (receipts of accesses)
 *   impersonal   a proof of erasure says nothing but numbers
 *
 * A smart account's signature (ERC-1271) can only be asked on chain: it is then "contract", and undecided.
 */
import { fromBase64url } from "./bytes.js";
import { PortalError } from "./errors.js";
import { entryHashOf } from "./check.js";
import { checksummed } from "./keys.js";
import { signerOf } from "./sign.js";
import { digestOf, typedDataOf } from "./typed.js";

/** @typedef {{name: string, good: boolean | "contract"}} Check */

export const KINDS = {
  "consent-receipt+jwt": "consent",
  "revocation-receipt+jwt": "revocation",
  "erasure-proof+jwt": "erasure",
  "access-receipt+jwt": "access",
};
const MAX_LENGTH = 1_000_000;
const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const BY_SUBJECT = "subject";
const COUNTED = [
  "envelopesDestroyed",
  "consentOpeningsDestroyed",
  "accessOpeningsDestroyed",
  "consentRequestsDestroyed",
  "deletionAttestationsDestroyed",
  "adverseActionsDestroyed",
  "disputesDestroyed",
  "portalAccountsDestroyed",
];

/**
 * Throws `receipt_not_one` for what is none of ours.
 * @param {string} text a compact JWS, or JSON that has one as `receipt`, `proof` or `jws`
 * @param {{keys: any[]}} jwks the custodian's @param {{chainId: number, contract: string}} place
 * @returns {Promise<{kind: string, claims: any, checks: Check[], verdict: "good" | "bad" | "undecided"}>}
 */
export async function verify(text, jwks, place) {
  const { header, claims, signature, signed } = parse(text);
  const kind = KINDS[header.typ];
  if (!kind) throw new PortalError("receipt_not_one", { field: "typ" });
  const checks = [{ name: "custodian", good: await byCustodian(header, signature, signed, jwks) }];
  if (kind === "consent") checks.push(at(claims, place), ...ofGrant(claims));
  if (kind === "revocation") checks.push(at(claims, place), ...ofRevocation(claims));
  if (kind === "access") checks.push(standsAt(claims, place), { name: "entry", good: passes(() => entryHashOf(claims.entry) === claims.entryHash) });
  if (kind === "erasure") checks.push({ name: "impersonal", good: passes(() => impersonal(claims)) });
  const verdict = checks.some(({ good }) => good === false) ? "bad" : undefined;
  return { kind, claims, checks, verdict: verdict ?? (checks.every(({ good }) => good === true) ? "good" : "undecided") };
}

function at({ domain }, place) {
  const expected = typedDataOf("ConsentRevocation", place, { consentIds: [] });
  return { name: "place", good: passes(() => digestOf({ ...expected, domain }) === digestOf(expected)) };
}

/** An access receipt has no domain of a signature: it says where the entry stands. */
function standsAt({ proof }, { chainId, contract }) {
  return { name: "place", good: proof?.chainId === chainId && proof?.contract === contract };
}

const where = (domain) => ({ chainId: domain?.chainId, contract: domain?.verifyingContract });

function ofGrant({ consent, grant, signature, domain }) {
  const granted = typedDataOf("ConsentGrant", where(domain), grant);
  return [
    { name: "consent", good: passes(() => digestOf(granted) === consent) },
    { name: "subject", good: signedBy(granted, signature, grant?.subject) },
  ];
}

function ofRevocation({ consents, subject, by, signature, domain }) {
  // By the custodian or directly on chain: then there is no signature of the subject to show.
  if (by !== BY_SUBJECT || signature === null) return [];
  const revoked = typedDataOf("ConsentRevocation", where(domain), { consentIds: consents });
  return [{ name: "revocation", good: consents?.length > 0 && signedBy(revoked, signature, subject) }];
}

function signedBy(typedData, signature, subject) {
  if (!passes(() => digestOf(typedData) && /^0x[0-9a-f]+$/i.test(signature))) return false;
  // Longer or shorter than an account's: only a contract can have taken it.
  if (signature.length !== 132) return "contract";
  return passes(() => signerOf(digestOf(typedData), signature) === checksummed(subject));
}

function impersonal(claims) {
  const { version, iss, iat, writeAheadLogEmptied, readableInBackupsUntilDestroyed: keks, ...counts } = claims;
  const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
  return (
    version === 1 &&
    /^0x[0-9a-fA-F]{40}$/.test(iss) &&
    isCount(iat) &&
    typeof writeAheadLogEmptied === "boolean" &&
    keks.every((kek) => /^kek-[0-9a-f]+$/.test(kek)) &&
    Object.keys(counts).sort().join() === [...COUNTED].sort().join() &&
    Object.values(counts).every(isCount)
  );
}

async function byCustodian(header, signature, signed, { keys }) {
  if (header.alg !== "ES256") return false;
  for (const jwk of keys.filter(({ kid }) => header.kid === undefined || kid === header.kid)) {
    const { kty, crv, x, y } = jwk;
    if (kty !== "EC" || crv !== "P-256") continue;
    try {
      const key = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, ES256, false, ["verify"]);
      if (await crypto.subtle.verify(ES256, key, signature, signed)) return true;
    } catch {
      // No point of the curve: a key of nobody.
    }
  }
  return false;
}

function parse(text) {
  try {
    const parts = compact(text.trim()).split(".");
    const [header, claims] = parts.slice(0, 2).map((part) => JSON.parse(decoder.decode(fromBase64url(part))));
    if (parts.length !== 3 || typeof claims !== "object" || claims === null) throw new Error("no JWT");
    const signed = new TextEncoder().encode(`${parts[0]}.${parts[1]}`);
    return { header, claims, signature: fromBase64url(parts[2]), signed };
  } catch (cause) {
    throw new PortalError("receipt_not_one", { cause });
  }
}

function compact(text) {
  if (text.length > MAX_LENGTH) throw new Error("too long");
  if (!text.startsWith("{")) return text;
  const { receipt, proof, jws } = JSON.parse(text);
  return receipt ?? proof ?? jws;
}

function passes(check) {
  try {
    return Boolean(check());
  } catch {
    return false;
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true });
