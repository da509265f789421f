import assert from "node:assert/strict";
import { test } from "node:test";
import { network } from "hardhat";
import { zeroHash } from "viem";
import { BatchKind, Reason, deployLedger, fold } from "./typed.js";

test("a consent is granted, used, revoked and then refuses", async () => {
  const ctx = await deployLedger(await network.create());
  await ctx.allowWriter();
  const g = await ctx.granted();
  assert.equal(await ctx.status(g), Reason.None);
  const a = ctx.access(g), b = ctx.access(g);
  await ctx.append([a]);
  await ctx.ledger.write.revoke([[g.outer], await ctx.signRevocation([g])]);
  await ctx.append([b]);
  let head = fold(zeroHash, BatchKind.Accesses, [a], [Reason.None]);
  head = fold(head, BatchKind.Accesses, [b], [Reason.Revoked]);
  assert.equal(await ctx.head(), head);
});
