/**
 * What is signed (EIP-712), and the digest that the signature is over. Pure; the types are those of `ledger/consent.py`.
 *
 * Only typed data of exactly these types has a digest here, with no member missing, added or of another form: there is
 * nothing in what is signed that a page could leave out when it shows it.
 */
import { concat, fromHex, toHex, utf8 } from "./bytes.js";
import { PortalError } from "./errors.js";
import { keccak_256 } from "./vendor.js";

/** @typedef {{name: string, type: string}} Member */
/**
 * @typedef {{types: Record<string, Member[]>, primaryType: string, domain: Record<string, any>,
 *   message: Record<string, any>}} TypedData
 */

const members = (text) => text.split(",").map((member) => ({ type: member.split(" ")[0], name: member.split(" ")[1] }));

/** @type {Record<string, Member[]>} */
export const TYPES = {
  EIP712Domain: members("string name,string version,uint256 chainId,address verifyingContract"),
  ConsentGrant: members(
    "Terms terms,address subject,address custodian,uint64 validFrom,uint64 expiresAt,uint32 maxAccesses",
  ),
  Terms: members(
    "string institution,string institutionName,string purpose,string[] attributes,uint32 accessesPerDay," +
      "uint32 retentionDays,bytes32 noticeHash,bytes32 replaces,bytes32 salt",
  ),
  ConsentRevocation: members("bytes32[] consentIds"),
  ConsentPause: members("bytes32 consentId,bool paused,uint32 sequence"),
  // Hashed into the log, never signed by a person.
  AccessEntry: members(
    "bytes32 consentId,bytes32 releaseId,string institution,string purpose,string[] attributes,bytes32 requestHash," +
      "bytes32 recordsHash,bytes32 salt",
  ),
};
export const ZERO32 = `0x${"00".repeat(32)}`;
const SIGNED = ["ConsentGrant", "ConsentRevocation", "ConsentPause"];

/**
 * The EIP-712 digest: what a signature is over, and of a grant the id of its consent.
 * Throws `unexpected_typed_data` for anything that is not of our types to the last member.
 * @param {TypedData} typedData
 * @returns {string}
 */
export function digestOf(typedData) {
  requireOurs(typedData);
  const { domain, primaryType, message } = typedData;
  const parts = [fromHex("0x1901"), hashed("EIP712Domain", domain, "domain"), hashed(primaryType, message, "message")];
  return toHex(keccak_256(concat(...parts)));
}

/** `hashStruct` of one of our types. @param {string} type @param {unknown} value @returns {string} */
export const structHash = (type, value) => toHex(hashed(type, value, type));

/** @param {string} text @returns {string} Keccak-256 of its UTF-8 bytes */
export const keccakOf = (text) => toHex(keccak_256(utf8(text)));

/** The typed data of a signed act, as the service makes it too. @returns {TypedData} */
export function typedDataOf(primaryType, { chainId, contract }, message) {
  const names = ["EIP712Domain", primaryType, ...(primaryType === "ConsentGrant" ? ["Terms"] : [])];
  return {
    types: Object.fromEntries(names.map((name) => [name, TYPES[name]])),
    primaryType,
    domain: { name: "ConsentLedger", version: "1", chainId, verifyingContract: contract },
    message,
  };
}

function requireOurs(typedData) {
  requireMembers(typedData, ["types", "primaryType", "domain", "message"], "typed data");
  const { types, primaryType } = typedData;
  if (!SIGNED.includes(primaryType) && primaryType !== "AccessEntry") refuse("primaryType");
  const names = ["EIP712Domain", primaryType, ...(primaryType === "ConsentGrant" ? ["Terms"] : [])];
  requireMembers(types, names, "types");
  for (const name of names) if (encodeType(name, types[name]) !== encodeType(name, TYPES[name])) refuse(`types.${name}`);
}

function encodeType(name, given) {
  if (!Array.isArray(given)) refuse(`types.${name}`);
  const described = given.map((member) => {
    requireMembers(member, ["name", "type"], `types.${name}`);
    return `${member.type} ${member.name}`;
  });
  return `${name}(${described.join(",")})`;
}

function hashed(type, value, path) {
  requireMembers(value, TYPES[type].map(({ name }) => name), path);
  const own = encodeType(type, TYPES[type]);
  const whole = type === "ConsentGrant" ? own + encodeType("Terms", TYPES.Terms) : own;
  const words = TYPES[type].map((member) => encoded(member.type, value[member.name], `${path}.${member.name}`));
  return keccak_256(concat(keccak_256(utf8(whole)), ...words));
}

function encoded(type, value, path) {
  if (type.endsWith("[]")) {
    if (!Array.isArray(value)) refuse(path);
    return keccak_256(concat(...value.map((item) => encoded(type.slice(0, -2), item, path))));
  }
  if (type === "string") return isText(value) ? keccak_256(utf8(value)) : refuse(path);
  if (type === "bytes32") return /^0x[0-9a-f]{64}$/i.test(value) ? fromHex(value) : refuse(path);
  if (type === "address") return /^0x[0-9a-f]{40}$/i.test(value) ? word(BigInt(value)) : refuse(path);
  if (type === "bool") return typeof value === "boolean" ? word(value ? 1n : 0n) : refuse(path);
  if (type === "Terms") return hashed(type, value, path);
  const most = 2n ** BigInt(type.slice("uint".length));
  // Beyond 2^53 a JSON number is no longer what was written.
  return Number.isSafeInteger(value) && value >= 0 && BigInt(value) < most ? word(BigInt(value)) : refuse(path);
}

// Half a surrogate pair has no bytes in UTF-8: two texts would be one.
const isText = (value) => typeof value === "string" && value.isWellFormed();

/** @param {bigint} number */
const word = (number) => fromHex(`0x${number.toString(16).padStart(64, "0")}`);

function requireMembers(value, names, path) {
  const is = typeof value === "object" && value !== null && !Array.isArray(value);
  if (!is || Object.keys(value).sort().join() !== [...names].sort().join()) refuse(path);
}

/** @returns {never} */
function refuse(path) {
  throw new PortalError("unexpected_typed_data", { field: path, detail: `${path}: not as it is signed here` });
}
