// The promise of the README in gas: every operation stays under its ceiling.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import hre from "hardhat";
import { measureGas } from "../../bench/gas.js";

// Written down again, so that raising a ceiling in the benchmark is not enough to pass.
const PROMISED = { grant: 62_000, revoke: 42_000, access_batch_100: 9_100, access_single: 46_000 };
// Coverage adds a call to every statement: what it measures is not what is deployed.
const skip = hre.globalOptions.coverage && "instrumented";

describe("gas", { skip }, () => {
  it("the median of every operation is under its ceiling", async () => {
    const { ceilings, ...medians } = await measureGas();
    assert.deepEqual(ceilings, PROMISED);
    for (const [operation, ceiling] of Object.entries(PROMISED)) {
      const gas = medians[operation];
      assert.ok(gas > 0 && gas <= ceiling, `${operation} costs ${gas}, ceiling ${ceiling}`);
    }
  });
});
