// What every contract test says: on a fresh ledger, this call emits exactly these events, that call is refused with
// exactly this error, and the state is then exactly this.
import assert from "node:assert/strict";
import { network } from "hardhat";
import { parseEventLogs } from "viem";
import { deployLedger } from "./typed.js";

export const State = { Unknown: 0, Active: 1, Paused: 2, Revoked: 3 };

// Numbers come back as number or bigint and addresses in either case, depending on who encoded them.
const plain = (value) =>
  JSON.parse(JSON.stringify(value, (_, v) => (typeof v === "bigint" ? Number(v) : v)), (_, v) =>
    typeof v === "string" && v.startsWith("0x") ? v.toLowerCase() : v,
  );
export const same = (actual, expected) => assert.deepEqual(plain(actual), plain(expected));

/** One chain for a test file. `fresh()` is the same newly deployed ledger, with one writer, for every test. */
export async function ledgerTests() {
  const connection = await network.create();
  const { viem, networkHelpers } = connection;
  let ctx;
  const deployed = async () => {
    ctx = await deployLedger(connection);
    await ctx.allowWriter();
    return ctx;
  };
  const fresh = () => networkHelpers.loadFixture(deployed);

  /** All events of a transaction, in order, as [name, ...arguments]. None at all is `emits(tx)`. */
  async function emits(tx, ...expected) {
    const { abi } = ctx.ledger;
    const parsed = parseEventLogs({ abi, logs: (await ctx.mined(tx)).logs });
    const inputs = (name) => abi.find((item) => item.type === "event" && item.name === name).inputs;
    same(parsed.map((e) => [e.eventName, ...inputs(e.eventName).map((i) => e.args[i.name])]), expected);
  }

  /** Refused with this error and these arguments. */
  const refuses = (call, error, ...args) =>
    viem.assertions.revertWithCustomErrorWithArgs(call, ctx.ledger, error, args);

  return { connection, networkHelpers, viem, fresh, emits, refuses };
}
