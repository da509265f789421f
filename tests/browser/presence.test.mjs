import assert from "node:assert/strict";
import { test } from "node:test";
import { showPresence } from "../../web/static/portal/presence.js";

const NOW = Math.floor(Date.now() / 1000);
const wallets = ["0x00000000000000000000000000000000000000AA"];
const texts = { touch_passkey: "passkey", look_at_wallet: "wallet" };

/** Which of the two was asked for, and what the page said before. */
async function asked(portal, given) {
  const seen = [];
  const place = { textContent: "", setAttribute: () => {} };
  const root = Uint8Array.of(1, 2, 3);
  const deps = {
    stepUp: async () => {
      seen.push(`passkey, said ${place.textContent}`);
      return { root };
    },
    wallet: async () => seen.push(`wallet, said ${place.textContent}`),
  };
  await showPresence({ texts, ...portal }, /** @type {any} */ (place), given, deps);
  return { seen, root: [...root] };
}

test("whoever showed it less than five minutes ago is not asked again, unless the service says so", async () => {
  const portal = { passkey: true, wallets: [], signedInBy: "passkey", stepUpUntil: NOW + 100 };
  assert.deepEqual((await asked(portal)).seen, []);
  assert.deepEqual((await asked(portal, { always: true })).seen, ["passkey, said passkey"]);
  assert.deepEqual((await asked({ ...portal, stepUpUntil: NOW - 1 })).seen, ["passkey, said passkey"]);
  assert.deepEqual((await asked({ ...portal, stepUpUntil: null })).seen, ["passkey, said passkey"]);
});

test("of both kinds the one that signed in is asked for: the other may be the one that is lost", async () => {
  const both = { passkey: true, wallets, stepUpUntil: null };
  assert.deepEqual((await asked({ ...both, signedInBy: "wallet" })).seen, ["wallet, said wallet"]);
  assert.deepEqual((await asked({ ...both, signedInBy: "passkey" })).seen, ["passkey, said passkey"]);
  // The one that signed in is gone meanwhile.
  assert.deepEqual((await asked({ ...both, wallets: [], signedInBy: "wallet" })).seen, ["passkey, said passkey"]);
  assert.deepEqual((await asked({ ...both, passkey: false, signedInBy: "passkey" })).seen, ["wallet, said wallet"]);
});

test("the root secret that comes with the touch is not left lying about", async () => {
  const { root } = await asked({ passkey: true, wallets: [], signedInBy: "passkey", stepUpUntil: null });
  assert.deepEqual(root, [0, 0, 0]);
});
