import assert from "node:assert/strict";
import { test } from "node:test";
import { Wallet, verifyMessage } from "ethers";
import { walletSigner } from "../../web/static/portal/signer.js";
import { connect, discover, prove, signTypedData, switchChain } from "../../web/static/portal/wallet.js";
import { signGrant } from "../../web/static/portal/grant.js";
import { asked, choices, memory, NOW, place, service } from "./asking.mjs";
import { refused, vectors } from "./vectors.mjs";

const grant = vectors("eip712").cases[0].typedData;
const person = new Wallet(`0x${"17".repeat(32)}`);
const stranger = new Wallet(`0x${"18".repeat(32)}`);

/** A wallet with a real key. `says`: errors or answers by method, in place of its own. */
function provider({ key = person, chain = place.chainId, known = [place.chainId], says = {} } = {}) {
  const seen = [];
  let on = chain;
  const own = {
    eth_requestAccounts: () => [key.address.toLowerCase()],
    eth_chainId: () => `0x${on.toString(16)}`,
    eth_getCode: () => "0x",
    wallet_switchEthereumChain: ([{ chainId }]) => {
      if (!known.includes(Number(chainId))) throw Object.assign(new Error("unknown"), { code: 4902 });
      on = Number(chainId);
      return null;
    },
    eth_signTypedData_v4: ([, json]) => {
      const { domain, types: { EIP712Domain: _, ...types }, message } = JSON.parse(json);
      return key.signTypedData(domain, types, message);
    },
    personal_sign: ([hex]) => key.signMessage(Buffer.from(hex.slice(2), "hex")),
  };
  return {
    seen,
    request: async ({ method, params }) => {
      seen.push(method);
      const said = method in says ? says[method] : own[method];
      if (said instanceof Error) throw said;
      return typeof said === "function" ? said(params) : said;
    },
  };
}

const error = (code) => Object.assign(new Error("as wallets say it"), { code });
const wanted = { chainId: place.chainId, accounts: [person.address] };

test("wallets that announce themselves are found, each once, and a page's rubbish is not", async () => {
  const page = new EventTarget();
  const announce = (detail) => page.dispatchEvent(Object.assign(new Event("eip6963:announceProvider"), { detail }));
  const one = provider();
  page.addEventListener("eip6963:requestProvider", () => {
    announce({ info: { uuid: "1", name: "One" }, provider: one });
    announce({ info: { uuid: "1", name: "One" }, provider: one });
    announce({ info: { uuid: "2", name: "Two" }, provider: provider() });
    announce({ info: { uuid: "3" } });
    announce(null);
  });
  page.ethereum = provider();
  assert.deepEqual((await discover(page, 5)).map(({ info }) => info.name), ["One", "Two"]);
});

test("an old wallet is found where nothing announces itself, and none where there is none", async () => {
  const page = new EventTarget();
  assert.deepEqual(await discover(page, 5), []);
  page.ethereum = provider();
  assert.equal((await discover(page, 5))[0].info.uuid, "legacy");
});

test("connected: the linked account, in checksum form", async () => {
  assert.equal(await connect(provider(), wanted), person.address);
});

test("a linked account that is not the wallet's first is taken", async () => {
  const says = { eth_requestAccounts: [stranger.address, person.address] };
  assert.equal(await connect(provider({ says }), wanted), person.address);
});

test("each way of not being ready has its own code", async () => {
  await refused("wallet_missing", () => connect(undefined, wanted));
  await refused("wallet_wrong_account", () => connect(provider({ key: stranger }), wanted));
  await refused("wallet_wrong_chain", () => connect(provider({ chain: 1 }), wanted));
  await refused("wallet_locked", () => connect(provider({ says: { eth_requestAccounts: [] } }), wanted));
  for (const [code, expected] of [
    [4001, "wallet_rejected"], [4100, "wallet_locked"], [4900, "wallet_disconnected"], [-32002, "wallet_busy"], [-32603, "wallet_failed"],
  ]) {
    await refused(expected, () => connect(provider({ says: { eth_requestAccounts: error(code) } }), wanted));
  }
});

test("the right chain is offered, and an unknown, declined or pretended change is said", async () => {
  const wallet = provider({ chain: 1 });
  await switchChain(wallet, place.chainId);
  assert.equal(await connect(wallet, wanted), person.address);
  await refused("wallet_unknown_chain", () => switchChain(provider({ chain: 1, known: [] }), place.chainId));
  const says = (said) => provider({ chain: 1, says: { wallet_switchEthereumChain: said } });
  await refused("wallet_rejected", () => switchChain(says(error(4001)), place.chainId));
  await refused("wallet_wrong_chain", () => switchChain(says(null), place.chainId));
});

test("typed data goes to the wallet in full, and its signature is checked", async () => {
  const wallet = provider();
  const { EIP712Domain: _, ...types } = grant.types;
  assert.equal(
    await signTypedData(wallet, person.address, grant),
    await person.signTypedData(grant.domain, types, grant.message),
  );
  await refused("unexpected_typed_data", () => signTypedData(wallet, person.address, { ...grant, primaryType: "Permit" }));
});

test("a recovery id of 0 or 1 is written as 27 or 28", async () => {
  const { EIP712Domain: _, ...types } = grant.types;
  const usual = await person.signTypedData(grant.domain, types, grant.message);
  const bare = usual.slice(0, -2) + (usual.endsWith("1b") ? "00" : "01");
  assert.equal(await signTypedData(provider({ says: { eth_signTypedData_v4: bare } }), person.address, grant), usual);
});

test("rejected, by another account or no signature at all: refused", async () => {
  const says = (said) => provider({ says: { eth_signTypedData_v4: said } });
  await refused("wallet_rejected", () => signTypedData(says(error(4001)), person.address, grant));
  await refused("wallet_wrong_account", () => signTypedData(provider({ key: stranger }), person.address, grant));
  for (const none of ["0x", null, undefined, "signed", `0x${"00".repeat(65)}`]) {
    await refused("bad_signature", () => signTypedData(says(none ?? null), person.address, grant));
  }
});

test("a smart account's signature is the chain's to judge", async () => {
  const long = `0x${"ab".repeat(130)}`;
  assert.equal(await signTypedData(provider({ says: { eth_signTypedData_v4: long } }), person.address, grant), long);
  const odd = `0x${"ab".repeat(65)}`;
  const contract = provider({ says: { eth_signTypedData_v4: odd, eth_getCode: "0x6001" } });
  assert.equal(await signTypedData(contract, person.address, grant), odd);
});

test("a smart account's signature under a text is handed in as it is", async () => {
  const posted = [];
  const post = async (url, body) => {
    posted.push([url, body]);
    return url.endsWith("challenge") ? { text: `localhost wants\n${person.address}\n` } : { next: "/" };
  };
  for (const signature of ["0xAB00", `0x${"AB".repeat(99)}01`]) {
    const wallet = provider({ says: { personal_sign: signature } });
    await prove(wallet, { use: "sign-in", chainId: place.chainId }, { post });
    assert.equal(posted.at(-1)[1].signature, signature);
  }
});

test("a prompt that is rejected in mid-grant: nothing is kept, nothing sent", async () => {
  const wallet = provider({ says: { eth_signTypedData_v4: error(4001) } });
  const signer = await walletSigner(wallet, place, [person.address]);
  const given = service();
  const deps = { post: given.post, rpc: given.rpc, storage: memory(), now: () => NOW };
  await refused("wallet_rejected", () => signGrant(asked, choices, place, signer, async () => true, deps));
  assert.equal(deps.storage.kept.size, 0);
  assert.deepEqual(given.seen.map(([url]) => url.split("/").at(-1)), ["draft"]);
});

test("proof by a text of the service: signed and sent once", async () => {
  const sent = [];
  const text = `127.0.0.1:8000 wants you to sign in with your Ethereum account:\n${person.address}\n\nSign in.`;
  const post = async (url, body) => {
    sent.push([url, body]);
    return url.endsWith("/challenge") ? { text } : { next: "/" };
  };
  const given = { use: "enrol", chainId: place.chainId, code: "CODE", next: "/data" };
  assert.deepEqual(await prove(provider(), given, { post }), { next: "/" });
  assert.deepEqual(sent[0][1], { address: person.address, chainId: place.chainId, use: "enrol", code: "CODE" });
  assert.deepEqual(Object.keys(sent[1][1]), ["signature", "next"]);
  assert.equal(verifyMessage(text, sent[1][1].signature), person.address);
});

test("a text for another site is not signed", async () => {
  globalThis.location = { host: "portal.example" };
  try {
    const wallet = provider();
    for (const text of [
      `evil.example wants you to sign in with your Ethereum account:\n${person.address}\n`,
      `portal.example.evil wants you to sign in with your Ethereum account:\n${person.address}\n`,
      `portal.example wants you to sign in with your Ethereum account:\n${stranger.address}\n`,
      "anything",
    ]) {
      await refused("wallet_text_foreign", () => prove(wallet, { use: "sign-in", chainId: place.chainId }, { post: async () => ({ text }) }));
    }
    assert.ok(!wallet.seen.includes("personal_sign"));
  } finally {
    delete globalThis.location;
  }
});
