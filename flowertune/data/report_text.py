"""A data report as a person reads it."""

from collections.abc import Mapping
from typing import Any

from flowertune.base.text import counted


def as_text(report: Mapping[str, Any]) -> str:
    """Return the lines of a report, without a line break at the end; what is not amiss has none."""
    length, tokens = report["row-tokens"], report["tokens"]
    lines = [
        f"{report['rows']:,} rows in {report['partitions']} partitions of "
        f"{_range(report['rows-per-partition'])} rows",
        *_copies(report),
        f"{tokens:,} tokens kept, {report['supervised-tokens']:,} of them supervised "
        f"({report['supervised-share']:.1%})",
        f"tokens of a row: median {length['median']:,}, 95 % have at most {length['p95']:,}, "
        f"longest {length['longest']:,} (train.seq-length is {report['seq-length']:,})",
        *_bad(report["bad"]),
    ]
    cut = [
        *_cut(report["without-answer"], "cut before the answer: left out, nothing to learn"),
        *_cut(report["cut-answer"], "cut within the answer"),
    ]
    if cut:
        lines += [*cut, "longest rows: " + "; ".join(map(_name, report["longest-rows"]))]
    return "\n".join(lines)


def _range(group: Mapping[str, int]) -> str:
    fewest, most = group["fewest"], group["most"]
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _copies(report: Mapping[str, Any]) -> list[str]:
    group, unique, lines = report["copies"], report["unique-rows"], []
    if unique is not None and unique < report["rows"]:
        lines.append(f"{unique:,} unique rows in all: the others are copies of them")
    if group["rows"]:
        verb = "is a copy" if group["rows"] == 1 else "are copies"
        lines.append(
            f"{counted(group['rows'], 'row')} ({group['share']:.2%}) {verb} of another row of the "
            f"same partition: {_range(report['unique-rows-per-partition'])} unique rows in each"
        )
    return lines


def _bad(group: Mapping[str, Any]) -> list[str]:
    if not group["rows"]:
        return []
    more = group["rows"] - len(group["first"])
    names = "; ".join(f"partition {row['partition']} row {row['row']}" for row in group["first"])
    return [
        f"{counted(group['rows'], 'row')} ({group['share']:.2%}) without a text for question or "
        f"answer: left out: {names}" + (f"; and {more:,} more" if more else "")
    ]


def _cut(group: Mapping[str, Any], what: str) -> list[str]:
    line = f"{counted(group['rows'], 'row')} ({group['share']:.2%}) {what}"
    if not group["rows"]:
        return []
    more = group["rows"] - len(group["first"])
    names = "; ".join(map(_name, group["first"])) + (f"; and {more:,} more" if more else "")
    return [f"{line}: {names}"]


def _name(row: Mapping[str, int]) -> str:
    return f"partition {row['partition']} row {row['row']} ({row['tokens']:,} tokens)"
