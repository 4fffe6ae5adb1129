"""One round's mean, bucket by bucket: ask, add, release; then write, and note that it is done."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.aggregation.accumulate import Mean, ScratchBuffer, bytes_of_accumulator, mean_of
from flowertune.aggregation.cohort import Cohort, find_rejoined
from flowertune.aggregation.dtypes import FLOATS, to_float32
from flowertune.aggregation.journal import Journal
from flowertune.aggregation.messages import (
    ADAPTER,
    AggregationJob,
    ClientManifest,
    ask_part,
    part_in,
    unpack,
)
from flowertune.aggregation.norms import UpdateNorms
from flowertune.aggregation.plan import Bucket, Part, Piece, Plan
from flowertune.aggregation.sinks import Sink
from flowertune.base.errors import UserError
from flowertune.comms.channel import Channel
from flowertune.comms.failures import InvalidReply, read_reply

RETRIES = 2  # further tries of a bucket with a client that is still there
_LOOK_EVERY = 2.0  # seconds between the first two looks for a lost client
_SLOWER, _LOOK_AT_LEAST_EVERY = 1.5, 30.0


@dataclass(frozen=True)
class AveragingOptions:
    """What the settings say about averaging.

    Parameters
    ----------
    window : int
        Most replies in flight, over all clients.
    exact : bool
        Whether sums must not depend on the order of clients.
    on_failure : str
        "wait" for a lost client, "restart" with the others, or "abort".
    timeout : float
        Seconds to wait for a reply, or for a lost client.
    together : bool
        all_at_once: every client is asked at once, and all replies are held before they are
        added up, as flwr's own FedAvg does.
    result : str | None
        The kind of the mean's values, where it is not that of the clients'.
    part_bytes : int | None
        Most bytes of a reply, where buckets travel in parts; a piece is never cut.
    least : int
        Fewest clients that a mean may be of.
    """

    window: int = 2
    exact: bool = False
    on_failure: str = "wait"
    timeout: float = 43200
    together: bool = False
    result: str | None = None
    part_bytes: int | None = None
    least: int = 1


@dataclass(frozen=True)
class _Ask:
    part: Part
    manifest: ClientManifest
    message_id: str


class _Lost(Exception):
    """A client did not deliver a bucket."""

    def __init__(
        self, manifest: ClientManifest, reason: str, there: bool, unreadable: bool = False
    ) -> None:
        super().__init__(reason)
        self.manifest, self.there, self.unreadable = manifest, there, unreadable


class Unreadable(InvalidReply):
    """A reply whose bytes are not those of the pieces that were asked for."""


class Changed(InvalidReply):
    """A reply about something else than what the client offered."""


class Averaging:
    """The mean over a cohort, from the first bucket that the journal does not hold to the last.

    Parameters
    ----------
    journal_of : Callable[[Cohort], Journal]
        Returns the journal of this round with a cohort; called again when the cohort shrinks.
    watch : Callable[[Piece, memoryview | bytes, Cohort], None]
        Called with every piece of the mean.
    progress : Callable[[int], None]
        Called after every bucket with the number of those done.
    norms : UpdateNorms | None
        Where updates that are too large do not count, what measures them.

    Attributes
    ----------
    left_out : dict[int, str]
        Why clients of the cohort are not in the mean, by partition.
    """

    def __init__(
        self,
        grid: Grid,
        channel: Channel,
        job: AggregationJob,
        plan: Plan,
        sink: Sink,
        journal_of: Callable[[Cohort], Journal],
        options: AveragingOptions,
        watch: Callable[[Piece, Any, Cohort], None] = lambda piece, data, cohort: None,
        progress: Callable[[int], None] = lambda done: None,
        norms: UpdateNorms | None = None,
    ) -> None:
        self.grid, self.channel, self.job, self.plan = grid, channel, job, plan
        self.sink, self.journal_of, self.options = sink, journal_of, options
        self.watch, self.progress = watch, progress
        self.norms = norms or UpdateNorms({}, 0)
        self.left_out: dict[int, str] = {}
        self.profile = channel.profile
        self.scratch = ScratchBuffer()
        self.waiting: deque[_Ask] = deque()

    def run(self, cohort: Cohort) -> tuple[Cohort, Journal]:
        """Average; return who took part in all of it, and the finished journal.

        Raises
        ------
        UserError
            If a client is lost and ``options.on_failure`` does not go on without it.
        """
        reason = "none takes part"
        while cohort.manifests:
            self.cohort, self.journal = cohort, self.journal_of(cohort)
            self.norms.restart()
            try:
                self._all_buckets()
            except _Lost as lost:
                # Nothing that is still on its way may end up in another cohort's sum.
                self.channel.cancel((ask.message_id for ask in self.waiting), timeout=60)
                self.waiting.clear()
                partition = lost.manifest.partition
                reason = f"partition {partition} was lost: {lost}"
                # What a client that is there gives can be left out, as a bad reply is.
                bad = lost.there and (self.job.kind == ADAPTER or lost.unreadable)
                if self.options.on_failure != "restart" and not bad:
                    raise UserError(
                        f"round {self.job.server_round} cannot be averaged: {reason}. The last "
                        "global model is kept; resume with resume-from, or see "
                        "aggregation.on-failure."
                    ) from None
                self.left_out[partition] = str(lost)
            else:
                refused = self.norms.too_large()
                if not refused:
                    return cohort, self.journal
                partition = min(refused)
                reason = f"partition {partition} does not count: {refused[partition]}"
                self.left_out |= refused
            cohort = cohort.without(*self.left_out)
            if 0 < len(cohort.manifests) < self.options.least:
                raise UserError(
                    f"round {self.job.server_round} cannot be averaged: {reason}, and "
                    f"{len(cohort.manifests)} clients are left; strategy.min-clients asks for "
                    f"{self.options.least}."
                ) from None
            log(WARNING, "%s; the round is restarted without it", reason)
        raise UserError(f"round {self.job.server_round} has no client left to average: {reason}")

    def _all_buckets(self) -> None:
        self.asks = self._in_order()
        self._fill()
        for number in range(self.journal.done, len(self.plan.buckets)):
            bucket = self.plan.buckets[number]
            means = self._means(bucket)
            if self.options.together:
                replies = [self._next_pieces() for _ in self.cohort.manifests]
                for manifest, pieces in zip(self.cohort.manifests, replies, strict=True):
                    self.norms.add(manifest.partition, bucket, pieces)
                    self._add(means, pieces, manifest.weight)
                del replies, pieces
            else:
                while self.waiting and self.waiting[0].part.bucket == number:
                    part, manifest = self.waiting[0].part, self.waiting[0].manifest
                    pieces = self._next_pieces()
                    self.norms.add(manifest.partition, bucket[part.first : part.end], pieces)
                    self._add(means[part.first : part.end], pieces, manifest.weight)
                    del pieces  # the reply must be gone before the next is asked for
                    self._fill()
            self._finish(bucket, means)
            self.progress(number + 1)

    def _in_order(self) -> Iterator[tuple[Part, ClientManifest]]:
        most = self.options.part_bytes or self.plan.bucket_bytes
        for number in range(self.journal.done, len(self.plan.buckets)):
            for manifest in self.cohort.manifests:
                for part in self.plan.parts(number, most):
                    yield part, manifest

    def _fill(self) -> None:
        window = len(self.cohort.manifests) if self.options.together else self.options.window
        while len(self.waiting) < window and (ask := next(self.asks, None)):
            self.waiting.append(_Ask(*ask, self._ask(*ask)))

    def _ask(self, part: Part, manifest: ClientManifest) -> str:
        node = self.cohort.nodes[manifest.partition]
        message = ask_part(node, self.job, self.plan.digest, part)
        return self.channel.send(message, manifest.partition)

    def _means(self, bucket: Bucket) -> list[Mean]:
        wide = self.options.exact or self.options.result == "F32"
        self.scratch.reserve(
            sum(
                (p.row1 - p.row0) * p.tensor.width * bytes_of_accumulator(p.tensor.dtype, wide) + 16
                for p in bucket
                if p.tensor.dtype in ("F32", "F16", "BF16")
            )
        )
        total, options = self.cohort.total, self.options
        return [
            mean_of(piece, total, options.exact, self.scratch, options.result) for piece in bucket
        ]

    def _add(self, means: list[Mean], pieces: list[bytes], weight: int) -> None:
        with self.profile.phase("accumulate", sum(map(len, pieces))):
            pieces.reverse()
            for mean in means:
                mean.add(pieces.pop(), weight)

    def _finish(self, bucket: Bucket, means: list[Mean]) -> None:
        seen, rounding, writing, written = hashlib.sha256(), 0.0, 0.0, 0
        for piece, mean in zip(bucket, means, strict=True):
            began = time.perf_counter()
            data = mean.result()
            ready = time.perf_counter()
            seen.update(data)
            self.sink.write(piece, data)
            rounding, writing = rounding + ready - began, writing + time.perf_counter() - ready
            written += len(data)
            self.watch(piece, data, self.cohort)
        began = time.perf_counter()
        self.sink.flush()
        self.journal.finished(seen.hexdigest())
        # One entry a bucket, however many pieces it has.
        self.profile.add("accumulate", rounding)
        self.profile.add("write", writing + time.perf_counter() - began, written)

    def _next_pieces(self) -> list[bytes]:
        """Return the pieces that were asked for first; aggregation.on-failure says what if none."""
        ask = self.waiting.popleft()
        message_id, tries, unreadable = ask.message_id, 0, False
        while True:
            reply = self.channel.receive(message_id, ask.manifest.partition, self.options.timeout)
            try:
                pieces = self.plan.pieces(ask.part)
                contents = pieces_of(reply, pieces, ask.part, ask.manifest)
                if self.job.kind == ADAPTER:
                    check_finite(pieces, contents)
                return contents
            except InvalidReply as error:
                reason, unreadable = str(error), isinstance(error, Unreadable)
            tries += 1
            log(
                WARNING, "partition %d did not give bucket %d: %s",
                ask.manifest.partition, ask.part.bucket + 1, reason,
            )  # fmt: skip
            del reply
            there = self.cohort.nodes[ask.manifest.partition] in set(self.grid.get_node_ids())
            if tries > RETRIES or not there:
                if self.options.on_failure != "wait" or there:
                    raise _Lost(ask.manifest, reason, there, unreadable)
                self._wait_for(ask.manifest, reason)
                tries = 0
            else:
                time.sleep(tries)
            message_id = self._ask(ask.part, ask.manifest)

    def _wait_for(self, manifest: ClientManifest, reason: str) -> None:
        log(
            WARNING, "waiting up to %d s for partition %d (aggregation.on-failure='wait')",
            self.options.timeout, manifest.partition,
        )  # fmt: skip
        deadline, logged = time.monotonic() + self.options.timeout, set[str]()
        pause = _LOOK_EVERY
        while time.monotonic() < deadline:
            node = find_rejoined(
                self.grid, self.cohort, manifest, self.job, self.plan.digest,
                self.channel.ledger, logged,
            )  # fmt: skip
            if node is not None:
                self.cohort.nodes[manifest.partition] = node
                log(WARNING, "partition %d is back", manifest.partition)
                return
            # Every SuperNode that is free is asked, and each question starts a process there.
            time.sleep(pause)
            pause = min(_SLOWER * pause, _LOOK_AT_LEAST_EVERY)
        raise _Lost(manifest, reason, there=False)


def check_finite(pieces: Bucket, contents: list[bytes]) -> None:
    """Check trained values.

    Raises
    ------
    InvalidReply
        If one is no finite number; names its tensor.
    """
    for piece, data in zip(pieces, contents, strict=True):
        dtype = piece.tensor.dtype
        if dtype in FLOATS and not np.isfinite(to_float32(data, dtype)).all():
            raise InvalidReply(f"{piece.tensor.name!r} holds values that are not finite")


def pieces_of(
    reply: Message | None, pieces: Bucket, part: Part, manifest: ClientManifest
) -> list[bytes]:
    """Return the bytes of pieces in a reply, if it is the one that was asked for.

    Raises
    ------
    InvalidReply
        If it is not, with the reason.
    """
    if reply is None:
        raise InvalidReply("no answer in time")

    def contents_in(content: RecordDict) -> list[bytes]:
        about = content.config_records["about"]
        if (part_in(about), str(about["identity"])) != (part, manifest.identity):
            raise Changed("its reply is about another bucket, or its content has changed since")
        return unpack(pieces, content.array_records["arrays"])

    try:
        return read_reply(reply, contents_in)
    except InvalidReply as error:
        if reply.has_error() or isinstance(error, Changed):
            raise
        raise Unreadable(str(error)) from None
