"""How an audit's report looks: on a screen, light and dark, wide and narrow, and on numbered pages of paper. Pure.

`PICTURES` goes with the pictures wherever they are; it takes its colors from variables that the page around it sets, as
the portal's style sheet does under the same names.
"""

from __future__ import annotations

from typing import Final

PICTURES: Final = """\
.picture { display: block; width: 100%; height: auto; font: 13px var(--sans); }
.picture text { fill: var(--quiet); font-variant-numeric: tabular-nums; }
.picture .value, .picture .middle { text-anchor: middle; }
.picture .value { fill: var(--ink); font-weight: 600; }
.picture .lane-name { fill: var(--ink); font-size: 0.92em; }
.picture .grid { stroke: var(--line); stroke-width: 1; }
.picture .axis { stroke: var(--edge); stroke-width: 1.2; }
.picture .border { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
.recorded, .granted { fill: var(--accent); }
.refused { fill: url(#hatch-refused); stroke: var(--warn); stroke-width: 0.8; }
.revoked { fill: url(#hatch-revoked); stroke: var(--quiet); stroke-width: 0.8; }
.after, .mark-late { fill: var(--bad); }
.mark-compelled { fill: var(--card); stroke: var(--ink); stroke-width: 3; }
.picture .area { fill: var(--accent); opacity: 0.16; }
.picture .line { fill: none; stroke: var(--accent); stroke-width: 2.5; stroke-linejoin: round; }
.picture .dot { fill: var(--accent); stroke: var(--card); stroke-width: 2; }
.patterns { position: absolute; }
.refused-ground, .revoked-ground { fill: var(--card); }
.refused-line { fill: var(--warn); }
.revoked-line { fill: var(--quiet); }
.bar { display: block; width: 100%; min-width: 5rem; height: 0.7rem; }
.bar .track { fill: var(--sunk); }
.bar .compelled { fill: var(--edge); }
.bar .now { fill: var(--bad); }
.bar .refused { fill: var(--warn); stroke: none; }
.audit-figure { margin-inline: 0; break-inside: avoid; }
.audit-figure > * + * { margin-top: 0.6rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1.4rem; margin: 0.6rem 0 0; padding: 0; list-style: none; }
.legend li { display: inline-flex; align-items: center; gap: 0.5rem; color: var(--quiet); font-size: 0.9rem; }
.legend svg.picture { flex: none; width: 1.1rem; height: 1.1rem; }
@media (width < 40rem) {
  .picture { font-size: 21px; }
  .picture .value, .picture .middle { font-size: 17px; }
  .picture .lane-name { font-size: 15px; }
}
@media print {
  .picture { font-size: 13px; }
  .picture .value, .picture .middle { font-size: 13px; }
}
"""

_COLORS: Final = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #ffffff; --sunk: #f1efe9; --ink: #1a211f; --quiet: #4f5a56; --line: #dcd8cd;
  --edge: #78827e; --accent: #0b655c; --tint: #e3efec; --warn: #8a4a00; --warn-tint: #fbeeda; --bad: #9c2a1f;
  --bad-tint: #fae6e2;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #141917; --card: #1a211e; --sunk: #252d2a; --ink: #e8ece9; --quiet: #a9b5b0; --line: #36403c;
    --edge: #84918b; --accent: #6fd0c0; --tint: #1d3430; --warn: #f0b768; --warn-tint: #33270f; --bad: #f29b8d;
    --bad-tint: #3a1f1a;
  }
}
"""

_PAGE: Final = """\
* { box-sizing: border-box; }
html { text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--sans);
  overflow-wrap: break-word; }
.page { max-width: 56rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3rem) clamp(1rem, 4vw, 2rem) 4rem; }
h1, h2, h3, p, ul, ol, dl, dd, table, pre, figure { margin: 0; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; break-after: avoid; }
h1 { font-size: clamp(1.7rem, 1.2rem + 2.2vw, 2.3rem); letter-spacing: -0.015em; }
h2 { font-size: 1.35rem; padding-top: 0.8rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1.06rem; }
p, li { max-width: 70ch; text-wrap: pretty; }
a { color: var(--accent); text-underline-offset: 0.18em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
.kicker { color: var(--quiet); font-size: 0.95rem; }
.quiet { color: var(--quiet); }
.small { font-size: 0.9rem; }
header > * + * { margin-top: 0.5rem; }
section { margin-top: 2.75rem; }
section > * + * { margin-top: 1rem; }
section > .audit-figure + .audit-figure { margin-top: 2.2rem; }
code, pre { font-family: var(--mono); font-size: 0.86em; }
code { overflow-wrap: anywhere; }
pre { padding: 0.9rem 1rem; background: var(--sunk); border-radius: 0.4rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.verdict { margin-top: 1.5rem; padding: clamp(1rem, 3vw, 1.6rem); border: 2px solid var(--edge);
  border-left-width: 0.8rem;
  border-radius: 0.5rem; break-inside: avoid; }
.verdict > * + * { margin-top: 0.7rem; }
.verdict .word { display: flex; align-items: baseline; gap: 0.7rem; font-size: 1.5rem; font-weight: 700;
  line-height: 1.25; }
.verdict .sign { flex: none; display: inline-grid; place-items: center; width: 2.2rem; height: 2.2rem;
  border-radius: 50%;
  border: 2px solid currentcolor; font-size: 1.3rem; line-height: 1; align-self: center; }
.verdict.clean { border-color: var(--accent); background: var(--tint); }
.verdict.clean .word { color: var(--accent); }
.verdict.findings { border-color: var(--bad); background: var(--bad-tint); }
.verdict.findings .word { color: var(--bad); }
.verdict.could_not_verify { border-color: var(--warn); background: var(--warn-tint); border-style: dashed;
  border-left-style: solid; }
.verdict.could_not_verify .word { color: var(--warn); }
.verdict ul { padding-left: 1.2rem; }
.compare { padding: 0.7rem 0.9rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.4rem; }
.facts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.7rem; }
.facts > div { display: flex; flex-direction: column; padding: 0.7rem 0.85rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 0.5rem; break-inside: avoid; }
.facts dt { order: 2; color: var(--quiet); font-size: 0.9rem; line-height: 1.35; }
.facts dd { font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3;
  overflow-wrap: anywhere; }
.facts > div.bad { border: 2px solid var(--bad); }
.facts > div.bad dd { color: var(--bad); }
.rows { display: grid; grid-template-columns: minmax(8rem, 12rem) 1fr; gap: 0.45rem 1.25rem; }
.rows dt { color: var(--quiet); }
.rows dd { overflow-wrap: anywhere; }
.scroll { position: relative; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.93rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: 0.5rem 0.9rem 0.5rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
thead th, thead td { color: var(--quiet); font-weight: 500; border-bottom-color: var(--edge); vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody th .quiet { font-weight: 400; }
.group th { padding-bottom: 0; border-bottom: 0; font-weight: 400; }
.group th code { font-size: 0.8rem; }
.group th div { padding-left: 1.5rem; text-indent: -1.5rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.id { min-width: 13rem; }
.id code { font-size: 0.76rem; line-height: 1.4; }
.detail { min-width: 15rem; width: 38%; overflow-wrap: anywhere; }
.when { font-size: 0.92em; white-space: nowrap; }
.outcome { white-space: nowrap; font-weight: 600; }
.outcome.holds { color: var(--accent); }
.outcome.fails { color: var(--bad); }
.outcome.open { color: var(--warn); }
.finding { border: 1px solid var(--line); border-left: 0.4rem solid var(--bad); border-radius: 0.5rem;
  padding: 1rem 1.1rem; }
.finding > * + * { margin-top: 0.7rem; }
.finding h3 { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.2rem 1rem; }
.finding .count { color: var(--bad); font-variant-numeric: tabular-nums; }
.contents { margin-top: 1.75rem; }
.contents ol { columns: 2; column-gap: 2rem; padding-left: 1.3rem; }
.contents li { break-inside: avoid; padding-block: 0.15rem; }
.limits li + li { margin-top: 0.5rem; }
footer { margin-top: 3rem; padding-top: 0.8rem; border-top: 1px solid var(--line); color: var(--quiet);
  font-size: 0.9rem; }
@media (width < 40rem) {
  .rows { grid-template-columns: 1fr; gap: 0; }
  .rows dd + dt { margin-top: 0.7rem; }
  .contents ol { columns: 1; }
  .facts { grid-template-columns: repeat(2, 1fr); }
}
"""

_PAPER: Final = """\
@page { size: A4; margin: 20mm 17mm 18mm; @bottom-right { content: "Page " counter(page) " of " counter(pages);
  font: 8.5pt system-ui, Arial, sans-serif; color: #4f5a56; } }
@media print {
  html { font-size: 9.6pt; }
  body { background: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .page { max-width: none; padding: 0; }
  section { margin-top: 1.9rem; }
  h2 { break-after: avoid; }
  thead { display: table-header-group; }
  tr, tbody.group, .finding > p, .finding > h3 { break-inside: avoid; }
  thead { break-after: avoid; }
  .finding > h3, .finding > p { break-after: avoid; }
  .scroll { overflow: visible; }
  .short { break-inside: avoid; }
  .id { min-width: 0; width: 11.5rem; }
  .detail { min-width: 0; }
  .screen { display: none; }
  a { color: inherit; text-decoration: none; }
  table { font-size: 0.88rem; }
}
"""

_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-")


def style_sheet(heading: str) -> str:
    """All of it, with what stands at the top of every printed page. Of that, letters, digits and `.,:-` are kept."""
    kept = "".join(letter for letter in heading if letter in _LETTERS)
    top = f'@page {{ @top-left {{ content: "{kept}"; font: 8.5pt system-ui, Arial, sans-serif; color: #4f5a56; }} }}\n'
    return _COLORS + _PAGE + PICTURES + _PAPER + top
