import assert from "node:assert/strict";
import { test } from "node:test";
import { TypedDataEncoder, verifyTypedData } from "ethers";
import { recoverTypedDataAddress } from "viem";
import { fromHex, toHex } from "../../web/static/portal/bytes.js";
import { signerOf, signTypedData } from "../../web/static/portal/sign.js";
import { digestOf, structHash, typedDataOf } from "../../web/static/portal/typed.js";
import { copy, refused, vectors } from "./vectors.mjs";

const { privateKey, address, cases } = vectors("eip712");
const key = fromHex(privateKey);
const signable = cases.filter(({ typedData }) => typedData.primaryType !== "AccessEntry");
const grant = cases[0].typedData;

for (const { name, typedData, digest, structHash: expected, signature, termsHash } of cases) {
  test(`known answers: ${name}`, () => {
    assert.equal(digestOf(typedData), digest);
    assert.equal(structHash(typedData.primaryType, typedData.message), expected);
    if (termsHash) assert.equal(structHash("Terms", typedData.message.terms), termsHash);
    assert.equal(signerOf(digest, signature), address);
  });
}

for (const { name, typedData, signature } of signable) {
  test(`signed as everyone signs: ${name}`, async () => {
    const signed = signTypedData(typedData, key);
    assert.equal(signed, signature);
    const { EIP712Domain: _, ...types } = typedData.types;
    assert.equal(verifyTypedData(typedData.domain, types, typedData.message, signed), address);
    assert.equal(await recoverTypedDataAddress({ ...typedData, signature: signed }), address);
  });
}

test("an access entry is never signed by a person", async () => {
  await refused("unexpected_typed_data", () => signTypedData(cases.at(-1).typedData, key));
});

test("typed data of ours is made as the service makes it", () => {
  const { domain, message, primaryType } = grant;
  const made = typedDataOf(primaryType, { chainId: domain.chainId, contract: domain.verifyingContract }, message);
  assert.deepEqual(made, grant);
});

const foreign = {
  "another primary type": (one) => { one.primaryType = "Permit"; },
  "a type more": (one) => { one.types.Extra = [{ name: "a", type: "string" }]; },
  "a type less": (one) => { delete one.types.Terms; },
  "a member's type": (one) => { one.types.ConsentGrant[5].type = "uint256"; },
  "members in another order": (one) => { one.types.Terms.reverse(); },
  "a domain with a salt": (one) => { one.types.EIP712Domain.push({ name: "salt", type: "bytes32" }); },
  "a member of the message more": (one) => { one.message.hidden = "1"; },
  "a member of the terms more": (one) => { one.message.terms.hidden = "1"; },
  "a member less": (one) => { delete one.message.maxAccesses; },
  "a member of the domain less": (one) => { delete one.domain.chainId; },
  "a number as text": (one) => { one.message.maxAccesses = "12"; },
  "a fraction": (one) => { one.message.maxAccesses = 1.5; },
  "a negative number": (one) => { one.message.maxAccesses = -1; },
  "a number that does not fit": (one) => { one.message.maxAccesses = 2 ** 32; },
  "a number beyond what JSON can say": (one) => { one.message.expiresAt = 2 ** 60; },
  "a list for a text": (one) => { one.message.terms.purpose = ["loan-origination"]; },
  "a text for a list": (one) => { one.message.terms.attributes = "score"; },
  "half a surrogate pair": (one) => { one.message.terms.institutionName = "Bank \ud800"; },
  "a short hash": (one) => { one.message.terms.salt = "0x12"; },
  "an address that is none": (one) => { one.message.subject = "0x12"; },
  "something beside it": (one) => { one.more = 1; },
};
for (const [what, change] of Object.entries(foreign)) {
  test(`no digest for ${what}`, async () => {
    const altered = copy(grant);
    change(altered);
    await refused("unexpected_typed_data", () => digestOf(altered));
  });
}

test("what has a digest here has the same one with ethers", () => {
  for (const { typedData } of cases) {
    const { EIP712Domain: _, ...types } = typedData.types;
    assert.equal(digestOf(typedData), TypedDataEncoder.hash(typedData.domain, types, typedData.message));
  }
});

test("a signature in its other form, of another length or of no one is none", async () => {
  const { digest, signature } = cases[0];
  const bytes = fromHex(signature);
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const high = (order - BigInt(toHex(bytes.subarray(32, 64)))).toString(16).padStart(64, "0");
  const mirrored = `${signature.slice(0, 66)}${high}${bytes[64] === 27 ? "1c" : "1b"}`;
  for (const bad of [mirrored, signature.slice(0, -2), `${signature}00`, `${signature.slice(0, -2)}00`, "0x", "none"]) {
    await refused("bad_signature", () => signerOf(digest, bad));
  }
});
