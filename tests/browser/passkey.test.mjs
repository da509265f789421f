import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { test } from "node:test";
import { toBase64url, toHex } from "../../web/static/portal/bytes.js";
import { addressOf, newRoot, prfInput, subjectKey, unwrapRoot, wrapRoot } from "../../web/static/portal/keys.js";
import { register, signIn, stepUp } from "../../web/static/portal/passkey.js";
import { passkeySigner } from "../../web/static/portal/signer.js";
import { place } from "./asking.mjs";
import { refused } from "./vectors.mjs";

globalThis.PublicKeyCredential = class {};

/** A passkey as browsers show one; `prf`: "both" tells its output already when made, "later" only when used, null never. */
function authenticator(prf = "later") {
  const secret = randomBytes(32);
  const id = toBase64url(randomBytes(16));
  const output = (eval_) => createHmac("sha256", secret).update(eval_.first).digest();
  const results = (eval_) => ({ results: { first: new Uint8Array(output(eval_)).buffer } });
  const seen = [];
  return {
    id,
    seen,
    output: async () => new Uint8Array(output({ first: await prfInput() })),
    startRegistration: async ({ optionsJSON }) => {
      seen.push(optionsJSON);
      const asked = optionsJSON.extensions.prf.eval;
      const said = prf === "both" ? { enabled: true, ...results(asked) } : prf && { enabled: true };
      return { id, rawId: id, response: { transports: ["internal"] }, type: "public-key", clientExtensionResults: said ? { prf: said } : {} };
    },
    startAuthentication: async ({ optionsJSON }) => {
      seen.push(optionsJSON);
      const asked = optionsJSON.extensions?.prf?.eval;
      return { id, rawId: id, response: {}, type: "public-key", clientExtensionResults: asked && prf ? { prf: results(asked) } : {} };
    },
  };
}

/** The service's side of /auth: keeps what it is sent, and nothing else. */
function service({ hasRoot = false, wrapped = null } = {}) {
  const sent = [];
  const rp = { id: "localhost", name: "Consent Ledger" };
  const evil = { prf: { eval: { first: "c29tZXRoaW5nIGVsc2U" } } };
  const answers = {
    "/auth/passkey/register/options": () => ({ publicKey: { challenge: "AAAA", rp, extensions: { ...evil, credProps: true } }, hasRoot }),
    "/auth/passkey/register": () => ({ next: "/" }),
    "/auth/passkey/sign-in/options": () => ({ publicKey: { challenge: "AAAA", rpId: rp.id } }),
    "/auth/passkey/sign-in": () => ({ next: "/requests" }),
    "/auth/passkey/step-up/options": () => ({ publicKey: { challenge: "AAAA", rpId: rp.id, extensions: evil } }),
    "/auth/passkey/step-up": () => ({ wrappedRoot: wrapped, accountId: "a" }),
  };
  const post = async (url, body) => {
    sent.push([url, body]);
    return answers[url](body);
  };
  return { sent, post };
}

const withTwo = (given, device) => ({ ...device, post: given.post });
const everything = (given) => JSON.stringify(given.sent);

for (const prf of ["both", "later"]) {
  test(`a first passkey (PRF told ${prf}) makes a root that only it opens`, async () => {
    const [given, device] = [service(), authenticator(prf)];
    assert.deepEqual(await register({ code: "CODE", name: "Phone", next: "/data" }, withTwo(given, device)), { next: "/", prf: true });
    const [, body] = given.sent.at(-1);
    assert.deepEqual(Object.keys(body).sort(), ["credential", "name", "next", "wrappedRoot"]);
    assert.equal((await unwrapRoot(await device.output(), body.wrappedRoot)).length, 32);
    assert.deepEqual(given.sent[0][1], { code: "CODE" });
    assert.equal(device.seen.length, prf === "both" ? 1 : 2);
  });
}

test("what the PRF is asked for is not the service's to choose", async () => {
  const [given, device] = [service(), authenticator("later")];
  await register({ code: "CODE", name: "Phone" }, withTwo(given, device));
  await stepUp({ ...withTwo(service(), device) });
  for (const options of device.seen) {
    assert.equal(toHex(options.extensions.prf.eval.first), toHex(await prfInput()));
  }
  assert.equal(device.seen[0].extensions.credProps, true);
});

test("nothing that is sent contains the PRF output or the root", async () => {
  const root = newRoot();
  for (const prf of ["both", "later"]) {
    const device = authenticator(prf);
    const output = await device.output();
    const given = service({ hasRoot: true, wrapped: await wrapRoot(output, root) });
    await register({ name: "Phone", root }, withTwo(given, device));
    await stepUp(withTwo(given, device));
    await signIn({}, withTwo(given, device));
    for (const secret of [output, root]) {
      for (const written of [toBase64url(secret), toHex(secret).slice(2), Buffer.from(secret).toString("base64")]) {
        assert.ok(!everything(given).includes(written));
      }
    }
    assert.ok(!everything(given).includes("results"));
  }
});

test("a second passkey wraps the same root: either brings back every key", async () => {
  const [phone, laptop] = [authenticator("later"), authenticator("both")];
  const first = service();
  await register({ code: "CODE", name: "Phone" }, withTwo(first, phone));
  const wrapped = first.sent.at(-1)[1].wrappedRoot;
  const opened = await stepUp(withTwo(service({ wrapped }), phone));
  const second = service({ hasRoot: true });
  assert.equal((await register({ name: "Laptop", root: opened.root }, withTwo(second, laptop))).prf, true);
  const again = second.sent.at(-1)[1].wrappedRoot;
  assert.notEqual(again, wrapped);
  const [byPhone, byLaptop] = await Promise.all([
    passkeySigner(place, { stepUp: () => stepUp(withTwo(service({ wrapped }), phone)) }),
    passkeySigner(place, { stepUp: () => stepUp(withTwo(service({ wrapped: again }), laptop)) }),
  ]);
  const bank = "did:web:bank.example";
  assert.equal(await byPhone.account(bank), await byLaptop.account(bank));
  assert.notEqual(await byPhone.account(bank), await byPhone.account("did:web:other.example"));
  const key = await subjectKey(await unwrapRoot(await phone.output(), wrapped), { ...place, institution: bank });
  assert.equal(await byPhone.account(bank), addressOf(key));
});

test("a further passkey without the root at hand is not made: it would be another person's", async () => {
  const [given, device] = [service({ hasRoot: true }), authenticator()];
  await refused("root_needed", () => register({ name: "Laptop" }, withTwo(given, device)));
  assert.deepEqual(device.seen, []);
});

test("without PRF: registered, and said; it signs no grant", async () => {
  const [given, device] = [service(), authenticator(null)];
  assert.deepEqual(await register({ code: "CODE", name: "Key" }, withTwo(given, device)), { next: "/", prf: false });
  assert.equal(given.sent.at(-1)[1].wrappedRoot, null);
  const touched = () => stepUp(withTwo(service(), device));
  assert.deepEqual(await touched(), { root: null, prf: false, accountId: "a" });
  await refused("prf_missing", () => passkeySigner(place, { stepUp: touched }));
});

test("a passkey with PRF that wraps no root says so", async () => {
  const device = authenticator("both");
  await refused("root_missing", () => passkeySigner(place, { stepUp: () => stepUp(withTwo(service(), device)) }));
});

test("a root that another passkey wrapped does not open", async () => {
  const wrapped = await wrapRoot(await authenticator().output(), newRoot());
  const device = authenticator();
  await refused("root_does_not_open", () => stepUp(withTwo(service({ wrapped }), device)));
});

test("signing in asks for no PRF, and goes where the service says", async () => {
  const [given, device] = [service(), authenticator()];
  assert.deepEqual(await signIn({ next: "/data" }, withTwo(given, device)), { next: "/requests" });
  assert.equal(device.seen[0].extensions, undefined);
  assert.deepEqual(given.sent.at(-1)[1].next, "/data");
});

for (const [name, code] of Object.entries({
  NotAllowedError: "passkey_cancelled", AbortError: "passkey_cancelled", InvalidStateError: "passkey_known",
  SecurityError: "passkey_wrong_site", NotSupportedError: "passkey_unsuitable", UnknownError: "passkey_failed",
})) {
  test(`${name} of the browser is ${code}, and nothing more is sent`, async () => {
    const given = service();
    const startRegistration = async () => { throw new DOMException("no", name); };
    await refused(code, () => register({ code: "CODE", name: "Phone" }, { ...withTwo(given, authenticator()), startRegistration }));
    assert.equal(given.sent.length, 1);
  });
}

test("once forgotten, a signer signs as nobody", async () => {
  const device = authenticator();
  const wrapped = await wrapRoot(await device.output(), newRoot());
  const signer = await passkeySigner(place, { stepUp: () => stepUp(withTwo(service({ wrapped }), device)) });
  const before = await signer.account("did:web:bank.example");
  signer.forget();
  assert.notEqual(await signer.account("did:web:bank.example"), before);
});
