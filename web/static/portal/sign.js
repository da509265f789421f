/** Signing typed data with a derived key, and telling who signed. Pure; as `ledger/consent.py` `require_signer` wants it. */
import { concat, fromHex, toHex } from "./bytes.js";
import { PortalError } from "./errors.js";
import { addressOfPublic } from "./keys.js";
import { digestOf } from "./typed.js";
import { secp256k1 } from "./vendor.js";

const HALF_ORDER = secp256k1.Point.Fn.ORDER >> 1n;

/**
 * Sign a grant, a revocation or a pause.
 * @param {import("./typed.js").TypedData} typedData
 * @param {Uint8Array} key private, 32 bytes
 * @returns {string} 65 bytes, r || s || v with v 27 or 28, in hex; the s is the low one (EIP-2), the nonce RFC 6979
 */
export function signTypedData(typedData, key) {
  if (typedData.primaryType === "AccessEntry") throw new PortalError("unexpected_typed_data", { field: "primaryType" });
  const signed = secp256k1.sign(fromHex(digestOf(typedData)), key, { prehash: false, lowS: true, format: "recovered" });
  return toHex(concat(signed.subarray(1), Uint8Array.of(27 + signed[0])));
}

/**
 * The account that signed. Throws `bad_signature` if it is none or not in its one valid form.
 * @param {string} digest
 * @param {string} signature
 * @returns {string}
 */
export function signerOf(digest, signature) {
  try {
    const bytes = fromHex(signature, 65);
    const s = BigInt(toHex(bytes.subarray(32, 64)));
    if (![27, 28].includes(bytes[64]) || s > HALF_ORDER) throw new PortalError("bad_signature");
    const recoverable = concat(Uint8Array.of(bytes[64] - 27), bytes.subarray(0, 64));
    const compressed = secp256k1.recoverPublicKey(recoverable, fromHex(digest, 32), { prehash: false });
    return addressOfPublic(secp256k1.Point.fromBytes(compressed).toBytes(false));
  } catch (cause) {
    throw new PortalError("bad_signature", { cause });
  }
}
