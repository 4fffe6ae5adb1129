"""What a profile comes to: a row for each phase, and a few numbers of the run."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowertune.profiler.reading import Sitting, joined
from flowertune.profiling.phases import Span
from flowertune.profiling.records import folded, most, percentile

SERVER, CLIENTS = "server", "clients"
UNTIMED = "(not timed)"


@dataclass(frozen=True)
class Row:
    """One phase on the server, or on all clients together; seconds, bytes, None where unknown.

    ``share`` is of the run's time on the server, and of all clients' phases on clients. The rates
    are by the sum of the phase's times: what one of several at a time achieves. ``slowest`` says
    where and when the longest time was.
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
    """A run's phases, and what is said above them.

    ``seconds`` is the time from the first check to the end of the last phase, pauses between a run
    and its continuation left out; ``tokens_per_second`` counts the time in which any client
    trained.
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
        """Return the same as plain values, with names as flwr writes them: ``gb-per-second``."""
        rows = [_hyphens(asdict(row)) for row in self.rows]
        return {**_hyphens(asdict(self)), "rows": rows}


def summarize(sittings: Sequence[Sitting]) -> Summary:
    """Return the summary of a run; of one that goes on, as far as it is."""
    spans, _, seconds = joined(sittings)
    server = [span for span in spans if span.who == SERVER]
    clients = [span for span in spans if span.who != SERVER]
    rows = _rows(SERVER, server, seconds) + _rows(CLIENTS, clients, None)
    training = covered(span for span in clients if span.tokens)
    tokens = sum(span.tokens for span in spans)
    return Summary(
        facts=sittings[-1].facts if sittings else {},
        status=(sittings[-1].status or "no end yet") if sittings else "empty",
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
        lost=sum(sitting.lost for sitting in sittings),
        rows=rows,
    )


def _hyphens(values: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in values.items()}


def covered(spans: Iterable[Span]) -> float:
    """Return the seconds in which at least one of the spans went on."""
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
    rows = [_row(where, phase, found, whole) for phase, found in phases.items()]
    rest = 0.0 if elapsed is None else elapsed - covered(spans)
    if spans and elapsed and rest > 0.001 * elapsed:
        rows.append(_row(where, UNTIMED, [Span(where, UNTIMED, 0, 0.0, rest)], elapsed))
    return rows


def _row(where: str, phase: str, spans: Sequence[Span], whole: float) -> Row:
    all_of_it = folded(spans)
    seconds, nbytes, tokens = all_of_it.seconds, all_of_it.nbytes, all_of_it.tokens
    slowest = max(spans, key=lambda span: span.max)
    place = [slowest.who] if where == CLIENTS else []
    place += [f"round {slowest.round}"] if slowest.round else []
    return Row(
        where=where,
        phase=phase,
        count=all_of_it.count,
        seconds=seconds,
        share=seconds / whole if whole else None,
        mean=seconds / all_of_it.count,
        p95=percentile(spans, 0.95),
        max=slowest.max,
        slowest=", ".join(place),
        bytes=nbytes,
        gb_per_second=nbytes / seconds / 1e9 if nbytes and seconds else None,
        tokens=tokens,
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        rss=all_of_it.rss,
        anon=all_of_it.anon,
        vram=all_of_it.vram,
        read=all_of_it.read,
        written=all_of_it.written,
    )
