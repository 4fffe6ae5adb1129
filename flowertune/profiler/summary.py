"""The summary of a profile: a row for each phase, and totals of the run."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from flowertune.profiler.reading import Attempt, joined
from flowertune.profiling.phases import Span
from flowertune.profiling.records import folded, most, seconds_of

SERVER, CLIENTS = "server", "clients"
UNTIMED = "(not timed)"


@dataclass(frozen=True)
class Row:
    """One phase on the server, or on all clients together; seconds, bytes, None where unknown.

    ``share`` is of the run's duration on the server, and of the time of all clients' phases on
    clients. Rates are per second of the phase's total time, which is what one of several processes
    at work at once achieves. ``slowest`` names the client and the round of the longest time.
    """

    where: str
    phase: str
    count: int
    seconds: float
    share: float | None
    mean: float
    p95: float
    max: float
    slowest: str
    bytes: int
    gb_per_second: float | None
    tokens: int
    tokens_per_second: float | None
    rss: int | None
    anon: int | None
    vram: int | None
    read: int | None
    written: int | None


@dataclass(frozen=True)
class Summary:
    """A run's totals, and a row for each phase.

    ``seconds`` is the time from the first check to the end of the last phase, without the pauses
    before a run was resumed; ``tokens_per_second`` is per second in which any client trained.
    """

    facts: dict[str, Any]
    status: str
    seconds: float
    rounds: int
    clients: int
    tokens: int
    tokens_per_second: float | None
    transferred: int
    server_rss: int | None
    server_anon: int | None
    client_rss: int | None
    client_anon: int | None
    vram: int | None
    lost: int
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain values, with names in Flower's style: ``gb-per-second``."""
        rows = [_hyphens(asdict(row)) for row in self.rows]
        return {**_hyphens(asdict(self)), "rows": rows}


def summarize(attempts: Sequence[Attempt]) -> Summary:
    """Return the summary of a run, or of what has been recorded of it so far."""
    spans, _, seconds = joined(attempts)
    server = [span for span in spans if span.who == SERVER]
    clients = [span for span in spans if span.who != SERVER]
    rows = _rows(SERVER, server, seconds) + _rows(CLIENTS, clients, None)
    training = covered(span for span in clients if span.tokens)
    tokens = sum(span.tokens for span in spans)
    return Summary(
        facts=attempts[-1].facts if attempts else {},
        status=(attempts[-1].status or "no end yet") if attempts else "empty",
        seconds=seconds,
        rounds=len({span.round for span in spans if span.round}),
        clients=len({span.who for span in clients}),
        tokens=tokens,
        tokens_per_second=tokens / training if training and tokens else None,
        transferred=sum(span.nbytes for span in server if span.phase == "transfer"),
        server_rss=most(span.rss for span in server),
        server_anon=most(span.anon for span in server),
        client_rss=most(span.rss for span in clients),
        client_anon=most(span.anon for span in clients),
        vram=most(span.vram for span in spans),
        lost=sum(attempt.lost for attempt in attempts),
        rows=rows,
    )


def percentile(spans: Iterable[Span], share: float) -> float:
    """Return the duration that ``share`` of all times do not exceed (nearest rank)."""
    counts: list[tuple[float, int]] = []
    for span in spans:
        if span.spread is None:
            counts.append((span.seconds, 1))
        else:
            counts += [(min(seconds_of(bin), span.max), n) for bin, n in span.spread.items()]
    counts.sort()
    ranks = list(accumulate(count for _, count in counts))
    return counts[bisect_left(ranks, share * ranks[-1])][0] if counts else 0.0


def _hyphens(values: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in values.items()}


def covered(spans: Iterable[Span]) -> float:
    """Return the seconds covered by at least one of the spans."""
    seconds, until = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.at):
        if span.until > until:
            seconds += span.until - max(span.at, until)
            until = span.until
    return seconds


def _rows(where: str, spans: Sequence[Span], elapsed: float | None) -> list[Row]:
    phases: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.at):
        phases[span.phase].append(span)
    whole = sum(span.seconds for span in spans) if elapsed is None else elapsed
    rows = [_row(where, phase, own, whole) for phase, own in phases.items()]
    rest = 0.0 if elapsed is None else elapsed - covered(spans)
    if spans and elapsed and rest > 0.001 * elapsed:
        rows.append(_row(where, UNTIMED, [Span(where, UNTIMED, 0, 0.0, rest)], elapsed))
    return rows


def _row(where: str, phase: str, spans: Sequence[Span], whole: float) -> Row:
    total = folded(spans)
    seconds, nbytes, tokens = total.seconds, total.nbytes, total.tokens
    slowest = max(spans, key=lambda span: span.max)
    place = [slowest.who] if where == CLIENTS else []
    place += [f"round {slowest.round}"] if slowest.round else []
    return Row(
        where=where,
        phase=phase,
        count=total.count,
        seconds=seconds,
        share=seconds / whole if whole else None,
        mean=seconds / total.count,
        p95=percentile(spans, 0.95),
        max=slowest.max,
        slowest=", ".join(place),
        bytes=nbytes,
        gb_per_second=nbytes / seconds / 1e9 if nbytes and seconds else None,
        tokens=tokens,
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        rss=total.rss,
        anon=total.anon,
        vram=total.vram,
        read=total.read,
        written=total.written,
    )
