/**
 * The keys of a person who signs in with passkeys. This comment is the specification; `tests/vectors/subject_keys.json`
 * has known answers, which `tests/test_subject_keys.py` reproduces with another library.
 *
 *   prfInput   = SHA-256("consent-ledger/v1/prf"), which is `prf.eval.first` of the passkey's WebAuthn extension `prf`.
 *   prfOutput  = the 32 bytes that the passkey answers, `prf.results.first`. They never leave the browser.
 *   root       = 32 random bytes, made in the browser with the person's first passkey.
 *   wrapKey    = HKDF-SHA-256(ikm = prfOutput, salt = "", info = "consent-ledger/v1/root-wrap", 32 bytes)
 *   wrapped    = base64url(nonce || AES-256-GCM(wrapKey, nonce, root, aad = "consent-ledger/v1/root")), where nonce is 12
 *                random bytes and the tag, 16 bytes, ends the ciphertext: 60 bytes, 80 characters, no padding.
 *   okm        = HKDF-SHA-256(ikm = root, salt = "consent-ledger/v1/subject-key",
 *                             info = chainId || "\n" || contract || "\n" || institution, 48 bytes)
 *   subjectKey = (okm as a big-endian integer mod (n - 1)) + 1, a private key of secp256k1, n being the group's order
 *                (FIPS 186-5, A.2.1: 128 bits more than needed, so that no key is likelier than another).
 *   subject    = the account of that key: the last 20 bytes of Keccak-256 of the public key, in checksum form (EIP-55).
 *
 * Text is UTF-8 and taken as it is, without normalization. `chainId` is in decimal, `contract` is 0x and 40 lower-case
 * digits, `institution` is its id as the grant names it; only the last can hold a line's end, so nothing is ambiguous.
 * HKDF is RFC 5869 (an empty salt counts as 32 zero bytes), AES-GCM is NIST SP 800-38D.
 *
 * What follows from it: each institution sees another account of the same person, on each contract and chain, and no one
 * without the root can tell that they belong together. The server holds only `wrapped`, once for each passkey, and can
 * open none of them. A further passkey wraps the same root, so each passkey alone brings back every key. With every
 * passkey lost the root is lost: what was granted can be stopped (by the custodian), nothing can be granted.
 */
import { concat, fromBase64url, toBase64url, toHex, utf8 } from "./bytes.js";
import { PortalError } from "./errors.js";
import { keccak_256, secp256k1 } from "./vendor.js";

const LABEL = "consent-ledger/v1";
const NO_SALT = new Uint8Array(0);
const NONCE_LENGTH = 12;
const ROOT_LENGTH = 32;
const WRAPPED_LENGTH = NONCE_LENGTH + ROOT_LENGTH + 16;
const ORDER = secp256k1.Point.Fn.ORDER;

/** What every passkey's PRF is asked for. @returns {Promise<Uint8Array>} */
export async function prfInput() {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", utf8(`${LABEL}/prf`)));
}

/** @returns {Uint8Array} */
export const newRoot = () => crypto.getRandomValues(new Uint8Array(ROOT_LENGTH));

/**
 * The root as the server may keep it.
 * @param {Uint8Array} prfOutput
 * @param {Uint8Array} root
 * @param {Uint8Array} [nonce] for known answers only
 * @returns {Promise<string>}
 */
export async function wrapRoot(prfOutput, root, nonce = crypto.getRandomValues(new Uint8Array(NONCE_LENGTH))) {
  if (root.length !== ROOT_LENGTH) throw new PortalError("malformed", { detail: "root: expected 32 bytes" });
  const sealed = await crypto.subtle.encrypt(gcm(nonce), await wrapKey(prfOutput), root);
  return toBase64url(concat(nonce, new Uint8Array(sealed)));
}

/**
 * Throws `root_does_not_open` for another passkey's output and for anything that was altered.
 * @param {Uint8Array} prfOutput
 * @param {string} wrapped
 * @returns {Promise<Uint8Array>}
 */
export async function unwrapRoot(prfOutput, wrapped) {
  const bytes = fromBase64url(wrapped);
  if (bytes.length !== WRAPPED_LENGTH) throw new PortalError("root_does_not_open");
  const [nonce, sealed] = [bytes.subarray(0, NONCE_LENGTH), bytes.subarray(NONCE_LENGTH)];
  try {
    return new Uint8Array(await crypto.subtle.decrypt(gcm(nonce), await wrapKey(prfOutput), sealed));
  } catch (cause) {
    throw new PortalError("root_does_not_open", { cause });
  }
}

/**
 * The private key for one institution.
 * @param {Uint8Array} root
 * @param {{chainId: number, contract: string, institution: string}} where
 * @returns {Promise<Uint8Array>} 32 bytes
 */
export async function subjectKey(root, { chainId, contract, institution }) {
  if (!Number.isSafeInteger(chainId) || chainId < 1 || !/^0x[0-9a-fA-F]{40}$/.test(contract) || !institution) {
    throw new PortalError("malformed", { detail: "expected a chain, a contract and an institution" });
  }
  const ikm = await crypto.subtle.importKey("raw", root, "HKDF", false, ["deriveBits"]);
  const info = utf8(`${chainId}\n${contract.toLowerCase()}\n${institution}`);
  const bits = await crypto.subtle.deriveBits(hkdf(utf8(`${LABEL}/subject-key`), info), ikm, 48 * 8);
  const scalar = (BigInt(toHex(new Uint8Array(bits))) % (ORDER - 1n)) + 1n;
  return secp256k1.Point.Fn.toBytes(scalar);
}

/** @param {Uint8Array} key private @returns {string} the account, in checksum form */
export const addressOf = (key) => addressOfPublic(secp256k1.getPublicKey(key, false));

/** @param {Uint8Array} publicKey uncompressed, 65 bytes @returns {string} */
export const addressOfPublic = (publicKey) => checksummed(toHex(keccak_256(publicKey.subarray(1)).subarray(12)));

/** An account in its checksum form (EIP-55). @param {string} address @returns {string} */
export function checksummed(address) {
  const digits = address.slice(2).toLowerCase();
  const hash = toHex(keccak_256(utf8(digits))).slice(2);
  const cased = Array.from(digits, (digit, at) => (Number.parseInt(hash[at], 16) > 7 ? digit.toUpperCase() : digit));
  return `0x${cased.join("")}`;
}

/** @param {Uint8Array} prfOutput @returns {Promise<CryptoKey>} not extractable */
async function wrapKey(prfOutput) {
  if (prfOutput.length !== 32) throw new PortalError("malformed", { detail: "PRF output: expected 32 bytes" });
  const ikm = await crypto.subtle.importKey("raw", prfOutput, "HKDF", false, ["deriveKey"]);
  const derived = { name: "AES-GCM", length: 256 };
  return crypto.subtle.deriveKey(hkdf(NO_SALT, utf8(`${LABEL}/root-wrap`)), ikm, derived, false, ["encrypt", "decrypt"]);
}

const hkdf = (salt, info) => ({ name: "HKDF", hash: "SHA-256", salt, info });
const gcm = (iv) => ({ name: "AES-GCM", iv, additionalData: utf8(`${LABEL}/root`) });
