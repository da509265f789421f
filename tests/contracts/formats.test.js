// The formats: what three libraries signed is what the contract accepts, and nothing private fits on chain.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { artifacts } from "hardhat";
import solc from "solc";
import { hashStruct, hashTypedData, recoverTypedDataAddress } from "viem";
import { State, ledgerTests, same } from "./expect.js";
import { Reason, TYPES } from "./typed.js";

const { fresh, emits } = await ledgerTests();
const require = createRequire(import.meta.url);
const { address, cases } = JSON.parse(readFileSync(new URL("../vectors/eip712.json", import.meta.url), "utf8"));
const vector = (name) => cases.find((c) => c.name === name);

describe("EIP-712 vectors", () => {
  for (const { name, typedData, structHash, digest, signature, termsHash } of cases) {
    it(`${name}: viem hashes and recovers it`, async () => {
      const { types, primaryType, message } = typedData;
      same(hashStruct({ types, primaryType, data: message }), structHash);
      same(hashTypedData(typedData), digest);
      same(await recoverTypedDataAddress({ ...typedData, signature }), address);
      if (termsHash) same(hashStruct({ types, primaryType: "Terms", data: message.terms }), termsHash);
    });
  }

  it("their types are the ones that the other tests sign", () => {
    for (const { typedData } of cases.filter((c) => c.typedData.primaryType in TYPES)) {
      const { EIP712Domain, ...types } = typedData.types;
      for (const [type, fields] of Object.entries(types)) assert.deepEqual(TYPES[type], fields);
    }
  });

  // The first contract that a devnet's first account deploys lives at the address of the vectors, on their chain.
  it("the contract of their chain and address accepts every one of them, in turn", async () => {
    const { ledger, domain } = await fresh();
    same(domain, cases[0].typedData.domain);
    const [, name, version, chainId, verifyingContract] = await ledger.read.eip712Domain();
    same({ name, version, chainId, verifyingContract }, domain);

    const grants = cases.filter((c) => c.typedData.primaryType === "ConsentGrant");
    const outer = ({ typedData: { message: { terms, ...fields } }, termsHash }) => ({ ...fields, termsHash });
    for (const g of grants) {
      const { subject, custodian, validFrom, expiresAt, maxAccesses } = outer(g);
      same(await ledger.read.consentIdOf([outer(g)]), g.digest);
      const granted = ["ConsentGranted", g.digest, subject, custodian, validFrom, expiresAt, maxAccesses];
      const numbered = g === grants[0] ? [["CustodianNumbered", custodian, 2]] : [];
      await emits(ledger.write.grant([outer(g), g.signature]), ...numbered, granted);
    }
    const [first, second] = grants;
    for (const [vectorName, state] of [["pause", State.Paused], ["resume", State.Active]]) {
      const { signature, typedData: { message: { paused, sequence } } } = vector(vectorName);
      const call = ledger.write.setPaused([outer(first), paused, sequence, signature]);
      await emits(call, ["ConsentPauseSet", first.digest, paused, sequence]);
      same((await ledger.read.consentOf([first.digest])).state, state);
    }
    const { signature } = vector("revocation of two at once");
    const revocation = ledger.write.revoke([[outer(first), outer(second)], signature]);
    await emits(revocation, ...[first, second].map((g) => ["ConsentRevoked", g.digest, address]));
    const { custodian } = outer(first);
    same(await ledger.read.status([second.digest, custodian]), Reason.Revoked);
  });
});

describe("nothing private fits on chain", () => {
  const unbounded = (type) => /^string|^bytes($|\[)|\[\]/.test(type);

  it("no event and no error carries a string, bytes or a list", async () => {
    const { abi } = await artifacts.readArtifact("ConsentLedger");
    const carriers = abi.filter((item) => item.type === "event" || item.type === "error");
    // The two errors and the event below are OpenZeppelin's and are never raised: the name is short.
    const foreign = ["EIP712DomainChanged", "InvalidShortString", "StringTooLong"];
    const own = carriers.filter((item) => !foreign.includes(item.name));
    assert.equal(own.length, 10 + 14);
    for (const { name, inputs } of own) {
      for (const i of inputs) assert.ok(!unbounded(i.type), `${name}.${i.name}: ${i.type}`);
    }
  });

  it("no function takes a string, and the only bytes are a signature", async () => {
    const { abi } = await artifacts.readArtifact("ConsentLedger");
    const flat = (inputs) => inputs.flatMap((i) => [i, ...flat(i.components ?? [])]);
    const loose = abi.filter((item) => item.type === "function").flatMap((item) => flat(item.inputs));
    const free = loose.filter((i) => /^string|^bytes($|\[)/.test(i.type));
    assert.deepEqual([...new Set(free.map((i) => `${i.type} ${i.name}`))], ["bytes signature"]);
  });

  it("these calls change something, and there is no other: no owner, no upgrade, no fee", async () => {
    const { abi } = await artifacts.readArtifact("ConsentLedger");
    const changing = abi.filter((item) => item.stateMutability && !["view", "pure"].includes(item.stateMutability));
    const log = ["append", "appendCompelled", "appendLate", "appendRefusals", "setWriter"];
    const consents = ["grant", "revoke", "revokeAsCustodian", "setPaused"];
    const functions = changing.filter((item) => item.type === "function").map((item) => item.name);
    assert.deepEqual(functions.toSorted(), [...log, ...consents].toSorted());
    assert.deepEqual([...new Set(changing.map((item) => item.stateMutability))], ["nonpayable"]);
    assert.deepEqual(abi.filter((item) => ["fallback", "receive"].includes(item.type)), []);
  });

  it("no storage slot holds a string, bytes or a list", () => {
    const root = new URL("../../", import.meta.url);
    const load = (path) => readFileSync(path.startsWith("@") ? require.resolve(path) : new URL(path, root), "utf8");
    const input = {
      language: "Solidity",
      sources: { "contracts/ConsentLedger.sol": { content: load("contracts/ConsentLedger.sol") } },
      settings: { evmVersion: "osaka", outputSelection: { "*": { ConsentLedger: ["storageLayout"] } } },
    };
    const compiled = solc.compile(JSON.stringify(input), { import: (path) => ({ contents: load(path) }) });
    const { ConsentLedger } = JSON.parse(compiled).contracts["contracts/ConsentLedger.sol"];
    const { storage, types } = ConsentLedger.storageLayout;
    // OpenZeppelin keeps two fallbacks for long names; "ConsentLedger" and "1" are short and live in the code.
    const own = storage.filter((slot) => !["_nameFallback", "_versionFallback"].includes(slot.label));
    assert.deepEqual(own.map((slot) => slot.label), ["_words", "_numbers", "_lastNumber", "_logs"]);
    const reachable = new Set();
    const reach = (id) => {
      const { label, key, value, base, members = [] } = types[id];
      reachable.add(label);
      for (const next of [key, value, base, ...members.map((m) => m.type)]) if (next) reach(next);
    };
    for (const slot of own) reach(slot.type);
    for (const label of reachable) assert.ok(label.startsWith("mapping") || !unbounded(label), label);
  });

  it("the fallback strings stay empty in the deployed ledger", async () => {
    const { ledger, publicClient } = await fresh();
    for (const slot of ["0x0", "0x1"]) {
      same(BigInt(await publicClient.getStorageAt({ address: ledger.address, slot })), 0);
    }
  });
});
