// Checks a receipt as the page does. stdin: {"receipt", "jwks", "place"}; stdout: {"verdict", "failed", "names"}.
import { readFileSync } from "node:fs";
import { verify } from "../../web/static/portal/receipt.js";

const { receipt, jwks, place } = JSON.parse(readFileSync(0, "utf8"));
const { verdict, checks } = await verify(receipt, jwks, place);
const failed = checks.filter(({ good }) => good !== true).map(({ name }) => name);
console.log(JSON.stringify({ verdict, failed, names: checks.map(({ name }) => name) }));
