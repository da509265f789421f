/**
 * Receipts and proofs, checked here and sent nowhere: whoever has one can show that it is genuine, without this service.
 *
 *   custodian    the JWS (ES256) is by the custodian's key
 *   consent      the consent's id is the EIP-712 digest of the grant in the receipt
 *   subject      the grant, and the revocation if there is one, is signed by the account that it names
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
  "erasure-proof+jwt": "erasure",
  "access-receipt+jwt": "access",
};
const MAX_LENGTH = 1_000_000;
const COUNTED = /^[a-zA-Z]+Destroyed$/;

/**
 * Throws `receipt_not_one` for what is none of ours.
 * @param {string} text a compact JWS, or JSON that has one as `receipt`, `proof` or `jws`
 * @param {{keys: any[]}} jwks the custodian's
 * @returns {Promise<{kind: string, claims: any, checks: Check[], verdict: "good" | "bad" | "undecided"}>}
 */
export async function verify(text, jwks) {
  const { header, claims, signature, signed } = parse(text);
  const kind = KINDS[header.typ];
  if (!kind) throw new PortalError("receipt_not_one", { field: "typ" });
  const checks = [{ name: "custodian", good: await byCustodian(header, signature, signed, jwks) }];
  if (kind === "consent") checks.push(...ofConsent(claims));
  if (kind === "access") checks.push({ name: "entry", good: passes(() => entryHashOf(claims.entry) === claims.entryHash) });
  if (kind === "erasure") checks.push({ name: "impersonal", good: impersonal(claims) });
  const verdict = checks.some(({ good }) => good === false) ? "bad" : undefined;
  return { kind, claims, checks, verdict: verdict ?? (checks.every(({ good }) => good === true) ? "good" : "undecided") };
}

function ofConsent({ consent, grant, signature, domain, revocation }) {
  const where = { chainId: domain?.chainId, contract: domain?.verifyingContract };
  const granted = typedDataOf("ConsentGrant", where, grant);
  const checks = [
    { name: "consent", good: passes(() => digestOf(granted) === consent) },
    { name: "subject", good: signedBy(granted, signature, grant?.subject) },
  ];
  if (revocation) {
    const revoked = typedDataOf("ConsentRevocation", where, { consentIds: revocation.consents });
    const named = passes(() => revocation.consents.includes(consent));
    checks.push({ name: "revocation", good: named && signedBy(revoked, revocation.signature, grant?.subject) });
  }
  return checks;
}

function signedBy(typedData, signature, subject) {
  if (!passes(() => digestOf(typedData) && /^0x[0-9a-f]+$/i.test(signature))) return false;
  // Longer or shorter than an account's: only a contract can have taken it.
  if (signature.length !== 132) return "contract";
  return passes(() => signerOf(digestOf(typedData), signature) === checksummed(subject));
}

function impersonal(claims) {
  const known = ["version", "iss", "iat", "writeAheadLogEmptied", "readableInBackupsUntilDestroyed"];
  return Object.entries(claims).every(
    ([name, value]) => known.includes(name) || (COUNTED.test(name) && Number.isSafeInteger(value) && value >= 0),
  );
}

async function byCustodian(header, signature, signed, { keys }) {
  if (header.alg !== "ES256") return false;
  for (const jwk of keys.filter(({ kid }) => header.kid === undefined || kid === header.kid)) {
    const { kty, crv, x, y } = jwk;
    if (kty !== "EC" || crv !== "P-256") continue;
    const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, algorithm, false, ["verify"]);
    if (await crypto.subtle.verify(algorithm, key, signature, signed)) return true;
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
