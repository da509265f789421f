// Who may speak for a subject: every way to forge, bend or borrow a signature, for each of the three signed calls,
// and subjects whose account is a contract.
import { describe, it } from "node:test";
import { hashTypedData, parseSignature, serializeCompactSignature, serializeSignature, toHex } from "viem";
import { State, ledgerTests, same } from "./expect.js";
import { Reason, TYPES, newSubject, random32 } from "./typed.js";

const { fresh, emits, refuses, networkHelpers, viem } = await ledgerTests();

const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/** The three signed calls: how each is signed, what digest the contract must name, how it is sent. */
const CALLS = {
  grant: {
    prepare: (ctx, changes) => ctx.newGrant(changes),
    message: (g) => ["ConsentGrant", g.message],
    sign: (ctx, g, by, on) => ctx.signGrant(g, by, on),
    send: (ctx, g, signature, options) => ctx.ledger.write.grant([g.outer, signature], options),
    done: { reason: Reason.None, state: State.Active },
  },
  revoke: {
    prepare: (ctx, changes) => ctx.newGrant(changes),
    message: (g) => ["ConsentRevocation", { consentIds: [g.id] }],
    sign: (ctx, g, by = g.subject, on) => ctx.signRevocation([g], by, on),
    send: (ctx, g, signature, options) => ctx.ledger.write.revoke([[g.outer], signature], options),
    done: { reason: Reason.Revoked, state: State.Revoked },
  },
  setPaused: {
    prepare: (ctx, changes) => grantedFor(ctx, changes),
    message: (g) => ["ConsentPause", { consentId: g.id, paused: true, sequence: 1 }],
    sign: (ctx, g, by, on) => ctx.signPause(g, true, 1, by, on),
    send: (ctx, g, signature, options) => ctx.ledger.write.setPaused([g.outer, true, 1, signature], options),
    done: { reason: Reason.Paused, state: State.Paused },
  },
};

/** A standing consent of a subject that may be a contract, which has no key to sign with. */
async function grantedFor(ctx, changes = {}) {
  const g = await ctx.newGrant(changes);
  if (g.subject.signTypedData) await ctx.ledger.write.grant([g.outer, await ctx.signGrant(g)]);
  else await asAccount(g.subject.address, (account) => ctx.ledger.write.grant([g.outer, "0x"], { account }));
  return g;
}

async function asAccount(address, call) {
  await networkHelpers.impersonateAccount(address);
  await networkHelpers.setBalance(address, 10n ** 18n);
  return call(address);
}

const digestOf = ({ domain }, [primaryType, message]) => hashTypedData({ domain, types: TYPES, primaryType, message });

/** What a forger may send instead of the subject's signature over this call. */
const FORGERIES = {
  "no signature": () => "0x",
  "one byte": () => "0x01",
  "64 bytes": ({ good }) => good.slice(0, -2),
  "66 bytes": ({ good }) => good + "00",
  "the compact form (ERC-2098), which is a second encoding": ({ good }) => serializeCompactSignature(compact(good)),
  "65 zero bytes": () => toHex(new Uint8Array(65)),
  "65 random bytes": () => random32() + random32().slice(2) + "1b",
  "a v that is neither 27 nor 28": ({ good }) => good.slice(0, -2) + "00",
  "the other v": ({ good }) => good.slice(0, -2) + (good.endsWith("1b") ? "1c" : "1b"),
  "the same signature with high s": ({ good }) => highS(good),
  "another person's key": ({ ctx, call, g }) => call.sign(ctx, g, newSubject()),
  "the custodian's key": ({ ctx, g, call }) => signedBy(ctx, ctx.custodian, call.message(g)),
  "a signature for another chain": ({ ctx, call, g }) => call.sign(ctx, g, g.subject, { ...ctx.domain, chainId: 1 }),
  "a signature for another contract": ({ ctx, call, g }) =>
    call.sign(ctx, g, g.subject, { ...ctx.domain, verifyingContract: ctx.custodian.account.address }),
  "a signature for another version": ({ ctx, call, g }) =>
    call.sign(ctx, g, g.subject, { ...ctx.domain, version: "2" }),
  "a signature for another consent of the same subject": async ({ ctx, call, g }) =>
    call.sign(ctx, await ctx.newGrant({ subject: g.subject }), g.subject),
  "the digest signed as a plain message": ({ digest, g }) => g.subject.signMessage({ message: { raw: digest } }),
};
const signedBy = (ctx, wallet, [primaryType, message]) =>
  wallet.signTypedData({ domain: ctx.domain, types: TYPES, primaryType, message });
const compact = (signature) => {
  const { r, s, yParity } = parseSignature(signature);
  return { r, yParityAndS: toHex(BigInt(s) | (BigInt(yParity) << 255n), { size: 32 }) };
};
const highS = (signature) => {
  const { r, s, yParity } = parseSignature(signature);
  return serializeSignature({ r, s: toHex(CURVE_ORDER - BigInt(s), { size: 32 }), yParity: 1 - yParity });
};

for (const [name, call] of Object.entries(CALLS)) {
  describe(`${name}: only the subject's own signature counts`, () => {
    for (const [forgery, forge] of Object.entries(FORGERIES)) {
      it(`${forgery} is refused`, async () => {
        const ctx = await fresh();
        const g = await call.prepare(ctx);
        const before = await ctx.ledger.read.consentOf([g.id]);
        const digest = digestOf(ctx, call.message(g));
        const forged = await forge({ ctx, call, g, digest, good: await call.sign(ctx, g) });
        await refuses(call.send(ctx, g, forged), "InvalidSignature", g.subject.address, digest);
        same(await ctx.ledger.read.consentOf([g.id]), before);
      });
    }

    for (const [other, { sign }] of Object.entries(CALLS).filter(([other]) => other !== name)) {
      it(`a signature meant for ${other} is refused`, async () => {
        const ctx = await fresh();
        const g = await call.prepare(ctx);
        const digest = digestOf(ctx, call.message(g));
        await refuses(call.send(ctx, g, await sign(ctx, g)), "InvalidSignature", g.subject.address, digest);
      });
    }

    it("a call from the custodian without a signature is refused", async () => {
      const ctx = await fresh();
      const g = await call.prepare(ctx);
      const digest = digestOf(ctx, call.message(g));
      const by = { account: ctx.custodian.account };
      await refuses(call.send(ctx, g, "0x", by), "InvalidSignature", g.subject.address, digest);
    });

    it("nobody speaks for the zero address, whose key a failed recovery seems to name", async () => {
      const ctx = await fresh();
      const g = await ctx.newGrant({ subject: { address: "0x0000000000000000000000000000000000000000" } });
      const digest = digestOf(ctx, call.message(g));
      await refuses(call.send(ctx, g, toHex(new Uint8Array(65))), "InvalidSignature", g.outer.subject, digest);
    });
  });
}

describe("a signature says what it says, no more", () => {
  it("a grant that another field was changed in is another grant", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant();
    const signature = await ctx.signGrant(g);
    const changes = {
      termsHash: random32(),
      subject: newSubject().address,
      custodian: ctx.stranger.account.address,
      validFrom: g.outer.validFrom - 1n,
      expiresAt: g.outer.expiresAt + 1n,
      maxAccesses: g.outer.maxAccesses + 1,
    };
    for (const [field, value] of Object.entries(changes)) {
      const wider = { ...g.outer, [field]: value };
      const digest = await ctx.ledger.read.consentIdOf([wider]);
      await refuses(ctx.ledger.write.grant([wider, signature]), "InvalidSignature", wider.subject, digest);
    }
  });

  it("a revocation of two can be neither cut, nor stretched, nor turned round", async () => {
    const ctx = await fresh();
    const subject = newSubject();
    const [a, b, c] = [await ctx.granted({ subject }), await ctx.granted({ subject }), await ctx.granted({ subject })];
    const signature = await ctx.signRevocation([a, b]);
    for (const others of [[a], [b], [b, a], [a, b, c], [a, b, b], [a, c]]) {
      const digest = digestOf(ctx, ["ConsentRevocation", { consentIds: others.map((g) => g.id) }]);
      const call = ctx.ledger.write.revoke([others.map((g) => g.outer), signature]);
      await refuses(call, "InvalidSignature", subject.address, digest);
    }
    same(await Promise.all([a, b, c].map((g) => ctx.status(g))), [Reason.None, Reason.None, Reason.None]);
  });

  it("a pause cannot be turned into a resume, nor moved to another sequence", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const signature = await ctx.signPause(g, true, 1);
    for (const [paused, sequence] of [[false, 1], [true, 2], [false, 2]]) {
      const digest = digestOf(ctx, ["ConsentPause", { consentId: g.id, paused, sequence }]);
      const call = ctx.ledger.write.setPaused([g.outer, paused, sequence, signature]);
      await refuses(call, "InvalidSignature", g.subject.address, digest);
    }
  });

  it("a signature for one ledger is nothing to a second one on the same chain", async () => {
    const ctx = await fresh();
    const second = await viem.deployContract("ConsentLedger");
    const g = await ctx.newGrant();
    const digest = await second.read.consentIdOf([g.outer]);
    await refuses(second.write.grant([g.outer, await ctx.signGrant(g)]), "InvalidSignature", g.outer.subject, digest);
  });
});

// ERC-1271 wallets as bytecode: PUSH the answer, MSTORE, RETURN.
const MAGIC = "631626ba7e60e01b";
const YES = `0x${MAGIC}5f5260205ff3`;
const BAD_WALLETS = {
  "says no": "0x5f195f5260205ff3", // 32 bytes of ff
  "returns zero": "0x60205ff3",
  "returns the magic value at the wrong end": "0x631626ba7e5f5260205ff3",
  "returns the magic value and dirt": `0x${MAGIC}6001175f5260205ff3`,
  "returns only four bytes": `0x${MAGIC}5f5260045ff3`,
  "returns nothing": "0x00",
  "reverts": "0x5f5ffd",
  "reverts with the magic value": `0x${MAGIC}5f5260205ffd`,
  "burns its gas": "0xfe",
  "says yes, but only after a write": `0x60015f55${YES.slice(2)}`,
};

describe("a subject that is a contract (ERC-1271)", () => {
  const wallet = async (code) => {
    const { address } = newSubject();
    await networkHelpers.setCode(address, code);
    return { address };
  };

  for (const [name, call] of Object.entries(CALLS)) {
    it(`${name}: its yes counts, whatever the signature looks like`, async () => {
      for (const signature of ["0x", "0x01", random32(), random32() + "ff", random32() + random32().slice(2) + "1b"]) {
        const ctx = await fresh();
        const g = await call.prepare(ctx, { subject: await wallet(YES) });
        await ctx.mined(call.send(ctx, g, signature));
        same((await ctx.ledger.read.consentOf([g.id])).state, call.done.state);
        same(await ctx.status(g), call.done.reason);
      }
    });

    it(`${name}: a wallet may also call by itself, even one that answers no signature`, async () => {
      const ctx = await fresh();
      const g = await call.prepare(ctx, { subject: await wallet("0x5f5ffd") });
      await asAccount(g.outer.subject, (account) => ctx.mined(call.send(ctx, g, "0x", { account })));
      same(await ctx.status(g), call.done.reason);
    });

    for (const [fault, code] of Object.entries(BAD_WALLETS)) {
      it(`${name}: a wallet that ${fault} did not sign`, async () => {
        const ctx = await fresh();
        const g = await call.prepare(ctx, { subject: await wallet(code) });
        const digest = digestOf(ctx, call.message(g));
        const signature = await call.sign(ctx, g, newSubject());
        await refuses(call.send(ctx, g, signature), "InvalidSignature", g.outer.subject, digest);
      });
    }

    it(`${name}: a key whose account was given code (EIP-7702) keeps its say`, async () => {
      const ctx = await fresh();
      const g = await call.prepare(ctx);
      const { address: contractAddress } = await wallet("0x5f5ffd");
      const { address } = g.subject;
      const nonce = await ctx.publicClient.getTransactionCount({ address });
      const authorization = await g.subject.signAuthorization({ contractAddress, chainId: ctx.chainId, nonce });
      const to = ctx.relayer.account.address;
      await ctx.mined(ctx.relayer.sendTransaction({ to, gas: 200_000n, authorizationList: [authorization] }));
      same(await ctx.publicClient.getCode({ address }), "0xef0100" + contractAddress.slice(2));
      await ctx.mined(call.send(ctx, g, await call.sign(ctx, g)));
      same(await ctx.status(g), call.done.reason);
    });
  }

  it("its grant emits and stands like any other", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant({ subject: await wallet(YES) });
    const { subject, custodian, validFrom, expiresAt, maxAccesses } = g.outer;
    const granted = ["ConsentGranted", g.id, subject, custodian, validFrom, expiresAt, maxAccesses];
    await emits(CALLS.grant.send(ctx, g, "0x"), granted);
    await emits(CALLS.revoke.send(ctx, g, "0x"), ["ConsentRevoked", g.id, subject]);
  });
});
