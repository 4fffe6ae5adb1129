"""The data report: pure functions of the rows' lengths."""

from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.settings import WHERE
from flowertune.data.lengths import Lengths

NAMED = 10
# Rows that train nothing are dropped. A few are no harm; more say that the length is wrong.
ALLOWED_SHARE = 0.05

Row = tuple[int, int, Lengths]


def report_of(
    partitions: Mapping[int, Sequence[Lengths]], seq_length: int, unique_rows: int | None = None
) -> dict[str, Any]:
    """Return the statistics of the rows of ``partitions``, cut at ``seq_length`` tokens.

    ``unique_rows`` says how many different rows there are in all of them, where that is known: each
    client counts its own only.

    Keys: partitions, rows, rows-per-partition (fewest, most); copies (rows that are as an earlier
    row of their partition: rows, share), unique-rows-per-partition (fewest, most), unique-rows;
    seq-length; tokens (kept, prompts and answers), supervised-tokens, supervised-share; bad (rows
    without a text for question or answer, which are left out), without-answer (rows cut before
    their answer, which train nothing and are left out) and cut-answer (rows cut within it), each
    with rows, share and the first ten by partition and row; row-tokens (median, p95, longest,
    before cutting); longest-rows (the five longest). All numbers are whole but the shares. Bad rows
    are in rows, copies and bad only.
    """
    every = [(p, n, r) for p in sorted(partitions) for n, r in enumerate(partitions[p])]
    rows = [row for row in every if not row[2].bad]
    sizes = [len(rows_there) for rows_there in partitions.values()]
    unique = [sum(not row.copy for row in rows_there) for rows_there in partitions.values()]
    trained = [row for row in rows if row[2].prompt < seq_length]
    empty = [row for row in rows if row[2].prompt >= seq_length]
    cut = [row for row in trained if row[2].total > seq_length]
    tokens = sum(min(r.total, seq_length) for _, _, r in trained)
    supervised = tokens - sum(r.prompt for _, _, r in trained)
    totals = sorted(r.total for _, _, r in rows)
    longest = sorted(rows, key=lambda row: -row[2].total)[:5]
    return {
        "partitions": len(sizes),
        "rows": len(every),
        "rows-per-partition": _fewest_and_most(sizes),
        "copies": _share(len(every) - sum(unique), len(every)),
        "unique-rows-per-partition": _fewest_and_most(unique),
        "unique-rows": unique_rows,
        "seq-length": seq_length,
        "tokens": tokens,
        "supervised-tokens": supervised,
        "supervised-share": round(supervised / tokens, 6) if tokens else 0.0,
        "bad": _counted([row for row in every if row[2].bad], len(every)),
        "without-answer": _counted(empty, len(every)),
        "cut-answer": _counted(cut, len(every)),
        "row-tokens": {
            "median": median_low(totals) if totals else 0,
            "p95": totals[-(-95 * len(totals) // 100) - 1] if totals else 0,
            "longest": totals[-1] if totals else 0,
        },
        "longest-rows": [_named(row) for row in longest],
    }


def refuse_if_too_many_are_bad(report: Mapping[str, Any], allowed: float) -> None:
    """Check that at most a share of ``allowed`` of the rows has no text for question or answer.

    Raises
    ------
    UserError
        With the number of such rows and the first three of them.
    """
    bad = report["bad"]
    if bad["share"] <= allowed:
        return
    rows = bad["first"][:3]
    first = "; ".join(f"partition {row['partition']}, row {row['row']}" for row in rows)
    look = f"--partition {rows[0]['partition']} --row {rows[0]['row']}"
    raise UserError(
        f"{bad['rows']:,} of {report['rows']:,} rows ({bad['share']:.1%}) of static.dataset.name "
        f"have no text for question or answer, more than the {allowed:.0%} allowed ({first}); see "
        f"what is wrong with flowertune inspect {look}, mend the dataset, or allow more with "
        f"dataset.max-bad-rows ({WHERE})."
    )


def refuse_if_too_many_are_empty(report: Mapping[str, Any], allowed: float = ALLOWED_SHARE) -> None:
    """Check that at most a share of ``allowed`` of the rows has no room for its answer.

    Raises
    ------
    UserError
        With the number of such rows and the first three of them.
    """
    empty = report["without-answer"]
    if empty["share"] <= allowed:
        return
    first = "; ".join(
        f"partition {row['partition']}, row {row['row']}: {row['prompt-tokens']} tokens"
        for row in empty["first"][:3]
    )
    raise UserError(
        f"train.seq-length is {report['seq-length']}, and the prompts of {empty['rows']:,} of "
        f"{report['rows']:,} rows ({empty['share']:.1%}) leave no room for an answer, more than "
        f"the {allowed:.0%} allowed ({first}); use a larger one ({WHERE}), and "
        "look at rows with flowertune inspect."
    )


def _counted(rows: Sequence[Row], of: int) -> dict[str, Any]:
    return {
        **_share(len(rows), of),
        "first": [_named(row) for row in rows[:NAMED]],
    }


def _share(rows: int, of: int) -> dict[str, Any]:
    return {"rows": rows, "share": round(rows / of, 6) if of else 0.0}


def _fewest_and_most(counts: Sequence[int]) -> dict[str, int]:
    return {"fewest": min(counts, default=0), "most": max(counts, default=0)}


def _named(row: Row) -> dict[str, int]:
    partition, number, lengths = row
    if lengths.bad:
        return {"partition": partition, "row": number}
    return {
        "partition": partition,
        "row": number,
        "prompt-tokens": lengths.prompt,
        "tokens": lengths.total,
    }
