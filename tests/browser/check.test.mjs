import assert from "node:assert/strict";
import { test } from "node:test";
import { id as topicOf } from "ethers";
import { checkAccess, entryHashOf } from "../../web/static/portal/check.js";
import { serviceRpc, untilState, walletRpc } from "../../web/static/portal/chain.js";
import { chainOf, place } from "./asking.mjs";
import { copy, refused, vectors } from "./vectors.mjs";

const { typedData, structHash: entryHash } = vectors("eip712").cases.at(-1);
const entry = typedData.message;
const TX = `0x${"ab".repeat(32)}`;
const BLOCK = `0x${"cd".repeat(32)}`;
const access = { entry, entryHash, proof: { chainId: place.chainId, contract: place.contract, transactionHash: TX } };
const recorded = topicOf("AccessRecorded(bytes32,bytes32)");
const refusedTopic = topicOf("AccessRefused(bytes32,bytes32,uint8)");

const logOf = (changes = {}) => ({
  address: place.contract.toLowerCase(),
  topics: [recorded, entry.consentId],
  data: entryHash,
  logIndex: "0x2",
  ...changes,
});

/** A chain with one transaction. */
const chainWith = (logs, { status = "0x1", blockHash = BLOCK, chainId = place.chainId } = {}) => async (method) => ({
  eth_chainId: `0x${chainId.toString(16)}`,
  eth_getTransactionReceipt: logs && { status, logs, blockNumber: "0x10", blockHash: BLOCK },
  eth_getBlockByNumber: { hash: blockHash, timestamp: "0x69559300" },
})[method];

test("the entry's hash is the known one", () => assert.equal(entryHashOf(entry), entryHash));

test("an access that is on chain is found, with its block and time", async () => {
  const strange = logOf({ topics: [recorded, `0x${"11".repeat(32)}`] });
  const found = await checkAccess(access, chainWith([strange, logOf()]));
  assert.deepEqual(found, { entryHash, kind: "recorded", blockNumber: 16, blockHash: BLOCK, timestamp: 0x69559300, logIndex: 2 });
});

test("a refused attempt is found as one", async () => {
  const log = logOf({ topics: [refusedTopic, entry.consentId], data: entryHash + "5".padStart(64, "0") });
  assert.equal((await checkAccess(access, chainWith([log]))).kind, "refused");
});

for (const field of Object.keys(entry)) {
  test(`an opening with another ${field} is not this entry`, async () => {
    const altered = copy(access);
    altered.entry[field] = Array.isArray(entry[field]) ? [...entry[field], "age"] : entry[field].replace(/.$/, (last) => (last === "0" ? "1" : "0"));
    assert.notEqual(entryHashOf(altered.entry), entryHash);
    await refused("check_hash_differs", () => checkAccess(altered, chainWith([logOf()])));
    // Even a service that makes the hash fit is caught by the chain.
    altered.entryHash = entryHashOf(altered.entry);
    await refused(field === "consentId" ? "check_absent" : "check_other", () => checkAccess(altered, chainWith([logOf()])));
  });
}

test("what is not there, failed, is another contract's or another event is absent", async () => {
  for (const rpc of [
    chainWith(null),
    chainWith([]),
    chainWith([logOf()], { status: "0x0" }),
    chainWith([logOf({ address: place.custodian })]),
    chainWith([logOf({ topics: [topicOf("ConsentRevoked(bytes32,address)"), entry.consentId] })]),
  ]) {
    await refused("check_absent", () => checkAccess(access, rpc));
  }
  await refused("check_other", () => checkAccess(access, chainWith([logOf({ data: `0x${"00".repeat(32)}` })])));
});

test("another chain, a block that moved and an endpoint that says nonsense are no confirmation", async () => {
  await refused("wallet_wrong_chain", () => checkAccess(access, chainWith([logOf()], { chainId: 1 })));
  await refused("chain_unreachable", () => checkAccess(access, chainWith([logOf()], { blockHash: `0x${"00".repeat(32)}` })));
  await refused("chain_unreachable", () => checkAccess(access, chainWith("nonsense")));
});

test("the service's pass-through: an answer, an error, another's answer, no answer", async () => {
  const sent = [];
  const answering = (answer) => async (url, { body }) => {
    sent.push([url, JSON.parse(body)]);
    return { json: async () => answer(JSON.parse(body)) };
  };
  assert.equal(await serviceRpc(answering(({ id }) => ({ jsonrpc: "2.0", id, result: "0x1" })))("eth_chainId", []), "0x1");
  assert.deepEqual(sent[0], ["/rpc", { jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] }]);
  for (const answer of [
    ({ id }) => ({ id, error: { code: -32000 } }),
    () => ({ id: 99, result: "0x1" }),
    ({ id }) => ({ id }),
    () => { throw new SyntaxError("no JSON"); },
  ]) {
    await refused("chain_unreachable", () => serviceRpc(answering(answer))("eth_chainId", []));
  }
  await refused("chain_unreachable", () => serviceRpc(async () => { throw new TypeError("no network"); })("eth_chainId", []));
  await refused("chain_unreachable", () => walletRpc({ request: async () => { throw new Error("no"); } })("eth_chainId", []));
});

test("of questions that are asked side by side, each has its own answer, whichever comes first", async () => {
  const waiting = [];
  const rpc = serviceRpc((url, { body }) => new Promise((answer) => waiting.push([JSON.parse(body), answer])));
  const asked = Promise.all([rpc("eth_call", [1]), rpc("eth_call", [2]), rpc("eth_call", [3])]);
  for (const [{ id, params }, answer] of waiting.reverse()) answer({ json: async () => ({ id, result: params[0] }) });
  assert.deepEqual(await asked, [1, 2, 3]);
});

test("waiting for the chain ends when it says so, and after its time", async () => {
  const state = { [entry.consentId]: [1, 2, 3, 0, 1, 0, 1] };
  let waited = 0;
  const pause = async () => {
    waited += 1;
    if (waited === 3) state[entry.consentId][6] = 3;
  };
  assert.equal(await untilState(chainOf(state), place, [entry.consentId], ["revoked"], { pause }), true);
  assert.equal(waited, 3);
  assert.equal(await untilState(chainOf(state), place, [entry.consentId], ["active"], { pause, seconds: 5 }), false);
  assert.equal(waited, 8);
});

test("waiting for as many consents as one signature can stop is within the service's limit of questions", async () => {
  const ids = Array.from({ length: 400 }, (_, at) => `0x${String(at).padStart(64, "0")}`);
  const state = Object.fromEntries(ids.map((id) => [id, [1, 2, 3, 0, 1, 0, 1]]));
  const ask = chainOf(state);
  let asked = 0;
  const rpc = (method, params) => {
    asked += 1;
    return ask(method, params);
  };
  let waited = 0;
  const pause = async () => {
    waited += 1;
    // The slowest: one transaction for each half, the second of them in the last second.
    if (waited === 15) for (const id of ids.slice(0, 200)) state[id][6] = 3;
    if (waited === 30) for (const id of ids.slice(200)) state[id][6] = 3;
  };
  assert.equal(await untilState(rpc, place, ids, ["revoked"], { pause }), true);
  assert.equal(waited, 30);
  assert.ok(asked <= 600, `${asked}`);
  asked = 0;
  state[ids[399]][6] = 1;
  assert.equal(await untilState(rpc, place, ids, ["revoked"], { pause, seconds: 2 }), false);
  assert.ok(asked <= 600, `${asked}`);
});
