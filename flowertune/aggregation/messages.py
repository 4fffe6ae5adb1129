"""The messages about buckets between server and clients: their names and records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from flowertune.aggregation.plan import Bucket, Part
from flowertune.base.numbers import as_int
from flowertune.comms.failures import InvalidReply

MANIFEST, BUCKET = "query.manifest", "query.bucket"
MODEL, ADAPTER = "model", "adapter"


@dataclass(frozen=True)
class AggregationJob:
    """What is averaged in a round.

    Parameters
    ----------
    kind : str
        MODEL (the weights a client has) or ADAPTER (what it has trained in this round).
    state_key : str
        The run, stable over resumed runs: where a client keeps what it trained.
    bucket_bytes : int
        With shapes, it decides the plan.
    """

    kind: str
    server_round: int
    state_key: str
    bucket_bytes: int

    def record(self) -> ConfigRecord:
        """Return it as it travels."""
        return ConfigRecord(
            {
                "kind": self.kind,
                "server-round": self.server_round,
                "state-key": self.state_key,
                "bucket-bytes": self.bucket_bytes,
            }
        )

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "AggregationJob":
        """Return what ``record`` made a record of."""
        return cls(
            str(record["kind"]),
            as_int(record, "server-round"),
            str(record["state-key"]),
            as_int(record, "bucket-bytes"),
        )


@dataclass(frozen=True)
class ClientManifest:
    """What a client can contribute, and its weight."""

    partition: int
    weight: int
    plan: str
    identity: str

    def record(self) -> ConfigRecord:
        """Return it as it travels."""
        return ConfigRecord(
            {
                "partition-id": self.partition,
                "weight": self.weight,
                "plan": self.plan,
                "identity": self.identity,
            }
        )

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "ClientManifest":
        """Return what ``record`` made a record of."""
        return cls(
            as_int(record, "partition-id"),
            as_int(record, "weight"),
            str(record["plan"]),
            str(record["identity"]),
        )


def manifest_request(node: int, job: AggregationJob) -> Message:
    """Return the message that asks a client for its manifest."""
    return Message(RecordDict({"job": job.record()}), node, MANIFEST)


def ask_part(node: int, job: AggregationJob, plan: str, part: Part) -> Message:
    """Return the question for a part of a bucket of the plan with digest ``plan``."""
    ask = ConfigRecord({"plan": plan, **vars(part)})
    return Message(RecordDict({"job": job.record(), "ask": ask}), node, BUCKET)


def part_in(record: Mapping[str, Any]) -> Part:
    """Return the part that a question, or its answer, is about."""
    return Part(as_int(record, "bucket"), as_int(record, "first"), as_int(record, "end"))


def pack(pieces: Bucket, contents: list[bytes]) -> ArrayRecord:
    """Return the bytes of pieces as they travel: as they are."""
    record = ArrayRecord()
    for i, (piece, data) in enumerate(zip(pieces, contents, strict=True)):
        shape = (piece.row1 - piece.row0, piece.tensor.width)
        record[str(i)] = Array(piece.tensor.dtype, shape, "raw", data)
    return record


def unpack(pieces: Bucket, record: ArrayRecord) -> list[bytes]:
    """Return the bytes of pieces, and empty the record.

    Whoever else still holds the message (Flower's simulation does, until its next one) holds no
    more than its shell then.

    Raises
    ------
    InvalidReply
        If the record is not that of these pieces.
    """
    contents = []
    for i, piece in enumerate(pieces):
        array = record.get(str(i))
        if (
            array is None
            or array.dtype != piece.tensor.dtype
            or not isinstance(array.data, bytes)
            or len(array.data) != piece.nbytes
        ):
            raise InvalidReply(
                f"rows {piece.row0} to {piece.row1 - 1} of {piece.tensor.name!r} are missing in "
                "its reply, or are of another size"
            )
        contents.append(array.data)
    if len(record) != len(pieces):
        raise InvalidReply(f"its reply holds {len(record)} pieces, not {len(pieces)}")
    record.clear()
    return contents
