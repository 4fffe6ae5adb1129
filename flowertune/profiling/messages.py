"""How a client's profile reaches the server: as one more record in its reply."""

import json
import math
import time
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flowertune.profiling.phases import CURRENT, SETTING, AnyProfile, AnySpan, Profile, Span
from flowertune.profiling.records import as_row, fold_many, from_row

RECORD = "profile"
LONGEST = 100_000  # characters; a longer profile is not read


def profiled(message: Message, context: Context, answer: ClientAppCallable) -> Message:
    """Answer a message; where the run is profiled, add the phases of the answer to the reply.

    A Flower mod: ``ClientApp(mods=[profiled])``. While the message is answered, ``profile_of``
    returns its profile.
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
    """Move the clients' phases from their replies into the server's profile.

    Clocks may differ: where a client's phases lie outside of ``pushed`` to ``pulled`` (seconds
    since the epoch, on the server), they are shifted into it together. Unreadable profiles are
    dropped.

    Parameters
    ----------
    partitions : Mapping[int, int]
        The partition of each node id.

    Returns
    -------
    tuple[float, float] | None
        When the first client began and the last one ended, on the server's clock; None where no
        reply has a profile.
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
        except Exception:  # a client's bytes, of which a reader may raise anything
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
    """Add the clients' phases of an exchange of messages, and its two phases "transfer".

    They are the parts of the wait before the first client began and after the last one ended:
    messages in transit, processes starting, polling.
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
        raise TypeError("start and seconds must be numbers, and rows a text")
    if len(text) > LONGEST or not math.isfinite(start) or not math.isfinite(seconds):
        raise ValueError("out of bounds")
    return start, seconds, [from_row(row, start) for row in json.loads(text)]
