import assert from "node:assert/strict";
import { test } from "node:test";
import { computeAddress } from "ethers";
import { fromBase64url, fromHex, toBase64url, toHex } from "../../web/static/portal/bytes.js";
import { addressOf, newRoot, prfInput, subjectKey, unwrapRoot, wrapRoot } from "../../web/static/portal/keys.js";
import { refused, vectors } from "./vectors.mjs";

const known = vectors("subject_keys");

test("the PRF input is the known one", async () => {
  assert.equal(toHex(await prfInput()), known.prfInput);
});

for (const [number, { prfOutput, root, nonce, wrapped }] of known.wraps.entries()) {
  test(`wrapped root ${number} is the known one, and opens`, async () => {
    assert.equal(await wrapRoot(fromHex(prfOutput), fromHex(root), fromHex(nonce)), wrapped);
    assert.equal(toHex(await unwrapRoot(fromHex(prfOutput), wrapped)), root);
  });
}

for (const [number, { root, key, address, ...where }] of known.subjects.entries()) {
  test(`key ${number} is the known one`, async () => {
    const derived = await subjectKey(fromHex(root), where);
    assert.equal(toHex(derived), key);
    assert.equal(addressOf(derived), address);
    assert.equal(computeAddress(key), address);
  });
}

test("the contract's case makes no other key", async () => {
  const { root, key, chainId, contract, institution } = known.subjects[0];
  const shouted = `0x${contract.slice(2).toUpperCase()}`;
  assert.equal(toHex(await subjectKey(fromHex(root), { chainId, contract: shouted, institution })), key);
});

test("another passkey's output opens nothing", async () => {
  const [first, second] = known.wraps;
  await refused("root_does_not_open", () => unwrapRoot(fromHex(second.prfOutput), first.wrapped));
});

test("a wrapped root altered in any byte, cut or longer opens nothing", async () => {
  const { prfOutput, wrapped } = known.wraps[0];
  const bytes = fromBase64url(wrapped);
  for (let at = 0; at < bytes.length; at += 1) {
    const altered = bytes.slice();
    altered[at] ^= 1;
    await refused("root_does_not_open", () => unwrapRoot(fromHex(prfOutput), toBase64url(altered)));
  }
  await refused("root_does_not_open", () => unwrapRoot(fromHex(prfOutput), wrapped.slice(0, -4)));
  await refused("root_does_not_open", () => unwrapRoot(fromHex(prfOutput), `${wrapped}AAAA`));
  await refused("root_does_not_open", () => unwrapRoot(fromHex(prfOutput), ""));
});

test("two wraps of one root have nothing in common", async () => {
  const output = fromHex(known.wraps[0].prfOutput);
  const root = newRoot();
  const [one, two] = [await wrapRoot(output, root), await wrapRoot(output, root)];
  assert.notEqual(one.slice(0, 16), two.slice(0, 16));
  assert.notEqual(one, two);
});

test("no key without a chain, a contract and an institution", async () => {
  const where = { chainId: 1, contract: `0x${"ab".repeat(20)}`, institution: "did:web:x" };
  for (const change of [{ chainId: 0 }, { chainId: "1" }, { contract: "0x12" }, { institution: "" }]) {
    await refused("malformed", () => subjectKey(newRoot(), { ...where, ...change }));
  }
});

test("a key is never zero, whatever the root", async () => {
  const keys = new Set();
  for (let n = 0; n < 32; n += 1) {
    const key = await subjectKey(new Uint8Array(32).fill(n), known.subjects[0]);
    assert.ok(BigInt(toHex(key)) > 0n && key.length === 32);
    keys.add(toHex(key));
  }
  assert.equal(keys.size, 32);
});
