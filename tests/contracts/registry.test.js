// The room of consents: grant, revoke, pause, revoke as custodian. Signatures have their own file.
import { describe, it } from "node:test";
import { zeroAddress, zeroHash } from "viem";
import { State, ledgerTests, same } from "./expect.js";
import { Reason, newSubject, random32 } from "./typed.js";

const { fresh, emits, refuses, networkHelpers } = await ledgerTests();
const { time } = networkHelpers;

const UINT48 = 2n ** 48n - 1n, UINT32 = 2 ** 32 - 1, UINT64 = 2n ** 64n - 1n;
const NOTHING = { validFrom: 0, expiresAt: 0, maxAccesses: 0, accesses: 0, custodianNumber: 0, pauseSequence: 0 };
const consentOf = (ctx, g) => ctx.ledger.read.consentOf([g.id]);
const grant = async (ctx, g) => ctx.ledger.write.grant([g.outer, await ctx.signGrant(g)]);
const revoke = async (ctx, ...grants) =>
  ctx.ledger.write.revoke([grants.map((g) => g.outer), await ctx.signRevocation(grants)]);
const setPaused = async (ctx, g, paused, sequence) =>
  ctx.ledger.write.setPaused([g.outer, paused, sequence, await ctx.signPause(g, paused, sequence)]);
const stored = (g, changes = {}) => {
  const { validFrom, expiresAt, maxAccesses } = g.outer;
  return { ...NOTHING, validFrom, expiresAt, maxAccesses, custodianNumber: 1, state: State.Active, ...changes };
};
const granted = (g) => {
  const { subject, custodian, validFrom, expiresAt, maxAccesses } = g.outer;
  return ["ConsentGranted", g.id, subject, custodian, validFrom, expiresAt, maxAccesses];
};
/** A subject that has gas and can call by itself. */
const caller = (wallet) => ({ address: wallet.account.address });

describe("grant", () => {
  it("relayed by anyone, it stands exactly as signed", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant();
    same(await consentOf(ctx, g), { ...NOTHING, state: State.Unknown });
    same(await ctx.ledger.read.consentIdOf([g.outer]), g.id);
    await emits(grant(ctx, g), granted(g));
    same(await consentOf(ctx, g), stored(g));
    same(await ctx.status(g), Reason.None);
  });

  it("called by the subject itself, it needs no signature", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant({ subject: caller(ctx.stranger) });
    await emits(ctx.ledger.write.grant([g.outer, "0x"], { account: ctx.stranger.account }), granted(g));
    same(await consentOf(ctx, g), stored(g));
  });

  it("a window that can never be used, or not be stored, is refused", async () => {
    const ctx = await fresh();
    const windows = [[5n, 5n], [6n, 5n], [0n, 0n], [0n, UINT48 + 1n], [UINT64, UINT64], [1n, UINT64]];
    for (const [validFrom, expiresAt] of windows) {
      await refuses(grant(ctx, await ctx.newGrant({ validFrom, expiresAt })), "InvalidWindow", validFrom, expiresAt);
    }
  });

  it("the widest values that fit are kept in full and do not run into each other", async () => {
    const ctx = await fresh();
    const widest = await ctx.granted({ validFrom: UINT48 - 1n, expiresAt: UINT48, maxAccesses: UINT32 });
    same(await consentOf(ctx, widest), stored(widest));
    const onlyWindow = await ctx.granted({ validFrom: 0n, expiresAt: UINT48, maxAccesses: 1 });
    same(await consentOf(ctx, onlyWindow), stored(onlyWindow));
    await setPaused(ctx, onlyWindow, true, UINT32);
    same(await consentOf(ctx, onlyWindow), stored(onlyWindow, { pauseSequence: UINT32, state: State.Paused }));
  });

  it("a window that has passed is accepted, so that a lost chain can be rebuilt, and never usable", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant({ validFrom: 1n, expiresAt: 2n });
    await emits(grant(ctx, g), granted(g));
    same(await ctx.status(g), Reason.Expired);
  });

  it("zero accesses means none, not for ever", async () => {
    const ctx = await fresh();
    await refuses(grant(ctx, await ctx.newGrant({ maxAccesses: 0 })), "NoAccessAllowed");
  });

  it("a grant that names no custodian is refused", async () => {
    const ctx = await fresh();
    await refuses(grant(ctx, await ctx.newGrant({ custodian: zeroAddress })), "CustodianMissing");
  });

  it("the same grant twice is refused, and changes nothing", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await ctx.append([ctx.access(g)]);
    await refuses(grant(ctx, g), "ConsentAlreadyGranted", g.id);
    await setPaused(ctx, g, true, 1);
    await refuses(grant(ctx, g), "ConsentAlreadyGranted", g.id);
    same(await consentOf(ctx, g), stored(g, { accesses: 1, pauseSequence: 1, state: State.Paused }));
  });

  it("a revoked consent cannot be granted again", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await revoke(ctx, g);
    await refuses(grant(ctx, g), "ConsentAlreadyRevoked", g.id);
    same(await ctx.status(g), Reason.Revoked);
  });

  it("a custodian is numbered once, when it is first named", async () => {
    const ctx = await fresh();
    const [first, second] = [ctx.custodian.account.address, newSubject().address];
    same(await ctx.ledger.read.numberOf([first]), 1);
    same(await ctx.ledger.read.numberOf([second]), 0);
    const g = await ctx.newGrant({ custodian: second });
    await emits(grant(ctx, g), ["CustodianNumbered", second, 2], granted(g));
    const again = await ctx.newGrant({ custodian: second });
    await emits(grant(ctx, again), granted(again));
    same([await ctx.ledger.read.numberOf([first]), await ctx.ledger.read.numberOf([second])], [1, 2]);
    same((await consentOf(ctx, again)).custodianNumber, 2);
  });
});

describe("revoke", () => {
  it("relayed by anyone, it ends the consent and keeps what was counted", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await ctx.append([ctx.access(g)]);
    await emits(revoke(ctx, g), ["ConsentRevoked", g.id, g.subject.address]);
    same(await consentOf(ctx, g), stored(g, { accesses: 1, state: State.Revoked }));
    same(await ctx.status(g), Reason.Revoked);
  });

  it("called by the subject itself, it needs no signature and no custodian alive", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant({ subject: caller(ctx.stranger) });
    const by = { account: ctx.stranger.account };
    await ctx.ledger.write.grant([g.outer, "0x"], by);
    await emits(ctx.ledger.write.revoke([[g.outer], "0x"], by), ["ConsentRevoked", g.id, g.outer.subject]);
    same(await ctx.status(g), Reason.Revoked);
  });

  it("twice, the second time emits nothing", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await emits(revoke(ctx, g), ["ConsentRevoked", g.id, g.subject.address]);
    await emits(revoke(ctx, g));
    same(await ctx.status(g), Reason.Revoked);
  });

  it("before its grant arrives, it keeps the grant out for ever", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant();
    await emits(revoke(ctx, g), ["ConsentRevoked", g.id, g.subject.address]);
    same(await consentOf(ctx, g), { ...NOTHING, state: State.Revoked });
    await refuses(grant(ctx, g), "ConsentAlreadyRevoked", g.id);
    same(await ctx.status(g), Reason.Revoked);
  });

  it("many by one signature: granted, paused, used up, expired, unknown, doubled", async () => {
    const ctx = await fresh();
    const subject = newSubject();
    const usual = await ctx.granted({ subject });
    const paused = await ctx.granted({ subject });
    await setPaused(ctx, paused, true, UINT32);
    const usedUp = await ctx.granted({ subject, maxAccesses: 1 });
    await ctx.append([ctx.access(usedUp)]);
    const expired = await ctx.granted({ subject, validFrom: 1n, expiresAt: 2n });
    const unknown = await ctx.newGrant({ subject });
    const all = [usual, paused, usedUp, expired, unknown];
    await emits(revoke(ctx, ...all, usual), ...all.map((g) => ["ConsentRevoked", g.id, subject.address]));
    const { address } = ctx.custodian.account;
    same(await ctx.ledger.read.statuses([all.map((g) => g.id), address]), all.map(() => Reason.Revoked));
  });

  it("even a grant that would be refused can be revoked", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant({ custodian: zeroAddress, maxAccesses: 0, validFrom: UINT64, expiresAt: 0n });
    await emits(revoke(ctx, g), ["ConsentRevoked", g.id, g.subject.address]);
  });

  it("nothing to revoke is refused", async () => {
    const ctx = await fresh();
    const subject = newSubject();
    const signature = await ctx.signRevocation([], subject);
    await refuses(ctx.ledger.write.revoke([[], signature]), "EmptyBatch");
  });

  it("another subject's consent cannot hide among one's own", async () => {
    const ctx = await fresh();
    const victim = await ctx.granted();
    const mine = await ctx.granted();
    const [expected, found] = [mine.subject.address, victim.subject.address];
    await refuses(revoke(ctx, mine, victim), "MixedSubjects", expected, found);
    const direct = await ctx.newGrant({ subject: caller(ctx.stranger) });
    const call = ctx.ledger.write.revoke([[direct.outer, victim.outer], "0x"], { account: ctx.stranger.account });
    await refuses(call, "MixedSubjects", direct.outer.subject, found);
    same([await ctx.status(mine), await ctx.status(victim)], [Reason.None, Reason.None]);
  });
});

describe("setPaused", () => {
  it("pauses and resumes by signature, and nothing else moves", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await ctx.append([ctx.access(g)]);
    await emits(setPaused(ctx, g, true, 5), ["ConsentPauseSet", g.id, true, 5]);
    same(await consentOf(ctx, g), stored(g, { accesses: 1, pauseSequence: 5, state: State.Paused }));
    same(await ctx.status(g), Reason.Paused);
    await emits(setPaused(ctx, g, false, 8), ["ConsentPauseSet", g.id, false, 8]);
    same(await consentOf(ctx, g), stored(g, { accesses: 1, pauseSequence: 8 }));
    same(await ctx.status(g), Reason.None);
  });

  it("called by the subject itself, it needs no signature", async () => {
    const ctx = await fresh();
    const by = { account: ctx.stranger.account };
    const g = await ctx.newGrant({ subject: caller(ctx.stranger) });
    await ctx.ledger.write.grant([g.outer, "0x"], by);
    await emits(ctx.ledger.write.setPaused([g.outer, true, 1, "0x"], by), ["ConsentPauseSet", g.id, true, 1]);
    same(await ctx.status(g), Reason.Paused);
  });

  it("an old resume cannot be replayed after a newer pause, nor any sequence used twice", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await refuses(setPaused(ctx, g, true, 0), "StalePauseSequence", g.id, 0, 0);
    await setPaused(ctx, g, false, 1);
    await setPaused(ctx, g, true, 3);
    for (const sequence of [1, 2, 3]) {
      await refuses(setPaused(ctx, g, false, sequence), "StalePauseSequence", g.id, 3, sequence);
    }
    same(await ctx.status(g), Reason.Paused);
  });

  it("a consent never granted cannot be paused", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant();
    await refuses(setPaused(ctx, g, true, 1), "ConsentNotGranted", g.id);
  });

  it("a revoked consent cannot be resumed", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await setPaused(ctx, g, true, 1);
    await revoke(ctx, g);
    await refuses(setPaused(ctx, g, false, 2), "ConsentAlreadyRevoked", g.id);
    same(await consentOf(ctx, g), stored(g, { pauseSequence: 1, state: State.Revoked }));
  });
});

describe("revokeAsCustodian", () => {
  const asCustodian = (ctx, ids, by = ctx.custodian) =>
    ctx.ledger.write.revokeAsCustodian([ids], { account: by.account });

  it("the named custodian may narrow, once and for ever", async () => {
    const ctx = await fresh();
    const a = await ctx.granted(), b = await ctx.granted();
    await setPaused(ctx, b, true, 1);
    const by = ctx.custodian.account.address;
    await emits(asCustodian(ctx, [a.id, b.id, a.id]), ["ConsentRevoked", a.id, by], ["ConsentRevoked", b.id, by]);
    same([await ctx.status(a), await ctx.status(b)], [Reason.Revoked, Reason.Revoked]);
    await emits(asCustodian(ctx, [a.id]));
    await refuses(setPaused(ctx, b, false, 2), "ConsentAlreadyRevoked", b.id);
  });

  it("another custodian, numbered or not, may not, and one such entry undoes the whole call", async () => {
    const ctx = await fresh();
    const mine = await ctx.granted({ custodian: ctx.stranger.account.address });
    const theirs = await ctx.granted();
    const thief = ctx.stranger;
    await refuses(asCustodian(ctx, [mine.id, theirs.id], thief), "NotCustodian", theirs.id, thief.account.address);
    const nobody = ctx.relayer;
    await refuses(asCustodian(ctx, [theirs.id], nobody), "NotCustodian", theirs.id, nobody.account.address);
    same([await ctx.status(mine, thief), await ctx.status(theirs)], [Reason.None, Reason.None]);
  });

  it("a consent not granted yet cannot be blocked by a custodian, numbered or not", async () => {
    const ctx = await fresh();
    const g = await ctx.newGrant();
    for (const who of [ctx.custodian, ctx.relayer]) {
      await refuses(asCustodian(ctx, [g.id], who), "NotCustodian", g.id, who.account.address);
    }
    await emits(grant(ctx, g), granted(g));
  });

  it("what the subject revoked already is passed over, whoever asks", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await revoke(ctx, g);
    await emits(asCustodian(ctx, [g.id]));
    await emits(asCustodian(ctx, [g.id], ctx.relayer));
  });

  it("nothing to revoke is refused", async () => {
    const ctx = await fresh();
    await refuses(asCustodian(ctx, []), "EmptyBatch");
  });
});

describe("status", () => {
  it("the first second of the window is in, the last is out", async () => {
    const ctx = await fresh();
    const at = BigInt(await time.latest());
    const g = await ctx.granted({ validFrom: at + 100n, expiresAt: at + 200n });
    const rows = [[99n, Reason.NotYetValid], [100n, Reason.None], [199n, Reason.None], [200n, Reason.Expired]];
    for (const [seconds, reason] of rows) {
      await time.increaseTo(at + seconds);
      same(await ctx.status(g), reason);
    }
  });

  it("answers for many at once exactly as for each", async () => {
    const ctx = await fresh();
    const subject = newSubject();
    const all = [await ctx.granted({ subject }), await ctx.granted({ subject }), await ctx.newGrant({ subject })];
    await revoke(ctx, all[1]);
    const ids = [...all.map((g) => g.id), zeroHash, random32()];
    for (const custodian of [ctx.custodian, ctx.stranger]) {
      const each = ids.map((id) => ctx.ledger.read.status([id, custodian.account.address]));
      same(await ctx.ledger.read.statuses([ids, custodian.account.address]), await Promise.all(each));
    }
    same(await ctx.ledger.read.statuses([[], ctx.custodian.account.address]), []);
    same(await ctx.status(all[0], ctx.stranger), Reason.WrongCustodian);
  });
});
