// Gas of the four operations, medians, on Hardhat's node: `make bench-gas` prints it and writes bench/gas.json.
// Conditions: hardfork osaka, optimizer 1,000,000 runs, cold slots (every sample is its own transaction on consents
// never touched before in it), all fields non-zero.
import { writeFileSync } from "node:fs";
import { network } from "hardhat";
import { deployLedger } from "../tests/contracts/typed.js";

const CEILINGS = { grant: 62_000, revoke: 42_000, access_batch_100: 9_100, access_single: 46_000 };
const SAMPLES = 21;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

export async function measureGas() {
  const ctx = await deployLedger(await network.create());
  await ctx.allowWriter();
  const gasOf = async (hash) => Number((await ctx.mined(hash)).gasUsed);
  // The first grant gives the custodian its number and the first append its log's first slot: once in a lifetime.
  const warmUp = await ctx.granted();
  await ctx.append([ctx.access(warmUp)]);

  const gas = { grant: [], revoke: [], access_batch_100: [], access_single: [] };
  for (let i = 0; i < SAMPLES; i++) {
    const g = await ctx.newGrant({ maxAccesses: 12 });
    gas.grant.push(await gasOf(ctx.ledger.write.grant([g.outer, await ctx.signGrant(g)])));
    gas.access_single.push(await gasOf(ctx.append([ctx.access(g)])));
    gas.revoke.push(await gasOf(ctx.ledger.write.revoke([[g.outer], await ctx.signRevocation([g])])));
  }
  const hundred = [];
  for (let i = 0; i < 100; i++) hundred.push(await ctx.granted({ maxAccesses: 12 }));
  for (let i = 0; i < 5; i++) {
    gas.access_batch_100.push((await gasOf(ctx.append(hundred.map((g) => ctx.access(g))))) / 100);
  }
  const medians = Object.fromEntries(Object.entries(gas).map(([name, values]) => [name, Math.round(median(values))]));
  return { ...medians, ceilings: CEILINGS };
}

if (process.argv[1] === import.meta.filename || process.env.BENCH_GAS_WRITE) {
  const result = await measureGas();
  writeFileSync(new URL("gas.json", import.meta.url), JSON.stringify(result, null, 2) + "\n");
  console.log("gas per item (median)      measured   ceiling");
  for (const [name, ceiling] of Object.entries(CEILINGS)) {
    console.log(`${name.padEnd(24)} ${String(result[name]).padStart(10)} ${String(ceiling).padStart(9)}`);
  }
}
