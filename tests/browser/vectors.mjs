// What the tests of the portal's scripts share.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));
export const copy = (value) => structuredClone(value);

/** That it is refused, with this code. */
export async function refused(code, act) {
  await assert.rejects(async () => act(), (error) => {
    assert.equal(error.name, "PortalError", String(error.stack));
    assert.equal(error.code, code);
    return true;
  });
}
