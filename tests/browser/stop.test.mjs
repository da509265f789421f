// Stopping, pausing and resuming.
import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyTypedData } from "ethers";
import { PortalError } from "../../web/static/portal/errors.js";
import { setPaused } from "../../web/static/portal/pause.js";
import { revoke } from "../../web/static/portal/revoke.js";
import { typedDataOf } from "../../web/static/portal/typed.js";
import { chainOf, place, signerOfRoot } from "./asking.mjs";
import { copy, refused } from "./vectors.mjs";

const BANK = "did:web:bank.example";
const OTHER = "did:web:other.example";
const ids = [1, 2, 3].map((n) => `0x${String(n).repeat(64)}`);
const bank = await signerOfRoot().account(BANK);
const other = await signerOfRoot().account(OTHER);
const lost = signerOfRoot(new Uint8Array(32).fill(9));
const lostAccount = await lost.account(BANK);
const STATES = { active: 1, paused: 2, revoked: 3 };

const groupOf = (institution, subject, consents) => ({
  institution,
  subject,
  consents,
  typedData: typedDataOf("ConsentRevocation", place, { consentIds: consents }),
});

/** The service with its consents, on a chain that follows it unless `slow`. */
function service(groups, { slow = false, sequence = 4, untaken = [] } = {}) {
  const state = Object.fromEntries(ids.map((id) => [id, [1, 2, 3, 0, 1, 0, STATES.active]]));
  const seen = [];
  const post = async (url, body) => {
    seen.push([url, copy(body)]);
    if (url === "/consents/revocations") return { groups: copy(groups) };
    if (url.endsWith("/pause-draft")) {
      const consentId = url.split("/")[2];
      return { typedData: typedDataOf("ConsentPause", place, { consentId, paused: body.paused, sequence }) };
    }
    const results = (body.revocations ?? []).filter(({ consents }) => !consents.some((id) => untaken.includes(id)));
    if (slow) return { results };
    const changed = url === "/consents/revoke" ? results.flatMap(({ consents }) => consents) : [url.split("/")[2]];
    const to = url === "/consents/revoke" ? STATES.revoked : body.paused ? STATES.paused : STATES.active;
    for (const id of changed) state[id][6] = to;
    return { results };
  };
  return { post, seen, rpc: chainOf(state), pause: async () => {}, state };
}

const signers = (...given) => async () => given;
const bodyOf = (given, url) => given.seen.find(([one]) => one === url)?.[1];

test("one consent: one signature by the account that granted, and shown as stopped when the chain says so", async () => {
  const given = service([groupOf(BANK, bank, [ids[0]])]);
  const signer = signerOfRoot();
  const result = await revoke([ids[0]], place, signers(signer), given);
  assert.deepEqual([result.revoked, result.unsigned, result.onChain], [[ids[0]], [], "yes"]);
  const [{ consents, signature }] = bodyOf(given, "/consents/revoke").revocations;
  const { EIP712Domain: _, ...types } = groupOf(BANK, bank, consents).typedData.types;
  const { domain, message } = groupOf(BANK, bank, consents).typedData;
  assert.equal(verifyTypedData(domain, types, message, signature), bank);
  assert.equal(signer.forgotten, 1);
});

test("all at once: one signature for each institution's account, one touch for all", async () => {
  const given = service([groupOf(BANK, bank, ids.slice(0, 2)), groupOf(OTHER, other, [ids[2]])]);
  let touched = 0;
  const result = await revoke("all", place, async () => { touched += 1; return [signerOfRoot()]; }, given);
  assert.deepEqual([result.revoked, result.onChain, touched], [ids, "yes", 1]);
  assert.deepEqual(bodyOf(given, "/consents/revocations"), { consents: "all" });
  assert.equal(bodyOf(given, "/consents/revoke").revocations.length, 2);
});

test("what a lost key granted is left to the custodian, and the rest is stopped", async () => {
  const given = service([groupOf(BANK, lostAccount, [ids[0]]), groupOf(OTHER, other, [ids[1]])]);
  const result = await revoke("all", place, signers(signerOfRoot()), given);
  assert.deepEqual([result.revoked, result.unsigned], [[ids[1]], [ids[0]]]);
});

test("a signature that the service does not take is not shown as a stop, and the rest is", async () => {
  const given = service([groupOf(BANK, bank, [ids[0]]), groupOf(OTHER, other, [ids[1]])], { untaken: [ids[0]] });
  let said = 0;
  const result = await revoke("all", place, signers(signerOfRoot()), { ...given, sending: () => { said += 1; } });
  assert.deepEqual([result.revoked, result.unsigned, result.onChain, said], [[ids[1]], [ids[0]], "yes", 1]);
});

test("no key at hand, or nothing to stop: said, and nothing is sent", async () => {
  const given = service([groupOf(BANK, lostAccount, [ids[0]])]);
  await refused("no_key_for_these", () => revoke([ids[0]], place, signers(signerOfRoot()), given));
  await refused("nothing_to_stop", () => revoke("all", place, signers(), service([])));
  assert.equal(bodyOf(given, "/consents/revoke"), undefined);
});

const tampered = {
  "a consent that was not asked for": (one) => { one.consents.push(ids[1]); one.typedData.message.consentIds.push(ids[1]); },
  "another consent in what is signed": (one) => { one.typedData.message.consentIds = [ids[1]]; },
  "one consent twice": (one) => { one.consents.push(ids[0]); one.typedData.message.consentIds.push(ids[0]); },
  "no consent": (one) => { one.consents = []; one.typedData.message.consentIds = []; },
  "another chain": (one) => { one.typedData.domain.chainId = 1; },
  "another contract": (one) => { one.typedData.domain.verifyingContract = place.custodian; },
  "another domain": (one) => { one.typedData.domain.name = "Other"; },
  "a pause": (one) => {
    one.typedData = typedDataOf("ConsentPause", place, { consentId: ids[0], paused: false, sequence: 9 });
  },
};
for (const [what, change] of Object.entries(tampered)) {
  test(`a revocation with ${what} is not signed, and nobody is asked for a key`, async () => {
    const group = groupOf(BANK, bank, [ids[0]]);
    change(group);
    const given = service([group]);
    let asked = 0;
    await refused("draft_differs", () => revoke([ids[0]], place, async () => { asked += 1; return [signerOfRoot()]; }, given));
    assert.deepEqual([asked, bodyOf(given, "/consents/revoke")], [0, undefined]);
  });
}

test("a grant in a revocation's place is not signed", async () => {
  const group = { ...groupOf(BANK, bank, [ids[0]]), typedData: { primaryType: "ConsentGrant" } };
  await refused("unexpected_typed_data", () => revoke([ids[0]], place, signers(signerOfRoot()), service([group])));
});

test("the chain is slow: on file, and not shown as stopped on chain", async () => {
  const given = service([groupOf(BANK, bank, [ids[0]])], { slow: true });
  assert.equal((await revoke([ids[0]], place, signers(signerOfRoot()), given)).onChain, "pending");
});

test("the chain cannot be asked: on file, and the chain unknown", async () => {
  const given = service([groupOf(BANK, bank, [ids[0]])]);
  given.rpc = async () => { throw new PortalError("chain_unreachable"); };
  assert.equal((await revoke([ids[0]], place, signers(signerOfRoot()), given)).onChain, "unknown");
});

test("network lost in mid-stop: the same again stops it once", async () => {
  const given = service([groupOf(BANK, bank, [ids[0]])]);
  let cut = true;
  const post = async (url, body) => {
    const answer = await given.post(url, body);
    if (url === "/consents/revoke" && cut) {
      cut = false;
      throw new PortalError("network_lost");
    }
    return answer;
  };
  const signer = signerOfRoot();
  await refused("network_lost", () => revoke([ids[0]], place, signers(signer), { ...given, post }));
  assert.equal(signer.forgotten, 1);
  assert.equal((await revoke([ids[0]], place, signers(signerOfRoot()), { ...given, post })).onChain, "yes");
  const sent = given.seen.filter(([url]) => url === "/consents/revoke");
  assert.deepEqual(sent[0], sent[1]);
});

const consent = { id: ids[0], subject: bank, institution: BANK };

test("paused and resumed, each when the chain has it", async () => {
  const given = service([]);
  for (const [paused, state] of [[true, STATES.paused], [false, STATES.active]]) {
    assert.equal((await setPaused(consent, paused, place, signers(signerOfRoot()), given)).onChain, "yes");
    assert.equal(given.state[ids[0]][6], state);
  }
  const { paused, sequence, signature } = bodyOf(given, `/consents/${ids[0]}/pause`);
  assert.deepEqual([paused, sequence], [true, 4]);
  const typedData = typedDataOf("ConsentPause", place, { consentId: ids[0], paused, sequence });
  const { EIP712Domain: _, ...types } = typedData.types;
  assert.equal(verifyTypedData(typedData.domain, types, typedData.message, signature), bank);
});

test("a draft that resumes in a pause's place, or another consent, or no sequence, is not signed", async () => {
  for (const message of [
    { consentId: ids[0], paused: false, sequence: 4 },
    { consentId: ids[1], paused: true, sequence: 4 },
    { consentId: ids[0], paused: true, sequence: 0 },
  ]) {
    const given = service([]);
    const post = async () => ({ typedData: typedDataOf("ConsentPause", place, message) });
    await refused("draft_differs", () => setPaused(consent, true, place, signers(signerOfRoot()), { ...given, post }));
  }
});

test("a pause by a key that did not grant is not sent", async () => {
  const given = service([]);
  await refused("no_key_for_these", () => setPaused(consent, true, place, signers(lost), given));
  assert.equal(bodyOf(given, `/consents/${ids[0]}/pause`), undefined);
});

test("a pause that the chain does not have yet is pending", async () => {
  const given = service([], { slow: true });
  assert.equal((await setPaused(consent, true, place, signers(signerOfRoot()), given)).onChain, "pending");
});
