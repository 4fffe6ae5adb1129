"""How a client's profile reaches the server: in its reply, beside what the reply is about."""

import json
import math
import time
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flowertune.profiling.phases import CURRENT, SETTING, AnyProfile, AnySpan, Profile, Span
from flowertune.profiling.records import as_row, fold_many, from_row

RECORD = "profile"
LONGEST = 100_000  # characters; a client that sends more is not read


def profiled(message: Message, context: Context, answer: ClientAppCallable) -> Message:
    """Answer a message; where the run is profiled, add the phases of the answer to the reply.

    A Flower mod: ``ClientApp(mods=[profiled])``. Whatever has something to time finds the
    message's profile with ``profile_of``.
    """
    if not context.run_config.get(SETTING, False):
        return answer(message, context)
    profile, start, began = Profile(who=""), time.time(), time.perf_counter()
    token = CURRENT.set(profile)
    try:
        reply = answer(message, context)
    finally:
        CURRENT.reset(token)
        profile.close()
    spans = fold_many(profile.take())
    if spans and reply.has_content():
        reply.content[RECORD] = ConfigRecord(
            {
                "start": start,
                "seconds": time.perf_counter() - began,
                "rows": json.dumps([as_row(span, start) for span in spans]),
            }
        )
    return reply


def take_profiles(
    profile: AnyProfile,
    replies: Iterable[Message],
    partitions: Mapping[int, int],
    pushed: float,
    pulled: float,
) -> tuple[float, float] | None:
    """Take the clients' phases out of replies and enter them into the server's profile.

    Clocks may differ: a client's phases are moved, together, to between ``pushed`` and
    ``pulled`` (seconds since the epoch, on the server) where they do not lie there already.
    Phases that cannot be read are left out.

    Parameters
    ----------
    partitions : Mapping[int, int]
        The partition of each node id.

    Returns
    -------
    tuple[float, float] | None
        When, on the server's clock, the first client began and the last one ended.
    """
    if not isinstance(profile, Profile):
        return None
    busy = []
    for reply in replies:
        if reply.has_error() or RECORD not in reply.content.config_records:
            continue
        sent = reply.content.config_records[RECORD]
        del reply.content[RECORD]
        try:
            start, seconds, spans = _read(sent)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            continue
        node = reply.metadata.src_node_id
        begin = max(pushed, min(start, pulled - seconds))
        for span in spans:
            span.who = f"client {partitions.get(node, node)}"
            span.at += begin - start
            span.round = span.round or profile.round
        profile.enter(spans)
        busy.append((begin, begin + seconds))
    return (min(b for b, _ in busy), max(e for _, e in busy)) if busy else None


def enter_exchange(
    profile: AnyProfile,
    replies: Iterable[Message],
    partitions: Mapping[int, int],
    waited: AnySpan,
    sent: int,
    received: int,
) -> None:
    """Enter what an exchange of messages shows: the clients' phases, and the way there and back.

    The transfer of an exchange is the part of the wait before the first client began and after the
    last one ended: messages on their way, processes starting, polling.
    """
    if not isinstance(waited, Span):
        return
    busy = take_profiles(profile, replies, partitions, waited.at, waited.until)
    if busy is None:
        return
    first, last = busy
    ways = ((waited.at, first, sent), (last, waited.until, received))
    profile.enter(
        Span(waited.who, "transfer", waited.round, begin, max(0.0, until - begin), nbytes)
        for begin, until, nbytes in ways
    )


def _read(sent: ConfigRecord) -> tuple[float, float, list[Span]]:
    start, seconds, text = sent["start"], sent["seconds"], sent["rows"]
    if not isinstance(start, float) or not isinstance(seconds, float) or not isinstance(text, str):
        raise TypeError("start and seconds are numbers, and rows is a text")
    if len(text) > LONGEST or not math.isfinite(start) or not math.isfinite(seconds):
        raise ValueError("out of bounds")
    return start, seconds, [from_row(row, start) for row in json.loads(text)]
