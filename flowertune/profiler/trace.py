"""A profile in Chrome's trace format, which https://ui.perfetto.dev opens."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from flowertune.profiler.reading import Attempt
from flowertune.profiling.phases import Span

MICRO = 1_000_000
TOUCHING = 1e-4  # seconds; times are rounded, so a shorter overlap is none


def trace(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the trace: a process for the server and each client, a slice for each phase.

    Counters show memory (the peak of each phase, where it ends) and the bytes handled so far.
    """
    spans = [span for attempt in attempts for span in attempt.spans]
    start = min((attempt.start for attempt in attempts), default=0.0)
    events: list[dict[str, Any]] = []
    for pid, who in enumerate(processes(spans), start=1):
        own = sorted((s for s in spans if s.who == who), key=lambda s: (s.at, -s.seconds))
        events.append(_named(pid, "process_name", name=who))
        events.append(_named(pid, "process_sort_index", sort_index=pid))
        for span, lane in zip(own, lanes(own), strict=True):
            events.append(_slice(span, pid, lane, start))
        events += _counters(own, pid, start)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def processes(spans: Iterable[Span]) -> list[str]:
    """Return the owners of the phases: the server first, then the clients by number."""
    return sorted({span.who for span in spans}, key=_place)


def lanes(spans: Sequence[Span]) -> list[int]:
    """Return a lane for each span, so that spans of one lane are disjoint or nested.

    Spans must be sorted by their start, the longer first where they start together.
    """
    stacks: dict[int, list[float]] = defaultdict(list)
    chosen = []
    for span in spans:
        lane = 0
        while True:
            stack = stacks[lane]
            while stack and stack[-1] <= span.at + TOUCHING:
                stack.pop()
            if not stack or span.until <= stack[-1] + TOUCHING:
                stack.append(span.until)
                chosen.append(lane)
                break
            lane += 1
    return chosen


def _place(who: str) -> tuple[bool, int, str]:
    number = who.rpartition(" ")[2]
    return who != "server", int(number) if number.isdecimal() else -1, who


def _named(pid: int, what: str, **value: str | int) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": 0, "name": what, "args": value}


def _slice(span: Span, pid: int, lane: int, start: float) -> dict[str, Any]:
    rate = span.nbytes / span.seconds / 1e9 if span.seconds else 0.0
    known = {
        "round": span.round or None,
        "times": span.count if span.count > 1 else None,
        "bytes": span.nbytes or None,
        "GB/s": round(rate, 3) if span.nbytes else None,
        "tokens": span.tokens or None,
        "peak RSS": span.rss,
        "peak anonymous RSS": span.anon,
        "peak VRAM": span.vram,
        "disk read": span.read,
        "disk written": span.written,
    }
    return {
        "ph": "X",
        "pid": pid,
        "tid": lane,
        "name": span.phase,
        "cat": "phase",
        "ts": round((span.at - start) * MICRO),
        "dur": max(1, round(span.seconds * MICRO)),
        "args": {name: value for name, value in known.items() if value is not None},
    }


def _counters(spans: Iterable[Span], pid: int, start: float) -> list[dict[str, Any]]:
    events, so_far = [], 0
    for span in sorted(spans, key=lambda span: span.until):
        at = {"ph": "C", "pid": pid, "tid": 0, "ts": round((span.until - start) * MICRO)}
        memory = {"RSS": span.rss, "anonymous": span.anon, "VRAM": span.vram}
        if known := {name: value for name, value in memory.items() if value is not None}:
            events.append({**at, "name": "memory (bytes)", "args": known})
        if span.nbytes:
            so_far += span.nbytes
            events.append({**at, "name": "bytes so far", "args": {"bytes": so_far}})
    return events
