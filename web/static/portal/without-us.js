/** What the contract is sent to end consents, and asked to tell where one stands. Pure. */
import { keccakOf, structHash } from "./typed.js";

const REVOKE = keccakOf("revoke((bytes32,address,address,uint64,uint64,uint32)[],bytes)").slice(0, 10);
const CONSENT_OF = keccakOf("consentOf(bytes32)").slice(0, 10);
const WORD = 32;
const GRANT_WORDS = 6;

const number = (value) => BigInt(value).toString(16).padStart(64, "0");
const address = (value) => value.slice(2).toLowerCase().padStart(64, "0");

/**
 * The call that ends these, as `ledger/contract.py` `revoke_call`. Without a signature ("0x") it must be sent by the
 * subject's own account; with one by anybody.
 * @param {any[]} grants as they were signed @param {string} signature
 */
export function revokeCall(grants, signature) {
  const bytes = signature.slice(2);
  return [
    REVOKE,
    number(2 * WORD),
    number((3 + GRANT_WORDS * grants.length) * WORD),
    number(grants.length),
    ...grants.flatMap((grant) => [
      structHash("Terms", grant.terms).slice(2),
      address(grant.subject),
      address(grant.custodian),
      number(grant.validFrom),
      number(grant.expiresAt),
      number(grant.maxAccesses),
    ]),
    number(bytes.length / 2),
    bytes.padEnd(Math.ceil(bytes.length / 64) * 64, "0"),
  ].join("");
}

/** The question for where a consent stands. @param {string} consentId */
export const stateCall = (consentId) => CONSENT_OF + consentId.slice(2);
