// The decision table that the contract, the Python side and the simulator share. Every row is reached by real calls,
// then asked twice in the same second: by the view, and by an access.
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { encodeAbiParameters, keccak256, toHex } from "viem";
import { ledgerTests, same } from "./expect.js";
import { BatchKind, Reason, fold } from "./typed.js";

const { fresh, emits, networkHelpers } = await ledgerTests();
const { time } = networkHelpers;
const { cases } = JSON.parse(readFileSync(new URL("../vectors/consent_cases.json", import.meta.url), "utf8"));

/** Grant, use, pause and revoke as the row says, each in a second of its own before the one it asks about. */
async function reach(ctx, base, { granted, accesses, paused, revoked, ...row }, at) {
  let clock = base - 10;
  const next = () => time.setNextBlockTimestamp(++clock);
  const [validFrom, expiresAt] = [row.validFrom, row.expiresAt].map((seconds) => BigInt(base + seconds));
  const g = await ctx.newGrant({ validFrom, expiresAt, maxAccesses: row.maxAccesses });
  if (granted) {
    await next();
    await ctx.ledger.write.grant([g.outer, await ctx.signGrant(g)]);
  }
  if (accesses && at < row.validFrom) await useInAFutureThatIsUndone(ctx, g, accesses);
  else if (accesses) {
    clock = base + row.validFrom - 1;
    await next();
    await ctx.append(Array.from({ length: accesses }, () => ctx.access(g)));
  }
  if (paused) {
    await next();
    await ctx.ledger.write.setPaused([g.outer, true, 1, await ctx.signPause(g, true, 1)]);
  }
  if (revoked) {
    await next();
    await ctx.ledger.write.revoke([[g.outer], await ctx.signRevocation([g])]);
  }
  return g;
}

/** A used consent before its window needs a clock that went back, which no chain has: only the stored word tells. */
async function useInAFutureThatIsUndone({ ledger: { address }, publicClient }, g, accesses) {
  const WORDS = 2n; // the slot of `_words`
  const slot = keccak256(encodeAbiParameters([{ type: "bytes32" }, { type: "uint256" }], [g.id, WORDS]));
  const word = BigInt(await publicClient.getStorageAt({ address, slot })) + (BigInt(accesses) << 128n);
  await networkHelpers.setStorageAt(address, slot, toHex(word, { size: 32 }));
}

describe("decision table", () => {
  for (const { name, consent, at, reason } of cases) {
    it(`${name}: ${reason}`, async () => {
      const ctx = await fresh();
      const base = (await time.latest()) + 10_000;
      await ctx.allowWriter(ctx.writer, ctx.stranger);
      const g = await reach(ctx, base, consent, at);
      const of = consent.custodian === "same" ? ctx.custodian : ctx.stranger;
      const before = await ctx.ledger.read.consentOf([g.id]);
      if (consent.granted) same(before.accesses, consent.accesses);

      const moment = await networkHelpers.takeSnapshot();
      await time.increaseTo(base + at);
      same(await ctx.status(g, of), Reason[reason]);
      same(await ctx.ledger.read.statuses([[g.id], of.account.address]), [Reason[reason]]);
      await moment.restore();

      const a = ctx.access(g);
      const head = fold(await ctx.head(ctx.writer, of), BatchKind.Accesses, [a], [Reason[reason]]);
      const { size } = await ctx.ledger.read.logOf([of.account.address, ctx.writer.account.address]);
      const refusal = reason === "None" ? [] : [Reason[reason]];
      await time.setNextBlockTimestamp(base + at);
      await emits(
        ctx.append([a], { of }),
        [reason === "None" ? "AccessRecorded" : "AccessRefused", g.id, a.entryHash, ...refusal],
        ["LogAppended", of.account.address, ctx.writer.account.address, BatchKind.Accesses, size + 1n, head],
      );
      const used = before.accesses + (reason === "None" ? 1 : 0);
      same(await ctx.ledger.read.consentOf([g.id]), { ...before, accesses: used });
    });
  }
});
