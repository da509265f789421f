import assert from "node:assert/strict";
import { test } from "node:test";
import { differences, requireMatch, requireWithin, rowsOf, shortDigest } from "../../web/static/portal/terms.js";
import { asked, choices, draftOf, NOW, place, signerOfRoot } from "./asking.mjs";
import { copy, refused } from "./vectors.mjs";

const subject = await signerOfRoot().account(asked.institution);
const where = { ...place, subject, now: NOW };
const draft = draftOf({ subject, ...choices });

test("what was chosen is what is asked to be signed", () => {
  assert.deepEqual(differences(draft, asked, choices, where), []);
});

const other = "0x0A54139994A34297904330A1EB5fE55D4022A4c0";
const tampered = {
  "domain.name": (one) => { one.domain.name = "Other"; },
  "domain.version": (one) => { one.domain.version = "2"; },
  "domain.chainId": (one) => { one.domain.chainId = 1; },
  "domain.verifyingContract": (one) => { one.domain.verifyingContract = other; },
  subject: (one) => { one.message.subject = other; },
  custodian: (one) => { one.message.custodian = other; },
  validFrom: (one) => { one.message.validFrom += 86_400; one.message.expiresAt += 86_400; },
  expiresAt: (one) => { one.message.expiresAt += 1; },
  maxAccesses: (one) => { one.message.maxAccesses += 1; },
  "terms.institution": (one) => { one.message.terms.institution = "did:web:evil.example"; },
  "terms.institutionName": (one) => { one.message.terms.institutionName += " "; },
  "terms.purpose": (one) => { one.message.terms.purpose = "model-audit"; },
  "terms.attributes": (one) => { one.message.terms.attributes.push("age"); },
  "terms.accessesPerDay": (one) => { one.message.terms.accessesPerDay = 3; },
  "terms.retentionDays": (one) => { one.message.terms.retentionDays = 31; },
  "terms.noticeHash": (one) => { one.message.terms.noticeHash = `0x${"11".repeat(32)}`; },
  "terms.replaces": (one) => { one.message.terms.replaces = `0x${"11".repeat(32)}`; },
  "terms.salt": (one) => { one.message.terms.salt = `0x${"00".repeat(32)}`; },
};
for (const [field, change] of Object.entries(tampered)) {
  test(`a draft with another ${field} is refused`, async () => {
    const altered = copy(draft);
    change(altered);
    assert.deepEqual(differences(altered, asked, choices, where), [field]);
    await assert.rejects(async () => requireMatch(altered, asked, choices, where), { code: "draft_differs", field });
  });
}

test("every member of a grant and of the domain is held against something", () => {
  const { message, domain } = draft;
  const outer = Object.keys(message).filter((name) => name !== "terms");
  const terms = Object.keys(message.terms).map((name) => `terms.${name}`);
  const places = Object.keys(domain).map((name) => `domain.${name}`);
  assert.deepEqual(Object.keys(tampered).sort(), [...outer, ...terms, ...places].sort());
});

test("an attribute dropped, doubled or chosen by nobody is another draft", () => {
  for (const attributes of [["credit_amount"], ["credit_amount", "savings", "savings"], ["savings"], ["credit_amount", "savings", "housing"]]) {
    const altered = copy(draft);
    altered.message.terms.attributes = attributes;
    assert.deepEqual(differences(altered, asked, choices, where), ["terms.attributes"]);
  }
});

test("a notice that does not make the hash that is signed is refused", () => {
  assert.deepEqual(differences(draft, { ...asked, noticeText: "Another." }, choices, where), ["terms.noticeHash"]);
});

test("a revocation is no grant", () => {
  const { types, domain } = draft;
  const revocation = {
    types: { EIP712Domain: types.EIP712Domain, ConsentRevocation: [{ name: "consentIds", type: "bytes32[]" }] },
    primaryType: "ConsentRevocation",
    domain,
    message: { consentIds: [] },
  };
  assert.deepEqual(differences(revocation, asked, choices, where), ["primaryType"]);
});

test("fewer in all are also fewer a day", () => {
  const fewer = { ...choices, maxAccesses: 1 };
  assert.deepEqual(differences(draftOf({ subject, ...fewer, accessesPerDay: 1 }), asked, fewer, where), []);
  assert.notDeepEqual(differences(draftOf({ subject, ...fewer }), asked, fewer, where), []);
});

test("nothing beyond what was asked can be chosen", async () => {
  requireWithin(asked, choices);
  for (const beyond of [
    { maxAccesses: 4 }, { maxAccesses: 0 }, { accessesPerDay: 3 }, { retentionDays: 32 }, { retentionDays: -1 },
    { validityDays: 31 }, { validityDays: 0 }, { validityDays: 1.5 }, { maxAccesses: Number.NaN },
    { attributes: ["age"] }, { attributes: ["credit_amount"] },
  ]) {
    await refused("choice_outside", () => requireWithin(asked, { ...choices, ...beyond }));
  }
  requireWithin(asked, { ...choices, retentionDays: 0, attributes: [] });
});

test("the dialog has every member of what is signed, in its words and as it is", () => {
  const texts = { term_purpose: "What for", term_not_kept: "not at all" };
  const labels = { purposes: { "loan-origination": "Decide on a loan" }, attributes: { savings: "Savings" } };
  const rows = rowsOf(draft, { texts, labels, locale: "en" });
  const shown = Object.fromEntries(rows.map(({ name, values }) => [name, values]));
  const members = [...Object.keys(draft.message), ...Object.keys(draft.message.terms), "chainId", "verifyingContract"];
  const apart = ["terms", "institutionName", "replaces"];
  assert.deepEqual(Object.keys(shown).sort(), members.filter((name) => !apart.includes(name)).sort());
  assert.deepEqual(shown.institution, ["Example Bank (did:web:bank.example)"]);
  assert.deepEqual(shown.purpose, ["Decide on a loan (loan-origination)"]);
  assert.deepEqual(shown.attributes, ["credit_amount", "Savings (savings)"]);
  assert.deepEqual(shown.retentionDays, ["10"]);
  assert.match(shown.expiresAt[0], /2026/);
  assert.equal(rows.find(({ name }) => name === "purpose").label, "What for");
  const replacing = copy(draft);
  replacing.message.terms.replaces = `0x${"11".repeat(32)}`;
  replacing.message.terms.retentionDays = 0;
  const again = rowsOf(replacing, { texts, labels, locale: "zh-Hans" });
  assert.deepEqual(again.find(({ name }) => name === "replaces").values, [`0x${"11".repeat(32)}`]);
  assert.deepEqual(again.find(({ name }) => name === "retentionDays").values, ["not at all"]);
});

test("a short digest is the first eight bytes", () => {
  assert.equal(shortDigest(`0x0df6a3105ef1e452${"d4".repeat(24)}`), "0df6 a310 5ef1 e452");
});
