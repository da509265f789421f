import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyTypedData } from "ethers";
import { PortalError } from "../../web/static/portal/errors.js";
import { handIn, keptGrant, signGrant } from "../../web/static/portal/grant.js";
import { digestOf, typedDataOf } from "../../web/static/portal/typed.js";
import { asked, chainOf, choices, draftOf, memory, NOW, place, service, signerOfRoot } from "./asking.mjs";
import { copy, refused } from "./vectors.mjs";

const yes = async () => true;
const lost = () => new PortalError("network_lost");
const depsOf = (given, changes = {}) => ({
  post: given.post,
  rpc: given.rpc,
  storage: memory(),
  now: () => NOW,
  pause: async () => {},
  ...changes,
});

async function signed(deps, confirm = yes) {
  return signGrant(asked, choices, place, signerOfRoot(), confirm, deps);
}

test("granted: what was shown is what was signed and what stands on chain", async () => {
  const given = service();
  const deps = depsOf(given);
  let shown;
  await signed(deps, async (typedData, digest) => {
    shown = { typedData: copy(typedData), digest };
    return true;
  });
  const outcome = await handIn(asked.token, place, deps);
  assert.deepEqual(outcome, { consentId: shown.digest, onChain: "yes", blockNumber: 7, milliseconds: 412 });
  assert.equal(shown.digest, digestOf(shown.typedData));
  const [, body] = given.seen.find(([url]) => url.endsWith("/accept"));
  assert.deepEqual(body.grant, shown.typedData.message);
  const { EIP712Domain: _, ...types } = shown.typedData.types;
  const signer = verifyTypedData(shown.typedData.domain, types, body.grant, body.signature);
  assert.equal(signer, await signerOfRoot().account(asked.institution));
  assert.equal(deps.storage.kept.size, 0);
});

test("declined in the dialog: nothing is signed, sent or kept", async () => {
  const given = service();
  const deps = depsOf(given);
  assert.equal(await signed(deps, async () => false), null);
  assert.deepEqual(given.seen.map(([url]) => url.split("/").at(-1)), ["draft"]);
  assert.equal(deps.storage.kept.size, 0);
});

test("a service that drafts more than was chosen gets no signature, and nobody is shown it", async () => {
  const given = service({ draft: (body) => draftOf({ ...body, attributes: [...body.attributes, "housing"] }) });
  const deps = depsOf(given);
  let shown = 0;
  await refused("draft_differs", () => signed(deps, async () => { shown += 1; return true; }));
  assert.deepEqual([shown, deps.storage.kept.size], [0, 0]);
});

test("a service that names another id than the digest gets no signature", async () => {
  const given = service();
  const post = async (url, body) => ({ ...(await given.post(url, body)), consentId: `0x${"11".repeat(32)}` });
  await refused("draft_differs", () => signed(depsOf(given, { post })));
});

test("network lost before it arrived: the same signed grant is sent again and stands", async () => {
  const given = service({ faults: [{ before: true, error: lost() }] });
  const deps = depsOf(given);
  await signed(deps);
  assert.equal((await handIn(asked.token, place, deps)).onChain, "yes");
  const sent = given.seen.filter(([url]) => url.endsWith("/accept"));
  assert.equal(sent.length, 2);
  assert.deepEqual(sent[0], sent[1]);
});

test("network lost after it was carried out: the retry finds it granted, and the chain confirms it", async () => {
  const given = service({ faults: [{ before: false, error: lost() }] });
  const deps = depsOf(given);
  await signed(deps);
  assert.equal((await handIn(asked.token, place, deps)).onChain, "yes");
  assert.equal(Object.keys(given.consents).length, 1);
  assert.equal(deps.storage.kept.size, 0);
});

test("network gone for long: the signed grant outlives the page, and goes on without being signed again", async () => {
  const given = service({ faults: Array.from({ length: 4 }, () => ({ before: true, error: lost() })) });
  const deps = depsOf(given);
  const first = await signed(deps);
  await refused("network_lost", () => handIn(asked.token, place, deps));
  assert.deepEqual(keptGrant(deps.storage, asked.token), first);
  // The page is loaded anew: only what the tab keeps is left.
  const later = { ...depsOf(given), storage: deps.storage };
  assert.equal((await handIn(asked.token, place, later)).consentId, first.consentId);
  assert.equal(keptGrant(deps.storage, asked.token), null);
});

for (const [code, status] of [["step_up_required", 403], ["sign_in_required", 401], ["chain_unavailable", 503], ["rate_limited", 429]]) {
  test(`${code}: what was signed is kept`, async () => {
    const given = service({ faults: [{ before: true, error: new PortalError(code, { status }) }] });
    const deps = depsOf(given);
    await signed(deps);
    await refused(code, () => handIn(asked.token, place, deps));
    assert.notEqual(keptGrant(deps.storage, asked.token), null);
    assert.equal((await handIn(asked.token, place, deps)).onChain, "yes");
  });
}

for (const [code, status] of [["conflict", 409], ["outside_request", 422], ["already_revoked", 409]]) {
  test(`${code}: it is over, and nothing is kept`, async () => {
    const given = service({ faults: [{ before: true, error: new PortalError(code, { status }) }] });
    const deps = depsOf(given);
    await signed(deps);
    await refused(code, () => handIn(asked.token, place, deps));
    assert.equal(keptGrant(deps.storage, asked.token), null);
    await refused("nothing_signed", () => handIn(asked.token, place, deps));
  });
}

test("an answer about another consent is no answer, and what was signed is kept", async () => {
  const given = service();
  const post = async (url, body) => {
    const answer = await given.post(url, body);
    return url.endsWith("/accept") ? { ...answer, consentId: `0x${"22".repeat(32)}` } : answer;
  };
  const deps = depsOf(given, { post });
  await signed(deps);
  await refused("answer_differs", () => handIn(asked.token, place, deps));
  assert.notEqual(keptGrant(deps.storage, asked.token), null);
});

test("the service's word is not enough: the chain does not have it, cannot be asked, or has something else", async () => {
  for (const [rpc, onChain] of [
    [chainOf({}), "pending"],
    [async () => { throw lost(); }, "unknown"],
    [async () => "0x", "unknown"],
    [chainOf({}, 1), "unknown"],
  ]) {
    const deps = depsOf(service(), { rpc });
    await signed(deps);
    assert.equal((await handIn(asked.token, place, deps)).onChain, onChain);
  }
  const deps = depsOf(service());
  const { consentId, grant } = await signed(deps);
  const wider = chainOf({ [consentId]: [grant.validFrom, grant.expiresAt, grant.maxAccesses + 1, 0, 1, 0, 1] });
  await refused("chain_differs", () => handIn(asked.token, place, { ...deps, rpc: wider }));
  await signed(deps);
  const stopped = chainOf({ [consentId]: [0, 0, 0, 0, 0, 0, 3] });
  assert.equal((await handIn(asked.token, place, { ...deps, rpc: stopped })).onChain, "revoked");
});

test("what the tab keeps is no answer to another request, and rubbish is nothing", () => {
  const storage = memory();
  storage.setItem(`consent-ledger/signed-grant/${asked.token}`, "{");
  assert.equal(keptGrant(storage, asked.token), null);
  assert.equal(keptGrant(storage, "another"), null);
});

test("typed data of the service and of the page are one", () => {
  const draft = draftOf({ subject: place.custodian, ...choices });
  assert.equal(digestOf(typedDataOf("ConsentGrant", place, draft.message)), digestOf(draft));
});
