import assert from "node:assert/strict";
import { test } from "node:test";
import { CompactSign, exportJWK, generateKeyPair } from "jose";
import { fromHex } from "../../web/static/portal/bytes.js";
import { verify as verifyAt } from "../../web/static/portal/receipt.js";
import { signTypedData } from "../../web/static/portal/sign.js";
import { typedDataOf } from "../../web/static/portal/typed.js";
import { copy, refused, vectors } from "./vectors.mjs";

const { privateKey, cases } = vectors("eip712");
const { typedData, digest, signature } = cases[0];
const { publicKey, privateKey: custodianKey } = await generateKeyPair("ES256");
const jwk = { ...(await exportJWK(publicKey)), kid: "custodian-1", use: "sig" };
const jwks = { keys: [{ kty: "OKP", crv: "Ed25519", x: "AAAA", kid: "custodian-1" }, jwk] };
const consentIds = [digest, `0x${"11".repeat(32)}`];
const place = { chainId: typedData.domain.chainId, contract: typedData.domain.verifyingContract };

const consent = {
  version: 1,
  iss: "0x44594101dda99d08F949750CfBBa1ec9c80cc281",
  iat: 1767225600,
  consent: digest,
  grant: typedData.message,
  signature,
  domain: typedData.domain,
  standing: true,
  revokedAt: null,
};
const revocation = {
  version: 1,
  iss: consent.iss,
  iat: 1767225600,
  consents: consentIds,
  subject: typedData.message.subject,
  by: "subject",
  signature: signTypedData(typedDataOf("ConsentRevocation", place, { consentIds }), fromHex(privateKey)),
  storedAt: 1767225600,
  domain: typedData.domain,
};
const erasure = {
  version: 1,
  iss: consent.iss,
  iat: 1767225600,
  envelopesDestroyed: 61,
  consentOpeningsDestroyed: 2,
  accessOpeningsDestroyed: 3,
  consentRequestsDestroyed: 0,
  deletionAttestationsDestroyed: 0,
  adverseActionsDestroyed: 0,
  disputesDestroyed: 0,
  portalAccountsDestroyed: 1,
  writeAheadLogEmptied: true,
  readableInBackupsUntilDestroyed: ["kek-01234567"],
};
const access = { version: 1, entry: cases.at(-1).typedData.message, entryHash: cases.at(-1).structHash, proof: { ...place } };

async function signed(claims, typ = "consent-receipt+jwt", { key = custodianKey, kid = jwk.kid, alg = "ES256" } = {}) {
  const payload = new TextEncoder().encode(JSON.stringify(claims));
  return new CompactSign(payload).setProtectedHeader({ alg, kid, typ }).sign(key);
}

const verify = (text, keys) => verifyAt(text, keys, place);
const failed = ({ checks }) => checks.filter(({ good }) => good === false).map(({ name }) => name);

for (const [typ, claims, names] of [
  ["consent-receipt+jwt", consent, ["custodian", "place", "consent", "subject"]],
  ["revocation-receipt+jwt", revocation, ["custodian", "place", "revocation"]],
  ["revocation-receipt+jwt", { ...revocation, by: "custodian", signature: null }, ["custodian", "place"]],
  ["erasure-proof+jwt", erasure, ["custodian", "impersonal"]],
  ["access-receipt+jwt", access, ["custodian", "place", "entry"]],
]) {
  test(`genuine: ${typ} (${names.join(", ")})`, async () => {
    const found = await verify(await signed(claims, typ), jwks);
    assert.deepEqual([found.verdict, found.checks.map(({ name }) => name)], ["good", names]);
    assert.deepEqual(found.claims, claims);
  });
}

test("a file's blanks and a JSON around it do not matter", async () => {
  const jws = await signed(consent);
  for (const text of [`\n ${jws}\n`, JSON.stringify({ receipt: jws }), JSON.stringify({ proof: jws }), JSON.stringify({ jws })]) {
    assert.equal((await verify(text, jwks)).verdict, "good");
  }
});

test("altered in any character it is not the custodian's, or none at all", async () => {
  const jws = await signed(consent);
  for (let at = 0; at < jws.length; at += 7) {
    const other = jws[at] === "A" ? "B" : "A";
    const altered = jws.slice(0, at) + other + jws.slice(at + 1);
    const found = await verify(altered, jwks).catch(({ code }) => ({ verdict: code }));
    // The last character of a part has bits that say nothing.
    if (at !== jws.length - 1) assert.ok(["bad", "receipt_not_one"].includes(found.verdict), `${at}: ${found.verdict}`);
  }
});

test("of another custodian, of another algorithm or unsigned it is not genuine", async () => {
  const other = await generateKeyPair("ES256");
  assert.deepEqual(failed(await verify(await signed(consent, undefined, { key: other.privateKey }), jwks)), ["custodian"]);
  assert.deepEqual(failed(await verify(await signed(consent, undefined, { kid: "other" }), jwks)), ["custodian"]);
  assert.deepEqual(failed(await verify(await signed(consent), { keys: [] })), ["custodian"]);
  const secret = new Uint8Array(32);
  assert.deepEqual(failed(await verify(await signed(consent, undefined, { key: secret, alg: "HS256" }), jwks)), ["custodian"]);
  const [header, payload] = (await signed(consent)).split(".");
  assert.deepEqual(failed(await verify(`${header}.${payload}.`, jwks)), ["custodian"]);
});

// The custodian itself signs these: what it says must still hold together.
const members = [...Object.keys(consent.grant), ...Object.keys(consent.grant.terms).map((name) => `terms.${name}`)];
for (const member of members.filter((name) => name !== "terms")) {
  test(`a receipt with another ${member} than was granted is not genuine, even by the custodian`, async () => {
    const altered = copy(consent);
    const holder = member.startsWith("terms.") ? altered.grant.terms : altered.grant;
    const name = member.replace("terms.", "");
    const was = holder[name];
    holder[name] =
      typeof was === "number" ? was + 1 : Array.isArray(was) ? [...was, "age"] : was.replace(/.$/, (last) => (last === "0" ? "1" : "0"));
    const found = await verify(await signed(altered), jwks);
    assert.equal(found.verdict, "bad");
    assert.deepEqual(failed(found), ["consent", "subject"]);
  });
}

const here = ["place", "consent", "subject"];
for (const [what, change, checks] of [
  ["another consent's id", (one) => { one.consent = consentIds[1]; }, ["consent"]],
  ["another chain", (one) => { one.domain.chainId = 1; }, here],
  ["another contract", (one) => { one.domain.verifyingContract = consent.iss; }, here],
  ["another's signature", (one) => { one.signature = cases[1].signature; }, ["subject"]],
  ["no signature", (one) => { delete one.signature; }, ["subject"]],
  ["no grant", (one) => { delete one.grant; }, ["consent", "subject"]],
  ["no domain", (one) => { delete one.domain; }, here],
]) {
  test(`a receipt of a grant with ${what} is not genuine`, async () => {
    const altered = copy(consent);
    change(altered);
    assert.deepEqual(failed(await verify(await signed(altered), jwks)), checks);
  });
}

for (const [what, change, checks] of [
  ["other consents", (one) => { one.consents.pop(); }, ["revocation"]],
  ["consents in another order", (one) => { one.consents.reverse(); }, ["revocation"]],
  ["no consents", (one) => { one.consents = []; }, ["revocation"]],
  ["nothing as its consents", (one) => { delete one.consents; }, ["revocation"]],
  ["another subject", (one) => { one.subject = consent.iss; }, ["revocation"]],
  ["another's signature", (one) => { one.signature = signature; }, ["revocation"]],
  ["another chain", (one) => { one.domain.chainId = 1; }, ["place", "revocation"]],
]) {
  test(`a receipt of a revocation with ${what} is not genuine`, async () => {
    const altered = copy(revocation);
    change(altered);
    assert.deepEqual(failed(await verify(await signed(altered, "revocation-receipt+jwt"), jwks)), checks);
  });
}

test("a receipt of another deployment is not one of this", async () => {
  const elsewhere = { ...place, contract: consent.iss };
  assert.deepEqual(failed(await verifyAt(await signed(consent), jwks, elsewhere)), ["place"]);
});

test("a smart account's signature is neither good nor bad here", async () => {
  const found = await verify(await signed({ ...consent, signature: `0x${"ab".repeat(130)}` }), jwks);
  assert.deepEqual([found.verdict, found.checks.at(-1)], ["undecided", { name: "subject", good: "contract" }]);
});

test("a proof of erasure that says more than numbers is not one", async () => {
  for (const more of [{ subject: "german-0001" }, { envelopesDestroyed: "61 of Ada" }, { nameDestroyed: 1 }, { disputesDestroyed: -1 }, { readableInBackupsUntilDestroyed: ["Ada"] }, { iss: "Ada" }]) {
    assert.deepEqual(failed(await verify(await signed({ ...erasure, ...more }, "erasure-proof+jwt"), jwks)), ["impersonal"]);
  }
});

test("an access receipt of another chain or contract is not genuine", async () => {
  for (const proof of [{ ...place, chainId: 1 }, { ...place, contract: consent.iss }, undefined]) {
    assert.deepEqual(failed(await verify(await signed({ ...access, proof }, "access-receipt+jwt"), jwks)), ["place"]);
  }
});

test("an access receipt with another entry is not genuine", async () => {
  const altered = copy(access);
  altered.entry.purpose = "model-audit";
  assert.deepEqual(failed(await verify(await signed(altered, "access-receipt+jwt"), jwks)), ["entry"]);
});

test("what is none of ours is said to be none", async () => {
  const foreign = await signed(consent, "JWT");
  for (const none of ["", "a.b", "a.b.c", "{}", "{", '{"receipt": 1}', "null", foreign, "x".repeat(1_000_001), `${btoa("[]")}.bnVsbA.AAAA`]) {
    await refused("receipt_not_one", () => verify(none, jwks));
  }
});
