"""The table of a comparison: Markdown for people, CSV and JSON for programs."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowertune.base.text import duration
from flowertune.compare import results
from flowertune.compare.grid import METHOD
from flowertune.compare.results import Line, Mean

NONE = "–"
_DIGITS = {
    results.SCORE: 2, results.HELD_OUT: 3, results.TRAIN_LOSS: 3, results.RESIDUAL: 4,
    results.DRIFT: 4,
}  # fmt: skip
NOTES = """\
Means over seeds, with half of the 95 % interval (Student's t) behind ±. "against first" is the
difference from the first line, seed by seed: equal seeds have equal rows and equal first adapters.
Score: percent, the mean over the challenge's sets. Losses: nats per answer token; held-out rows
were trained on by no run; the training loss is that of the last round. Residual: how far the
server's product is off the mean of the clients' products, relative to that, mean over the rounds; a
server that takes a step of its own (momentum, Adam) means to be off. Drift: how far clients go
apart, relative to how far they go together. MiB: both directions, all messages. Time: of all
rounds, on this machine with what else it had to do. Memory: the peak of the process, which holds
server and clients, or of the GPU's tensors. In brackets: least and largest of the clients that
train alone.
"""


def number(mean: Mean | None, digits: int, signed: bool = False) -> str:
    """Return a mean with its interval: "61.20 ± 3.41"."""
    if mean is None:
        return NONE
    text = f"{mean.mean:+,.{digits}f}" if signed else f"{mean.mean:,.{digits}f}"
    return text if mean.half is None else f"{text} ± {mean.half:,.{digits}f}"


def markdown(lines: Sequence[Line], titles: Mapping[str, str]) -> str:
    """Return the lines as a Markdown table; columns without a number are left out.

    Parameters
    ----------
    titles : Mapping[str, str]
        What varied settings are called, by key.
    """
    varied = list(dict.fromkeys(key for line in lines for key, _ in line.varied))
    columns: list[tuple[str, Callable[[Line], str]]] = [("method", _name)]
    columns += [
        (titles.get(key, key), lambda line, key=key: str(dict(line.varied).get(key, NONE)))
        for key in varied
    ]
    columns += [
        ("seeds", lambda line: _seeds(line)),
        ("rounds", _whole(results.ROUNDS)),
        ("score (%)", _mean(results.SCORE)),
        ("against first", _difference(results.SCORE)),
        ("held-out loss", _mean(results.HELD_OUT)),
        ("against first", _difference(results.HELD_OUT)),
        ("training loss", _mean(results.TRAIN_LOSS)),
        ("residual", _mean(results.RESIDUAL)),
        ("drift", _mean(results.DRIFT)),
        ("MiB", _plain(results.MIB, 1)),
        ("tokens", _whole(results.TOKENS)),
        ("time", _time),
        ("memory (MiB)", _whole(results.MEMORY)),
    ]
    cells = [[show(line) for _, show in columns] for line in lines]
    kept = [n for n in range(len(columns)) if n == 0 or any(row[n] != NONE for row in cells)]
    head = [columns[n][0] for n in kept]
    rule = [":--" if n <= len(varied) else "--:" for n in kept]
    rows = [head, rule, *([row[n] for n in kept] for row in cells)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _name(line: Line) -> str:
    if line.failed:
        return f"{line.name} (failed)"
    return line.name


def _seeds(line: Line) -> str:
    counts = [mean.seeds for mean in line.means.values()]
    return str(max(counts)) if counts and max(counts) else NONE


def _mean(name: str) -> Callable[[Line], str]:
    def show(line: Line) -> str:
        text = number(line.means.get(name), _DIGITS[name])
        if name in line.spread:
            low, high = line.spread[name]
            text += f" ({low:,.{_DIGITS[name]}f} to {high:,.{_DIGITS[name]}f})"
        return text

    return show


def _difference(name: str) -> Callable[[Line], str]:
    return lambda line: number(line.differences.get(name), _DIGITS[name], signed=True)


def _plain(name: str, digits: int) -> Callable[[Line], str]:
    return lambda line: f"{line.means[name].mean:,.{digits}f}" if name in line.means else NONE


def _whole(name: str) -> Callable[[Line], str]:
    return _plain(name, 0)


def _time(line: Line) -> str:
    seconds = line.means.get(results.SECONDS)
    return duration(seconds.mean) if seconds else NONE


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs as CSV, a line for each; what is a table or a list is JSON in its cell."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({
            key: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
            for key, value in row.items()
        })  # fmt: skip
    return text.getvalue()


def as_json(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return table and runs as one JSON object."""
    table = [
        {
            "name": line.name,
            "kind": line.kind,
            "varied": dict(line.varied),
            "means": {name: vars(mean) for name, mean in line.means.items()},
            "differences": {name: vars(mean) for name, mean in line.differences.items()},
            "spread": {name: list(pair) for name, pair in line.spread.items()},
            "failed": list(line.failed),
        }
        for line in lines
    ]
    return {"table": table, "runs": [dict(row) for row in rows]}


def methods_of(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of methods, without those of arms."""
    return [line for line in lines if line.kind == METHOD]
