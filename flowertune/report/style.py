"""The page's style sheet: light and dark, from a phone's width up."""

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #ffffff; --ink: #1c2128;
  --soft: #5a6472; --line: #dfe3e8; --series: #1f63b8; --good: #14713c; --good-back: #dff3e6;
  --warn: #855300; --warn-back: #fdf0d3; --bad: #a8201a; --bad-back: #fbe3e1; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2127; --ink: #e6e9ed;
  --soft: #9aa4b1; --line: #343b44; --series: #74aef5; --good: #74d69a; --good-back: #173325;
  --warn: #f0bf61; --warn-back: #3a2d12; --bad: #ff9a93; --bad-back: #421d1b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 10px; }
.lead { color: var(--soft); margin: 4px 0 14px; overflow-wrap: anywhere; }
.badges { display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 18px; }
.badge { border-radius: 999px; padding: 2px 12px; font-weight: 600; font-size: .88rem; }
.good { color: var(--good); background: var(--good-back); }
.warn { color: var(--warn); background: var(--warn-back); }
.bad { color: var(--bad); background: var(--bad-back); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; margin: 0 0 16px; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: 14px; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span, .none, .note { color: var(--soft); font-size: .88rem; }
.note { margin: 8px 0 0; }
.none { margin: 0; }
.none + details { margin-top: 12px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr));
  gap: 16px; margin: 0 0 16px; }
.plots section { margin: 0; }
svg { display: block; width: 100%; height: auto; }
.grid { stroke: var(--line); stroke-width: 1; }
.tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.series { fill: none; stroke: var(--series); stroke-width: 2; stroke-linejoin: round; }
.dot { fill: var(--series); }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
.hit { fill: transparent; }
g:hover .hit { fill: var(--series); fill-opacity: .35; }
h3 { font-size: .95rem; margin: 16px 0 6px; }
.wide { overflow-x: auto; } .wide svg { min-width: 700px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0 12px; font-size: .88rem; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin-right: 6px; vertical-align: -1px; }
.p-plan { fill: #8d6e63; background: #8d6e63; } .p-distribute { fill: #c2559d;
  background: #c2559d; } .p-wait { fill: #b9c2cd; background: #b9c2cd; }
.p-transfer { fill: #e08a1e; background: #e08a1e; } .p-load { fill: #7e6bc4;
  background: #7e6bc4; } .p-train { fill: #2f7fd6; background: #2f7fd6; }
.p-serve { fill: #17a2a2; background: #17a2a2; } .p-accumulate { fill: #2e9e5b;
  background: #2e9e5b; } .p-write { fill: #b5a11d; background: #b5a11d; }
.p-evaluate { fill: #d65a4a; background: #d65a4a; } .p-save { fill: #6b8f23;
  background: #6b8f23; } .p-else { fill: #77808c; background: #77808c; }
.phases td { white-space: nowrap; } .phases td.number, .phases th.number { padding-left: 6px; }
.scroll { overflow-x: auto; max-height: 420px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; white-space: nowrap;
  position: sticky; top: 0; background: var(--card); }
.number { text-align: right; white-space: nowrap; }
code { font: .86rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: break-word; white-space: pre-wrap; }
table.rounds code { white-space: nowrap; }
details summary { cursor: pointer; font-weight: 600; }
table + details { margin-top: 12px; }
ul { margin: 0; padding-left: 20px; }
table.rounds td:last-child, table.rounds th:last-child { padding-left: 16px; }
@media (min-width: 561px) { .keys td:first-child code { white-space: nowrap; } }
details[open] summary { margin-bottom: 10px; }
@media (max-width: 560px) { main { padding: 16px 10px 32px; } section { padding: 12px; }
  .keys thead { display: none; } .keys tr, .keys td { display: block; border: 0; padding: 0; }
  .keys tr { padding: 8px 0; border-bottom: 1px solid var(--line); }
  .keys td[data-name]::before { content: attr(data-name) " "; color: var(--soft);
    font-size: .82rem; } .keys .number { text-align: left; white-space: normal; } }
@media print { body { background: #fff; } .scroll { max-height: none; overflow: visible; } }
"""
