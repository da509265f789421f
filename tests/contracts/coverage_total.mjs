// Line and branch coverage of the contracts, printed; exits 1 below 100 %: `make coverage-contracts`.
//
// Hardhat measures statements only (its lcov has no branches). So the tests run on a copy in which every single
// condition, each operand of && and || included, goes through a function of its own with one line for true and one for
// false. A branch is covered when the tests reached both lines: Hardhat's own measurement, nothing simulated.
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import solc from "solc";

const ROOT = join(import.meta.dirname, "../..");
const SOURCES = ["contracts/ConsentRegistry.sol", "contracts/AccessLog.sol", "contracts/ConsentLedger.sol"];
const NOT_MEASURED = ["TryStatement", "YulIf", "YulSwitch", "YulForLoop"];

const load = (path) => readFileSync(join(path.startsWith("@") ? join(ROOT, "node_modules") : ROOT, path), "utf8");

function* nodesOf(tree) {
  if (tree === null || typeof tree !== "object") return;
  if (tree.nodeType) yield tree;
  for (const child of Object.values(tree)) yield* nodesOf(child);
}

/** The conditions that are decided one by one: `a && !b` is two. */
const leaves = (node) => {
  if (["&&", "||"].includes(node.operator)) return [...leaves(node.leftExpression), ...leaves(node.rightExpression)];
  if (node.nodeType === "TupleExpression") return node.components.flatMap(leaves);
  return [node];
};

/** Per source: the lines that hold a statement, and the conditions, as offsets. */
function analyse() {
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(SOURCES.map((path) => [path, { content: load(path) }])),
    settings: { outputSelection: { "*": { "": ["ast"] } } },
  };
  const findImport = (path) => ({ contents: load(path) });
  const compiled = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
  return SOURCES.map((path) => {
    const bytes = Buffer.from(load(path));
    const lineAt = (offset) => bytes.subarray(0, offset).toString().split("\n").length;
    const nodes = [...nodesOf(compiled.sources[path].ast)];
    const blind = nodes.find((n) => NOT_MEASURED.includes(n.nodeType));
    if (blind) throw new Error(`${path}: ${blind.nodeType} is not measured, teach this script`);
    const statements = nodes.filter((n) => /Statement$|^Return$|^InlineAssembly$/.test(n.nodeType));
    const lines = new Set(statements.map((n) => lineAt(Number(n.src.split(":")[0]))));
    const decisions = nodes.filter((n) => n.condition && !n.nodeType.startsWith("Yul")).map((n) => n.condition);
    const logical = nodes.filter((n) => ["&&", "||"].includes(n.operator));
    const conditions = [...new Set([...decisions, ...logical].flatMap(leaves))].map((node) => {
      const [start, length] = node.src.split(":").map(Number);
      const end = start + length;
      return { start, end, line: lineAt(start), text: bytes.subarray(start, end).toString() };
    });
    return { path, bytes, lines, conditions: conditions.sort((a, b) => a.start - b.start) };
  });
}

/** The source with every condition sent through its own function, and the lines on which the outcomes stand. */
function instrument({ bytes, conditions }) {
  let text = "", at = 0;
  for (const [i, { start, end }] of conditions.entries()) {
    text += `${bytes.subarray(at, start)}seen${i}(${bytes.subarray(start, end)})`;
    at = end;
  }
  text += bytes.subarray(at);
  for (const [i, condition] of conditions.entries()) {
    const line = text.split("\n").length;
    Object.assign(condition, { whenTrue: line + 2, whenFalse: line + 4 });
    text += `function seen${i}(bool outcome) pure returns (bool) {\nif (outcome) {\nreturn true;\n}\nreturn false;\n}\n`;
  }
  return text;
}

/** Runs all contract tests on the instrumented copy; gives the hit lines of each file. */
function measure(sources) {
  const copy = mkdtempSync(join(tmpdir(), "contract-coverage-"));
  try {
    for (const path of ["contracts", "tests/contracts", "tests/vectors", "bench", "hardhat.config.js", "package.json"]) {
      cpSync(join(ROOT, path), join(copy, path), { recursive: true });
    }
    symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
    for (const source of sources) writeFileSync(join(copy, source.path), instrument(source));
    const hardhat = [join(ROOT, "node_modules/.bin/hardhat"), "test", "--coverage"];
    const run = spawnSync(process.execPath, hardhat, { cwd: copy, encoding: "utf8" });
    if (run.status !== 0) throw new Error(`the tests fail on the instrumented copy\n${run.stdout}\n${run.stderr}`);
    const records = readFileSync(join(copy, "coverage/lcov.info"), "utf8").split("end_of_record");
    const hits = (record) => [...record.matchAll(/^DA:(\d+),[^0]/gm)].map((m) => Number(m[1]));
    return Object.fromEntries(records.map((record) => [/SF:(.*)/.exec(record)?.[1], new Set(hits(record))]));
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

function report(sources, hit) {
  const rows = sources.map(({ path, lines, conditions }) => {
    const reached = (line) => hit[path]?.has(line) ?? false;
    const outcomes = conditions.flatMap((c) => [[c, true, c.whenTrue], [c, false, c.whenFalse]]);
    const unseen = outcomes.filter(([, , line]) => !reached(line));
    const missed = unseen.map(([c, outcome]) => `${path}:${c.line} never ${outcome}: ${c.text}`);
    const unreached = [...lines].filter((line) => !reached(line)).map((line) => `${path}:${line} never run`);
    const covered = [lines.size - unreached.length, lines.size, outcomes.length - missed.length, outcomes.length];
    return { name: path, covered, gaps: [...unreached, ...missed] };
  });
  const total = rows.map((r) => r.covered).reduce((sums, covered) => sums.map((sum, i) => sum + covered[i]));
  const percent = (of, all) => (all === 0 ? "-" : `${((100 * of) / all).toFixed(2)} %`);
  const share = (of, all) => (percent(of, all) + `(${of}/${all})`.padStart(11)).padStart(22);
  console.log(`${"contract".padEnd(34)}${"lines".padStart(22)}${"branches".padStart(22)}`);
  for (const { name, covered: [l, ls, b, bs] } of [...rows, { name: "TOTAL", covered: total }]) {
    console.log(name.padEnd(34) + share(l, ls) + share(b, bs));
  }
  const gaps = rows.flatMap((r) => r.gaps);
  for (const gap of gaps) console.log(gap);
  return gaps.length === 0 && total[0] > 0 && total[2] > 0;
}

// The test runner imports every file of this folder; only a call by name measures.
if (process.argv[1] === import.meta.filename) {
  const sources = analyse();
  if (!report(sources, measure(sources))) process.exit(1);
}
