// A consent request as a page shows it, a service that drafts what is asked for, and a chain with one consent.
import { fromHex } from "../../web/static/portal/bytes.js";
import { addressOf, subjectKey } from "../../web/static/portal/keys.js";
import { PortalError } from "../../web/static/portal/errors.js";
import { signTypedData } from "../../web/static/portal/sign.js";
import { digestOf, keccakOf, typedDataOf, ZERO32 } from "../../web/static/portal/typed.js";

export const NOW = 1_767_225_600;
export const ROOT = fromHex(`0x${"5c".repeat(32)}`);
export const place = {
  chainId: 31337,
  contract: "0x5FbDB2315678afecb367f032d93F642f64180aa3",
  custodian: "0x44594101dda99d08F949750CfBBa1ec9c80cc281",
};
const noticeText = "Why this is asked.";
export const asked = {
  token: "t".repeat(43),
  institution: "did:web:bank.example",
  institutionName: "Example Bank",
  purpose: "loan-origination",
  required: ["credit_amount"],
  optional: ["savings", "housing"],
  validityDays: 30,
  maxAccesses: 3,
  accessesPerDay: 2,
  retentionDays: 31,
  noticeText,
  noticeHash: keccakOf(noticeText),
};
export const choices = { attributes: ["savings"], maxAccesses: 3, accessesPerDay: 2, retentionDays: 10, validityDays: 7 };

/** The draft that an honest service makes. */
export function draftOf({ subject, attributes, maxAccesses, accessesPerDay, retentionDays, validityDays }) {
  return typedDataOf("ConsentGrant", place, {
    terms: {
      institution: asked.institution,
      institutionName: asked.institutionName,
      purpose: asked.purpose,
      attributes: [...asked.required, ...attributes],
      accessesPerDay,
      retentionDays,
      noticeHash: asked.noticeHash,
      replaces: ZERO32,
      salt: `0x${"a5".repeat(32)}`,
    },
    subject,
    custodian: place.custodian,
    validFrom: NOW,
    expiresAt: NOW + validityDays * 86_400,
    maxAccesses,
  });
}

/** The keys of one person, as a touch of a passkey brings them. */
export function signerOfRoot(root = ROOT) {
  const keyFor = (institution) => subjectKey(root, { ...place, institution });
  const signer = {
    kind: "passkey",
    forgotten: 0,
    account: async (institution) => addressOf(await keyFor(institution)),
    sign: async (typedData, institution) => signTypedData(typedData, await keyFor(institution)),
    forget: () => {
      signer.forgotten += 1;
    },
  };
  return signer;
}

/** `sessionStorage`, but for its being one of a browser. */
export function memory() {
  const kept = new Map();
  return {
    kept,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
}

/** A chain on which consents stand: {id: [validFrom, expiresAt, maxAccesses, accesses, custodian, sequence, state]}. */
export const chainOf = (consents, chainId = place.chainId) => async (method, params) => {
  if (method === "eth_chainId") return `0x${chainId.toString(16)}`;
  const id = `0x${params[0].data.slice(10)}`;
  const words = consents[id] ?? [0, 0, 0, 0, 0, 0, 0];
  return `0x${words.map((word) => word.toString(16).padStart(64, "0")).join("")}`;
};

/** A service that answers as D's routes do, on a chain of its own; `faults` are thrown first, one for each request. */
export function service({ draft = draftOf, faults = [] } = {}) {
  const consents = {};
  const seen = [];
  const waiting = [...faults];
  async function post(url, body) {
    seen.push([url, body]);
    if (url.endsWith("/draft")) {
      const typedData = draft(body);
      return { typedData, consentId: digestOf(typedData) };
    }
    const fault = waiting.shift();
    const id = digestOf(typedDataOf("ConsentGrant", place, body.grant));
    const before = fault?.before ?? false;
    if (fault && before) throw fault.error;
    if (consents[id]) {
      if (fault) throw fault.error;
      throw new PortalError("already_granted", { status: 409 });
    }
    const { validFrom, expiresAt, maxAccesses } = body.grant;
    consents[id] = [validFrom, expiresAt, maxAccesses, 0, 1, 0, 1];
    if (fault) throw fault.error;
    return { consentId: id, state: "granted", transactionHash: ZERO32, blockNumber: 7, milliseconds: 412 };
  }
  return { post, seen, consents, rpc: chainOf(consents) };
}
