/**
 * Whether what is asked to be signed is what the person chose, and how it reads. Pure.
 *
 * The service drafts the grant, so the draft is not believed: every field is held against what the page showed and what
 * was chosen on it, and the words of the dialog are made from the typed data itself.
 */
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { digestOf, keccakOf, ZERO32 } from "./typed.js";

/**
 * @typedef {{institution: string, institutionName: string, purpose: string, required: string[], optional: string[],
 *   validityDays: number, maxAccesses: number, accessesPerDay: number, retentionDays: number, noticeHash: string,
 *   noticeText?: string, replaces?: string, token: string}} AskedFor as the page shows it
 * @typedef {{attributes: string[], maxAccesses: number, accessesPerDay: number, retentionDays: number,
 *   validityDays: number}} Choices `attributes`: the optional ones that were ticked
 * @typedef {{chainId: number, contract: string, custodian: string}} Place
 */

const DAY = 86_400;
// A person's clock may be off; a grant that starts a day from now, or did a day ago, is another one.
const CLOCK_SECONDS = 3_600;

/**
 * The fields in which typed data is not what was chosen. Throws `unexpected_typed_data` if it is no grant of ours.
 * @param {import("./typed.js").TypedData} typedData @param {AskedFor} asked @param {Choices} choices
 * @param {Place & {subject: string, now: number}} where `now` in Unix seconds
 * @returns {string[]}
 */
export function differences(typedData, asked, choices, where) {
  digestOf(typedData);
  const { primaryType, domain, message } = typedData;
  if (primaryType !== "ConsentGrant") return ["primaryType"];
  const { terms } = message;
  const expected = [
    ["domain.name", domain.name, "ConsentLedger"],
    ["domain.version", domain.version, "1"],
    ["domain.chainId", domain.chainId, where.chainId],
    ["domain.verifyingContract", checksummed(domain.verifyingContract), checksummed(where.contract)],
    ["subject", checksummed(message.subject), checksummed(where.subject)],
    ["custodian", checksummed(message.custodian), checksummed(where.custodian)],
    ["validFrom", Math.abs(message.validFrom - where.now) <= CLOCK_SECONDS, true],
    ["expiresAt", message.expiresAt - message.validFrom, choices.validityDays * DAY],
    ["maxAccesses", message.maxAccesses, choices.maxAccesses],
    ["terms.institution", terms.institution, asked.institution],
    ["terms.institutionName", terms.institutionName, asked.institutionName],
    ["terms.purpose", terms.purpose, asked.purpose],
    ["terms.attributes", sorted(terms.attributes), sorted([...asked.required, ...choices.attributes])],
    ["terms.accessesPerDay", terms.accessesPerDay, perDay(choices)],
    ["terms.retentionDays", terms.retentionDays, choices.retentionDays],
    ["terms.noticeHash", terms.noticeHash, asked.noticeHash],
    ["terms.replaces", terms.replaces, asked.replaces ?? ZERO32],
    ["terms.salt", /^0x0*$/.test(terms.salt), false],
  ];
  const wrong = expected.filter(([, given, wanted]) => given !== wanted).map(([field]) => String(field));
  if (asked.noticeText !== undefined && keccakOf(asked.noticeText) !== asked.noticeHash) wrong.push("terms.noticeHash");
  return [...new Set(wrong)];
}

/** Throws `draft_differs`, with the first field. */
export function requireMatch(typedData, asked, choices, where) {
  const [field] = differences(typedData, asked, choices, where);
  if (field !== undefined) throw new PortalError("draft_differs", { field });
}

/** Fewer in all are also fewer a day. @param {Choices} choices */
export const perDay = (choices) => Math.min(choices.maxAccesses, choices.accessesPerDay);

/**
 * Choices that lie within what is asked; throws `choice_outside` with the field. Nothing optional is chosen for anyone.
 * @param {AskedFor} asked @param {Choices} choices
 */
export function requireWithin(asked, choices) {
  const least = { maxAccesses: 1, accessesPerDay: 1, validityDays: 1, retentionDays: 0 };
  for (const [field, from] of Object.entries(least)) {
    const chosen = choices[field];
    if (!Number.isSafeInteger(chosen) || chosen < from || chosen > asked[field]) {
      throw new PortalError("choice_outside", { field, detail: `${from}-${asked[field]}` });
    }
  }
  if (!choices.attributes.every((name) => asked.optional.includes(name))) {
    throw new PortalError("choice_outside", { field: "attributes" });
  }
}

/** The first eight bytes of a digest in groups, for the eye. @param {string} digest */
export const shortDigest = (digest) => digest.slice(2, 18).match(/..../g)?.join(" ") ?? "";

/**
 * A grant in words, all of it from the typed data: one row for each member, in the order in which people ask.
 * @param {import("./typed.js").TypedData} typedData
 * @param {{texts: Record<string, string>, labels: {purposes: Record<string, string>, attributes: Record<string, string>},
 *   locale: string}} words
 * @returns {{name: string, label: string, values: string[], technical: boolean}[]}
 */
export function rowsOf(typedData, { texts, labels, locale }) {
  const { domain, message } = typedData;
  const { terms } = message;
  const time = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "short" });
  const at = (seconds) => time.format(new Date(seconds * 1000));
  const labelled = (known, code) => (known?.[code] ? `${known[code]} (${code})` : code);
  const kept = terms.retentionDays === 0 ? (texts.term_not_kept ?? "0") : terms.retentionDays;
  const plain = [
    ["institution", `${terms.institutionName} (${terms.institution})`],
    ["purpose", labelled(labels?.purposes, terms.purpose)],
    ["attributes", ...terms.attributes.map((name) => labelled(labels?.attributes, name))],
    ["validFrom", at(message.validFrom)],
    ["expiresAt", at(message.expiresAt)],
    ["maxAccesses", message.maxAccesses],
    ["accessesPerDay", terms.accessesPerDay],
    ["retentionDays", kept],
    ...(terms.replaces === ZERO32 ? [] : [["replaces", terms.replaces]]),
  ];
  const technical = [
    ["noticeHash", terms.noticeHash],
    ["salt", terms.salt],
    ["subject", message.subject],
    ["custodian", message.custodian],
    ["chainId", domain.chainId],
    ["verifyingContract", domain.verifyingContract],
  ];
  const row = (isTechnical) => ([name, ...values]) => ({
    name,
    label: texts[`term_${name}`] ?? name,
    values: values.map(String),
    technical: isTechnical,
  });
  return [...plain.map(row(false)), ...technical.map(row(true))];
}

const sorted = (names) => JSON.stringify([...names].sort());
