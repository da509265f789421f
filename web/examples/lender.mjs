// A lender's way through Consent Ledger with Node 22 or later, `jose`, `http-message-signatures` (RFC 9421) and `viem`:
//
//   npm install                                    # what package.json beside this file names
//   node lender.mjs keys                           # makes lender.keys.json and lender.jwks; the custodian registers that
//   node lender.mjs ask                            # prints the link to hand to the person
//   node lender.mjs consent                        # waits until it is granted, prints the consent's id
//   node lender.mjs release CONSENT ATTRIBUTE...   # asks, opens the answer, checks the receipt against the chain
//
// SERVICE, INSTITUTION, NAME (of the key files) and RPC_URL (an Ethereum node that you trust) come from the environment;
// so does KEY, to ask for the same release again by the key that was printed.
import { createHash, createPrivateKey, createPublicKey, randomBytes, sign, verify } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { httpbis } from "http-message-signatures";
import * as jose from "jose";
import { createPublicClient, decodeEventLog, hashStruct, http, parseAbi } from "viem";

const SERVICE = process.env.SERVICE ?? "http://127.0.0.1:8000";
const INSTITUTION = process.env.INSTITUTION ?? "did:web:lender.example";
const NAME = process.env.NAME ?? "lender";
const RPC_URL = process.env.RPC_URL ?? "http://127.0.0.1:8545";

const read = (file) => JSON.parse(readFileSync(`${NAME}.${file}`, "utf8"));
const write = (file, value) => writeFileSync(`${NAME}.${file}`, JSON.stringify(value, null, 1), { mode: 0o600 });
const digestOf = (body) => `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
const require = (holds, otherwise) => {
  if (!holds) throw new Error(otherwise);
};

// ------------------------------------------------------------------------------------------------ keys

async function keys() {
  const made = {};
  for (const [use, alg, options] of [
    ["sig", "Ed25519", { crv: "Ed25519" }],
    ["enc", "ECDH-ES+A256KW", { crv: "P-256" }],
  ]) {
    const { privateKey } = await jose.generateKeyPair(alg, { ...options, extractable: true });
    const key = await jose.exportJWK(privateKey);
    // Called by its thumbprint (RFC 7638): another key never has the id of an earlier one.
    made[use] = { ...key, use, kid: await jose.calculateJwkThumbprint(key) };
  }
  write("keys.json", made);
  write("jwks", { keys: Object.values(made).map(({ d, ...rest }) => rest) });
  return `${NAME}.jwks`;
}

// Pin this file once you have checked it by another way.
async function deployment() {
  if (!existsSync(`${NAME}.custodian.json`)) {
    write("custodian.json", await (await fetch(`${SERVICE}/.well-known/consent-ledger`)).json());
  }
  const known = read("custodian.json");
  // Every request is signed for the address that the service goes by: @target-uri begins with it.
  require(known.serviceUrl === SERVICE, `the service goes by another address: set SERVICE=${known.serviceUrl}`);
  return known;
}

// ------------------------------------------------------------------------------- requests and answers

// The log has the hash of the try that was answered first, so every try under a key is written down before it is sent.
const sent = (key) => (existsSync(`${NAME}.sent.json`) && read("sent.json")[key]) || [];
const noteSent = (key, hash) =>
  write("sent.json", { ...(existsSync(`${NAME}.sent.json`) && read("sent.json")), [key]: [...sent(key), hash] });

async function call(method, path, content, idempotencyKey) {
  await deployment();
  const own = read("keys.json").sig;
  const body = content === undefined ? undefined : JSON.stringify(content);
  const headers = {
    ...(body && { "content-type": "application/json", "content-digest": digestOf(body) }),
    ...(idempotencyKey && { "idempotency-key": idempotencyKey }),
  };
  const request = await httpbis.signMessage(
    {
      name: "sig",
      key: {
        id: `${INSTITUTION}#${own.kid}`,
        alg: "ed25519",
        sign: async (base) => {
          if (idempotencyKey) noteSent(idempotencyKey, `0x${createHash("sha256").update(base).digest("hex")}`);
          return sign(null, base, createPrivateKey({ key: own, format: "jwk" }));
        },
      },
      fields: ["@method", "@target-uri", ...Object.keys(headers).filter((name) => name !== "content-type")],
      params: ["created", "nonce", "keyid", "alg"],
      paramValues: { nonce: randomBytes(18).toString("base64url") },
    },
    { method, url: SERVICE + path, headers },
  );
  const response = await fetch(SERVICE + path, { method, headers: request.headers, body });
  const text = await response.text();
  await checkAnswer(request, response, text);
  const answer = JSON.parse(text);
  require(response.ok, `refused: ${response.status} ${answer.code}: ${answer.detail}`);
  return answer;
}

// The custodian signed this answer, to this very request.
async function checkAnswer(request, response, text) {
  const { custodian, jwks } = await deployment();
  const headers = Object.fromEntries(response.headers);
  require(headers["content-digest"] === digestOf(text), "the answer's body is not the one that was signed");
  const covered = ['("@status" "@target-uri";req "signature";req "content-digest")'];
  require(covered.some((parts) => headers["signature-input"].startsWith(`sig=${parts}`)), "it covers too little");
  const holds = await httpbis.verifyMessage(
    {
      keyLookup: async ({ keyid }) => {
        const key = jwks.keys.find(({ kid }) => keyid === `${custodian}#${kid}`);
        return (
          key && {
            id: keyid,
            algs: ["ecdsa-p256-sha256"],
            verify: async (base, signature) =>
              verify("sha256", base, { key: createPublicKey({ key, format: "jwk" }), dsaEncoding: "ieee-p1363" }, signature),
          }
        );
      },
    },
    { status: response.status, headers },
    request,
  );
  require(holds === true, "the answer is not signed by the custodian");
}

// --------------------------------------------------------------------------------------------- the way

async function ask() {
  const asked = await call("POST", "/v1/consent-requests", {
    purpose: "loan-origination",
    attributes: ["credit_amount"],
    optionalAttributes: ["savings"],
    validityDays: 30,
    maxAccesses: 2,
    accessesPerDay: 2,
    retentionDays: 14,
  });
  write("request.json", asked);
  return asked.link;
}

async function consent() {
  for (let tries = 0; tries < 60; tries++) {
    const { state, consent: id } = await call("GET", `/v1/consent-requests/${read("request.json").id}`);
    if (state === "granted") return id;
    require(state === "pending", `the request was ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error("not granted yet");
}

async function release(consentId, ...attributes) {
  const asked = { purpose: "loan-origination", attributes };
  const key = process.env.KEY ?? crypto.randomUUID();
  // Whatever fails from here on, the access may be on the log: the same key gets the same answer, and uses nothing up.
  console.error(`KEY=${key}`);
  const released = await call("POST", `/v1/consents/${consentId}/releases`, asked, key);
  write("release.json", released);
  const { answer, receipt } = released;

  // The answer: sealed to our key, and inside it a JWT by the custodian.
  const custodian = await jose.importJWK((await deployment()).jwks.keys[0], "ES256");
  const own = await jose.importJWK(read("keys.json").enc, "ECDH-ES+A256KW");
  const { plaintext } = await jose.compactDecrypt(answer, own);
  const { payload } = await jose.jwtVerify(plaintext, custodian, { typ: "answer+jwt", audience: INSTITUTION });
  require(payload.consent === consentId, "another consent's answer");

  const block = await checkReceipt(receipt, custodian, payload.entryHash, sent(key));
  return JSON.stringify({ values: payload.values, eraseBy: payload.eraseBy, loggedInBlock: block }, null, 1);
}

// The receipt opens the entry on the log: who asked for what under which consent, and by which signed request.
async function checkReceipt(receipt, custodian, expectedHash, requestHashes) {
  const { payload } = await jose.jwtVerify(receipt, custodian, { typ: "access-receipt+jwt" });
  const { entry, entryHash, proof } = payload;
  require(requestHashes.includes(entry.requestHash), "it is about another request than ours");
  const text = (name) => ({ name, type: "string" });
  const word = (name) => ({ name, type: "bytes32" });
  const names = { name: "attributes", type: "string[]" };
  const AccessEntry = [
    ...[word("consentId"), word("releaseId"), text("institution"), text("purpose"), names],
    ...[word("requestHash"), word("recordsHash"), word("salt")],
  ];
  const recomputed = hashStruct({ types: { AccessEntry }, primaryType: "AccessEntry", data: entry });
  require(recomputed === entryHash && entryHash === expectedHash, "the receipt does not open the answer's entry");

  // Where the log is was settled when the file was pinned: the receipt could name any contract.
  const { chainId, contract } = await deployment();
  require(proof.chainId === chainId && proof.contract === contract, "it is about another contract than the pinned one");
  const chain = createPublicClient({ transport: http(RPC_URL) });
  require((await chain.getChainId()) === chainId, "the node is of another chain");
  const mined = await chain.getTransactionReceipt({ hash: proof.transactionHash });
  const log = mined.logs.find(({ logIndex }) => logIndex === proof.logIndex);
  require(log?.address.toLowerCase() === contract.toLowerCase(), "there is no entry of the contract there");
  const abi = parseAbi(["event AccessRecorded(bytes32 indexed consentId, bytes32 entryHash)"]);
  const { args } = decodeEventLog({ abi, ...log });
  require(args.consentId === entry.consentId && args.entryHash === entryHash, "another entry stands there");
  return Number(mined.blockNumber);
}

const ways = { keys, ask, consent, release };
const [way, ...words] = process.argv.slice(2);
try {
  require(way in ways, `expected one of ${Object.keys(ways).join(", ")}`);
  console.log(await ways[way](...words));
} catch (error) {
  console.error(`lender.mjs: ${error.message}`);
  process.exitCode = 1;
}
