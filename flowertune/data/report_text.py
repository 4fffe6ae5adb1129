"""A data report as a person reads it."""

from collections.abc import Mapping
from typing import Any


def as_text(report: Mapping[str, Any]) -> str:
    """Return the lines of a report, without a line break at the end."""
    per = report["rows-per-partition"]
    size = f"{per['fewest']:,}"
    if per["most"] != per["fewest"]:
        size += f" to {per['most']:,}"
    length, tokens = report["row-tokens"], report["tokens"]
    lines = [
        f"{report['rows']:,} rows in {report['partitions']} partitions of {size} rows",
        f"{tokens:,} tokens kept, {report['supervised-tokens']:,} of them supervised "
        f"({report['supervised-share']:.1%})",
        f"tokens of a row: median {length['median']:,}, 95 % have at most {length['p95']:,}, "
        f"longest {length['longest']:,} (train.seq-length is {report['seq-length']:,})",
        _cut(report["without-answer"], "cut before the answer: left out, nothing to learn"),
        _cut(report["cut-answer"], "cut within the answer"),
        "longest rows: " + "; ".join(map(_name, report["longest-rows"])),
    ]
    return "\n".join(lines)


def _cut(found: Mapping[str, Any], what: str) -> str:
    rows = "row" if found["rows"] == 1 else "rows"
    line = f"{found['rows']:,} {rows} ({found['share']:.2%}) {what}"
    if not found["rows"]:
        return line
    more = found["rows"] - len(found["first"])
    names = "; ".join(map(_name, found["first"])) + (f"; and {more:,} more" if more else "")
    return f"{line}: {names}"


def _name(row: Mapping[str, int]) -> str:
    return f"partition {row['partition']} row {row['row']} ({row['tokens']:,} tokens)"
