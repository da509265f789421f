// The room of accesses: writers, append, appendRefusals, appendLate, appendCompelled, and the head that binds them.
import { describe, it } from "node:test";
import { zeroHash } from "viem";
import { State, ledgerTests, same } from "./expect.js";
import { BatchKind, Reason, fold, foldCompelled, newSubject, random32 } from "./typed.js";

const { fresh, emits, refuses, networkHelpers } = await ledgerTests();
const { time } = networkHelpers;

const { Accesses, Refusals, LateAccesses, CompelledAccesses } = BatchKind;
const YEAR = 366n * 86_400n;
const HOW = { append: Accesses, appendRefusals: Refusals, appendLate: LateAccesses };
const logOf = (ctx, of, who) => ctx.ledger.read.logOf([of.account.address, who.account.address]);
const counted = async (ctx, g) => (await ctx.ledger.read.consentOf([g.id])).accesses;
const recorded = (a) => ["AccessRecorded", a.consentId, a.entryHash];
const refused = (a, reason) => ["AccessRefused", a.consentId, a.entryHash, reason];
const late = (a, reason) => ["AccessLate", a.consentId, a.entryHash, reason];
const compelled = (order, until) => (entry) => ["AccessCompelled", order, entry, until];
const closed = (ctx, kind, size, head, { of = ctx.custodian, as = ctx.writer } = {}) =>
  ["LogAppended", of.account.address, as.account.address, kind, size, head];
const revoke = async (ctx, g) => ctx.ledger.write.revoke([[g.outer], await ctx.signRevocation([g])]);
const setPaused = async (ctx, g, paused, sequence) =>
  ctx.ledger.write.setPaused([g.outer, paused, sequence, await ctx.signPause(g, paused, sequence)]);

/** One consent for each reason that there is to refuse, in the order of the enum; the first is in force. */
async function oneOfEach(ctx) {
  const unknown = await ctx.newGrant();
  const at = await ctx.now();
  const early = await ctx.granted({ validFrom: at + 1000n });
  const expired = await ctx.granted({ validFrom: 1n, expiresAt: 2n });
  const paused = await ctx.granted();
  await setPaused(ctx, paused, true, 1);
  const revoked = await ctx.granted();
  await revoke(ctx, revoked);
  const usedUp = await ctx.granted({ maxAccesses: 1 });
  await ctx.append([ctx.access(usedUp)]);
  const others = await ctx.granted({ custodian: ctx.stranger.account.address });
  return [await ctx.granted(), unknown, early, expired, paused, revoked, usedUp, others];
}

describe("setWriter", () => {
  it("lets a key append, for this custodian only", async () => {
    const ctx = await fresh();
    same(await logOf(ctx, ctx.custodian, ctx.writer), { head: zeroHash, size: 0, custodianNumber: 1, allowed: true });
    same(await logOf(ctx, ctx.stranger, ctx.writer), { head: zeroHash, size: 0, custodianNumber: 0, allowed: false });
    const [custodian, writer] = [ctx.stranger.account.address, ctx.relayer.account.address];
    const first = ctx.allowWriter(ctx.relayer, ctx.stranger);
    await emits(first, ["CustodianNumbered", custodian, 2], ["WriterSet", custodian, writer, true]);
    await emits(ctx.allowWriter(ctx.writer, ctx.stranger), ["WriterSet", custodian, ctx.writer.account.address, true]);
    same(await ctx.ledger.read.numberOf([custodian]), 2);
    same((await logOf(ctx, ctx.stranger, ctx.relayer)).custodianNumber, 2);
  });

  it("a writer that was stopped is refused, and goes on where it stopped once it is allowed again", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const [custodian, writer] = [ctx.custodian.account.address, ctx.writer.account.address];
    await ctx.append([ctx.access(g)]);
    const before = await logOf(ctx, ctx.custodian, ctx.writer);
    const stop = ctx.ledger.write.setWriter([writer, false], { account: ctx.custodian.account });
    await emits(stop, ["WriterSet", custodian, writer, false]);
    same(await logOf(ctx, ctx.custodian, ctx.writer), { ...before, allowed: false });
    await refuses(ctx.append([ctx.access(g)]), "NotWriter", custodian, writer);
    await ctx.allowWriter();
    same(await logOf(ctx, ctx.custodian, ctx.writer), before);
    const a = ctx.access(g);
    const head = fold(before.head, Accesses, [a], [Reason.None]);
    await emits(ctx.append([a]), recorded(a), closed(ctx, Accesses, 2, head));
  });

  it("another custodian that names the same writer disturbs nothing: each has its own log of it", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await ctx.append([ctx.access(g)]);
    const before = await logOf(ctx, ctx.custodian, ctx.writer);
    await ctx.allowWriter(ctx.writer, ctx.stranger);
    const { account } = ctx.stranger;
    await ctx.append([ctx.access(g)], { of: ctx.stranger });
    await ctx.ledger.write.setWriter([ctx.writer.account.address, false], { account });
    same(await logOf(ctx, ctx.custodian, ctx.writer), before);
    await ctx.mined(ctx.append([ctx.access(g)]));
    same(await counted(ctx, g), 2);
  });
});

for (const [how, kind] of Object.entries(HOW)) {
  describe(`${how}: the checks that every append starts with`, () => {
    it("a stranger, the custodian itself and another custodian's writer are refused", async () => {
      const ctx = await fresh();
      const g = await ctx.granted();
      const custodian = ctx.custodian.account.address;
      await ctx.allowWriter(ctx.relayer, ctx.stranger);
      for (const as of [ctx.stranger, ctx.custodian, ctx.relayer]) {
        await refuses(ctx.append([ctx.access(g)], { as, how }), "NotWriter", custodian, as.account.address);
      }
      same((await logOf(ctx, ctx.custodian, ctx.writer)).size, 0);
      same(await counted(ctx, g), 0);
    });

    it("a batch that is sent twice lands once", async () => {
      const ctx = await fresh();
      const g = await ctx.granted();
      const batch = [ctx.access(g), ctx.access(g)];
      await ctx.append(batch, { how, on: zeroHash });
      const after = await logOf(ctx, ctx.custodian, ctx.writer);
      const accesses = await counted(ctx, g);
      await refuses(ctx.append(batch, { how, on: zeroHash }), "HeadMismatch", zeroHash, after.head);
      same(await logOf(ctx, ctx.custodian, ctx.writer), after);
      same(await counted(ctx, g), accesses);
    });

    it("a batch built on another head is refused", async () => {
      const ctx = await fresh();
      const g = await ctx.granted();
      const on = random32();
      await refuses(ctx.append([ctx.access(g)], { how, on }), "HeadMismatch", on, zeroHash);
    });

    it("an empty batch is refused", async () => {
      const ctx = await fresh();
      await refuses(ctx.append([], { how }), "EmptyBatch");
    });

    it("head and size are the fold of the events, batch after batch", async () => {
      const ctx = await fresh();
      const g = await ctx.granted();
      const reason = kind === Refusals ? Reason.ByCustodian : Reason.None;
      const event = (a) => (kind === Refusals ? refused(a, reason) : recorded(a));
      let head = zeroHash, size = 0;
      for (const length of [1, 2]) {
        const batch = Array.from({ length }, () => ctx.access(g));
        head = fold(head, kind, batch, batch.map(() => reason));
        size += length;
        await emits(ctx.append(batch, { how }), ...batch.map(event), closed(ctx, kind, size, head));
        same(await logOf(ctx, ctx.custodian, ctx.writer), { head, size, custodianNumber: 1, allowed: true });
      }
      same(await counted(ctx, g), kind === Refusals ? 0 : 3);
    });
  });
}

describe("append", () => {
  it("checks and logs in one call: a bad entry is refused with its reason and never harms the good ones", async () => {
    const ctx = await fresh();
    const each = await oneOfEach(ctx);
    const before = await ctx.head();
    const batch = [...each, each[0]].map((g) => ctx.access(g));
    const reasons = [...each.keys(), Reason.None];
    const events = batch.map((a, i) => (reasons[i] === Reason.None ? recorded(a) : refused(a, reasons[i])));
    const head = fold(before, Accesses, batch, reasons);
    await emits(ctx.append(batch), ...events, closed(ctx, Accesses, 1 + batch.length, head));
    same(await Promise.all(each.map((g) => counted(ctx, g))), [2, 0, 0, 0, 0, 0, 1, 0]);
    same(await ctx.head(), head);
  });

  it("one consent several times in one batch is used up in the middle of it", async () => {
    const ctx = await fresh();
    const g = await ctx.granted({ maxAccesses: 2 });
    const batch = [1, 2, 3, 4].map(() => ctx.access(g));
    const reasons = [Reason.None, Reason.None, Reason.Exhausted, Reason.Exhausted];
    const head = fold(zeroHash, Accesses, batch, reasons);
    const events = [...batch.slice(0, 2).map(recorded), ...batch.slice(2).map((a) => refused(a, Reason.Exhausted))];
    await emits(ctx.append(batch), ...events, closed(ctx, Accesses, 4, head));
    same(await counted(ctx, g), 2);
    same(await ctx.status(g), Reason.Exhausted);
  });

  it("counts from the first second of the window and refuses from the last", async () => {
    const ctx = await fresh();
    const at = await ctx.now();
    const g = await ctx.granted({ validFrom: at + 100n, expiresAt: at + 200n, maxAccesses: 9 });
    const rows = [[99n, Reason.NotYetValid], [100n, Reason.None], [199n, Reason.None], [200n, Reason.Expired]];
    for (const [size, [seconds, reason]] of rows.entries()) {
      const a = ctx.access(g);
      const head = fold(await ctx.head(), Accesses, [a], [reason]);
      await time.setNextBlockTimestamp(at + seconds);
      const event = reason === Reason.None ? recorded(a) : refused(a, reason);
      await emits(ctx.append([a]), event, closed(ctx, Accesses, size + 1, head));
    }
    same(await counted(ctx, g), 2);
  });

  it("a writer of another custodian cannot use a consent that does not name its custodian", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    await ctx.allowWriter(ctx.relayer, ctx.stranger);
    const a = ctx.access(g);
    const [of, as] = [ctx.stranger, ctx.relayer];
    const head = fold(zeroHash, Accesses, [a], [Reason.WrongCustodian]);
    const event = refused(a, Reason.WrongCustodian);
    await emits(ctx.append([a], { as, of }), event, closed(ctx, Accesses, 1, head, { of, as }));
    same(await counted(ctx, g), 0);
  });

  it("two writers of one custodian have two logs and share the consent's count", async () => {
    const ctx = await fresh();
    const g = await ctx.granted({ maxAccesses: 2 });
    await ctx.allowWriter(ctx.relayer);
    for (const as of [ctx.writer, ctx.relayer]) {
      const a = ctx.access(g);
      const head = fold(zeroHash, Accesses, [a], [Reason.None]);
      await emits(ctx.append([a], { as }), recorded(a), closed(ctx, Accesses, 1, head, { as }));
    }
    same(await ctx.status(g), Reason.Exhausted);
  });

  it("nothing is recorded after a revocation, whoever was first to build the batch", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const a = ctx.access(g);
    await revoke(ctx, g);
    const head = fold(zeroHash, Accesses, [a], [Reason.Revoked]);
    await emits(ctx.append([a], { on: zeroHash }), refused(a, Reason.Revoked), closed(ctx, Accesses, 1, head));
    same((await ctx.ledger.read.consentOf([g.id])).state, State.Revoked);
  });

  it("the same entry on the new head is another use: sent twice lands once, said twice is seen twice", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const a = ctx.access(g);
    for (const size of [1, 2]) {
      const head = fold(await ctx.head(), Accesses, [a], [Reason.None]);
      await emits(ctx.append([a]), recorded(a), closed(ctx, Accesses, size, head));
    }
    same(await counted(ctx, g), 2);
  });

  it("a batch cannot be cut in two unseen, nor two joined: the head tells", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const [a, b] = [ctx.access(g), ctx.access(g)];
    await ctx.append([a]);
    await ctx.append([b]);
    const apart = await ctx.head();
    const together = fold(zeroHash, Accesses, [a, b], [Reason.None, Reason.None]);
    same([apart === together, apart === fold(zeroHash, LateAccesses, [a], [Reason.None])], [false, false]);
  });
});

describe("appendRefusals", () => {
  it("marks every entry as the custodian's decision and counts nothing, whatever the consent is", async () => {
    const ctx = await fresh();
    const each = await oneOfEach(ctx);
    const words = () => Promise.all(each.map((g) => ctx.ledger.read.consentOf([g.id])));
    const [head, before] = [await ctx.head(), await words()];
    const batch = each.map((g) => ctx.access(g));
    const folded = fold(head, Refusals, batch, batch.map(() => Reason.ByCustodian));
    const events = batch.map((a) => refused(a, Reason.ByCustodian));
    const sent = ctx.append(batch, { how: "appendRefusals" });
    await emits(sent, ...events, closed(ctx, Refusals, 1 + batch.length, folded));
    same(await words(), before);
  });
});

describe("appendLate", () => {
  it("never refuses: what is not in force is marked with its reason, what is counts", async () => {
    const ctx = await fresh();
    const each = await oneOfEach(ctx);
    const before = await ctx.head();
    const batch = each.map((g) => ctx.access(g));
    const events = batch.map((a, reason) => (reason === Reason.None ? recorded(a) : late(a, reason)));
    const head = fold(before, LateAccesses, batch, [...each.keys()]);
    await emits(ctx.append(batch, { how: "appendLate" }), ...events, closed(ctx, LateAccesses, 1 + batch.length, head));
    same(await Promise.all(each.map((g) => counted(ctx, g))), [1, 0, 0, 0, 0, 0, 1, 0]);
  });

  it("uses a consent up like any access, and marks what comes after", async () => {
    const ctx = await fresh();
    const g = await ctx.granted({ subject: newSubject(), maxAccesses: 1 });
    const [a, b] = [ctx.access(g), ctx.access(g)];
    const head = fold(zeroHash, LateAccesses, [a, b], [Reason.None, Reason.Exhausted]);
    const sent = ctx.append([a, b], { how: "appendLate" });
    await emits(sent, recorded(a), late(b, Reason.Exhausted), closed(ctx, LateAccesses, 2, head));
    same(await counted(ctx, g), 1);
  });
});

describe("appendCompelled", () => {
  const [order, first, second] = [random32(), random32(), random32()];

  it("logs every entry of the order as its own kind; head and size are the fold, the embargo included", async () => {
    const ctx = await fresh();
    let head = zeroHash, size = 0;
    for (const [until, entries] of [[0n, [first]], [(await ctx.now()) + 1000n, [first, second]]]) {
      head = foldCompelled(head, order, until, entries);
      size += entries.length;
      const events = entries.map(compelled(order, until));
      const sent = ctx.appendCompelled(order, until, entries);
      await emits(sent, ...events, closed(ctx, CompelledAccesses, size, head));
      same(await logOf(ctx, ctx.custodian, ctx.writer), { head, size, custodianNumber: 1, allowed: true });
    }
  });

  it("touches no consent, not even one whose id is given as the order", async () => {
    const ctx = await fresh();
    const each = await oneOfEach(ctx);
    const words = () => Promise.all(each.map((g) => ctx.ledger.read.consentOf([g.id])));
    const before = await words();
    for (const g of each) await ctx.mined(ctx.appendCompelled(g.id, 0n, [random32()]));
    same(await words(), before);
  });

  it("goes on with the log of accesses, and accesses go on with it", async () => {
    const ctx = await fresh();
    const g = await ctx.granted();
    const [a, b] = [ctx.access(g), ctx.access(g)];
    await ctx.append([a]);
    await ctx.appendCompelled(order, 0n, [first]);
    await ctx.append([b]);
    const one = fold(zeroHash, Accesses, [a], [Reason.None]);
    const two = foldCompelled(one, order, 0n, [first]);
    same(await ctx.head(), fold(two, Accesses, [b], [Reason.None]));
    same(await ctx.status(g), Reason.None);
  });

  it("an embargo of 366 days is taken, one of a second more is not, nor one for ever", async () => {
    const ctx = await fresh();
    const at = (await ctx.now()) + 100n;
    for (const until of [at + YEAR + 1n, 2n ** 64n - 1n]) {
      await time.setNextBlockTimestamp(at);
      await refuses(ctx.appendCompelled(order, until, [first]), "EmbargoTooLong", until, at + YEAR);
    }
    same((await logOf(ctx, ctx.custodian, ctx.writer)).size, 0);
    await time.setNextBlockTimestamp(at);
    const head = foldCompelled(zeroHash, order, at + YEAR, [first]);
    const sent = ctx.appendCompelled(order, at + YEAR, [first]);
    await emits(sent, compelled(order, at + YEAR)(first), closed(ctx, CompelledAccesses, 1, head));
  });

  it("an embargo that is over is taken: a lost chain is rebuilt later", async () => {
    const ctx = await fresh();
    const head = foldCompelled(zeroHash, order, 1n, [first]);
    await emits(ctx.appendCompelled(order, 1n, [first]), compelled(order, 1n)(first), closed(ctx, CompelledAccesses, 1, head));
  });

  it("another embargo or another order is another head: neither can be exchanged afterwards", () => {
    const heads = [foldCompelled(zeroHash, order, 0n, [first]), foldCompelled(zeroHash, order, 1n, [first])];
    heads.push(foldCompelled(zeroHash, second, 0n, [first]), foldCompelled(zeroHash, order, 0n, [second]));
    same(new Set(heads).size, heads.length);
  });

  it("a stranger, the custodian itself and another custodian's writer are refused", async () => {
    const ctx = await fresh();
    await ctx.allowWriter(ctx.relayer, ctx.stranger);
    for (const as of [ctx.stranger, ctx.custodian, ctx.relayer]) {
      const call = ctx.appendCompelled(order, 0n, [first], { as });
      await refuses(call, "NotWriter", ctx.custodian.account.address, as.account.address);
    }
    same((await logOf(ctx, ctx.custodian, ctx.writer)).size, 0);
  });

  it("sent twice lands once, on another head not at all, and never empty", async () => {
    const ctx = await fresh();
    await refuses(ctx.appendCompelled(order, 0n, []), "EmptyBatch");
    await ctx.appendCompelled(order, 0n, [first], { on: zeroHash });
    const head = await ctx.head();
    await refuses(ctx.appendCompelled(order, 0n, [first], { on: zeroHash }), "HeadMismatch", zeroHash, head);
    const on = random32();
    await refuses(ctx.appendCompelled(order, 0n, [first], { on }), "HeadMismatch", on, head);
    same((await logOf(ctx, ctx.custodian, ctx.writer)).size, 1);
  });
});
