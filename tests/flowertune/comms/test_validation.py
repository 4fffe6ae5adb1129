"""What a client sends, read in one guarded place: malformed bytes are a reason, never an error."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common import Array

from flowertune.aggregation.average import Unreadable, pieces_of
from flowertune.aggregation.cohort import validate_manifest
from flowertune.aggregation.messages import ClientManifest
from flowertune.aggregation.plan import Part, Plan, Tensor
from flowertune.comms.agreement import too_large, unlike_the_others
from flowertune.comms.codec import pack, unpack
from flowertune.comms.failures import LONGEST, InvalidReply, reason_of
from flowertune.comms.ledger import Ledger, message_bytes
from flowertune.comms.nodes import exchange
from flowertune.comms.run_settings import carry_settings
from flowertune.comms.validation import Expected, kinds_of, validate_reply
from flowertune.run.data_check import _lengths_in

ADAPTER = {"a": torch.ones(2, 3), "b": torch.zeros(3)}
METRICS = {"num-examples": 10, "train-loss": 1.0, "tokens": 100}


def reply(arrays=None, metrics=None, **more) -> Message:
    content = {
        "arrays": arrays if arrays is not None else pack(ADAPTER, "float32"),
        "metrics": MetricRecord({**METRICS, **(metrics or {})}),
        "client": ConfigRecord({"partition-id": 0}),
        **more,
    }
    return Message(RecordDict(content), reply_to=Message(RecordDict(), 7, "train"))


def validated(message: Message, most: int = 10) -> dict[str, torch.Tensor]:
    expected = Expected.like(pack(ADAPTER, "float32"), ADAPTER)
    return validate_reply(message, expected, 0, most)


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """An npy file that says what it holds, and holds nothing."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def a_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(np.ones((2, 3), np.float32)))
    return file.getvalue()


BYTES = {
    "nothing": b"",
    "a zip": a_zip(),
    "a pickle": pickle.dumps(np.ones((2, 3), np.float32)),
    "pickled objects": npy(np.array([[None] * 3] * 2)),
    "a huge shape": header((2**40, 3)),
    "another shape": npy(np.ones((3, 2), np.float32)),
    "another type": npy(np.ones((2, 3), np.float64)),
    "too short": npy(np.ones((2, 3), np.float32))[:-4],
    "too long": npy(np.ones((2, 3), np.float32)) + b"1234",
    "a structure": header((2, 3), "[('x', '<f4')]"),
    "another byte order": npy(np.ones((2, 3), ">f4")),
    "a header without end": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_are_no_array_are_a_reason(kind):
    arrays = pack(ADAPTER, "float32")
    arrays["a"] = Array("float32", (2, 3), "numpy.ndarray", BYTES[kind])
    with pytest.raises(InvalidReply, match="its reply cannot be read"):
        validated(reply(arrays))


def test_arrays_are_read_as_numpy_reads_them():
    fortran = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    tensors = {"f": fortran, "scalar": np.array(3, "f4"), "none": np.zeros((0, 3), "f4")}
    record = ArrayRecord({name: Array(values) for name, values in tensors.items()})
    for name, tensor in unpack(record).items():
        assert tuple(tensor.shape) == tensors[name].shape
        assert (tensor.numpy() == tensors[name]).all()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"num-examples": 2**62}, "and 10 are the most"),
        ({"num-examples": 11}, "and 10 are the most"),
        ({"num-examples": -5}, "it has -5 examples"),
        ({"num-examples": float("nan")}, "cannot be read"),
        ({"num-examples": [3]}, "cannot be read"),
        ({"tokens": -1}, "cannot be read"),
        ({"tokens": 2**60}, "cannot be read"),
        ({"train-loss": 1e308}, "its train-loss is 1e.308; 1,000,000 is the most"),
        ({"train-loss": -1e308}, "its train-loss is -1e.308"),
        ({"accuracy": float("inf")}, "'accuracy' is not finite"),
        ({"accuracies": [0.5, float("nan")]}, "'accuracies' is not finite"),
    ],
)
def test_numbers_that_a_client_cannot_have_are_a_reason(metrics, said):
    with pytest.raises(InvalidReply, match=said):
        validated(reply(metrics=metrics))


def test_a_record_that_flowers_own_mean_would_read_first_is_a_reason():
    more = MetricRecord({"num-examples": [1, 2]})
    with pytest.raises(InvalidReply, match="a record of metrics 'another' beside 'metrics'"):
        validated(reply(another=more))


ROWS = {"dataset": "d", "revision": "main", "rows": 5, "unique-rows": 4, "sha256": "a" * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "d\n\nOFFICIAL\x1b[31m"},
        {"dataset": "\ud800"},
        {"rows": -5},
        {"rows": 10**300},
        {"unique-rows": "4"},
        {"sha256": "0"},
        {"sha256": "A" * 64},
        {"more": 1},
        {"revision": None},
    ],
)
def test_rows_that_no_manifest_may_hold_are_refused_when_they_arrive(changes):
    for rows, good in ((ROWS, True), ({**ROWS, **changes}, False)):
        client = ConfigRecord({"partition-id": 0, "rows": json.dumps(rows)})
        if good:
            validated(reply(client=client))
        else:
            with pytest.raises(InvalidReply, match=r"cannot be read .*rows is not"):
                validated(reply(client=client))


def test_what_a_client_says_does_not_steer_a_terminal():
    said = Message(Error(2, "a\x1b[31mred\x9b\u202e"), reply_to=Message(RecordDict(), 7, "train"))
    assert reason_of(said) == r"a\x1b[31mred\x9b\u202e"


def test_settings_that_travel_with_messages_are_counted():
    sent, ledger = [], Ledger(10)

    class Net:
        def push_messages(self, messages):
            sent.extend(messages)

        send_and_receive = push_messages

    net: Any = Net()
    carry_settings(net, {"seed": 7, "model.name": "m"}, ledger)
    message = Message(RecordDict({"a": ConfigRecord({"b": 1})}), 7, "train")
    ledger.count_sent(1, [message], {7: 0})
    net.push_messages([message])
    assert ledger.sent == message_bytes(sent[0]) > 30


def test_a_good_reply_counts():
    tensors = validated(reply(metrics={"accuracy": 0.5}))
    assert all(torch.equal(tensors[name], ADAPTER[name]) for name in ADAPTER)


def test_who_differs_from_most_is_left_out_and_of_two_the_first_counts():
    own = {"own": ArrayRecord({"c": torch.zeros(2)})}
    other = {"own": ArrayRecord({"c": torch.zeros(3)})}
    replies = [
        reply(), reply(), reply(metrics={"more": 1.0}), reply(metrics={"train-loss": [1.0]}),
        reply(**own),
    ]  # fmt: skip
    kinds = {partition: kinds_of(one, True) for partition, one in enumerate(replies)}
    assert unlike_the_others(kinds) == [2, 3, 4]
    assert unlike_the_others({3: "x", 1: "y"}) == [3]
    assert unlike_the_others({}) == []
    assert kinds_of(reply(**own), True) != kinds_of(reply(**other), True)
    assert kinds_of(reply(**own), False) == kinds_of(reply(**other), False)


def test_an_update_is_measured_against_the_lower_median_of_those_that_change_anything():

    def of(norms, factor=1000.0, sent=10.0):
        return too_large(norms, lambda partition: sent, factor)

    assert of({0: 8e-6, 1: 0.2}) == {} == of({0: 1e-6, 1: 1e-6, 2: 5.0, 3: 6.0})
    assert set(of({0: 2.0, 1: 1e30})) == {1} == set(of({0: 2.0, 1: 1e30, 2: 1.0}))
    assert set(of({0: 0.0, 1: 2.0, 2: 1e30})) == {2}
    assert of({0: 1.0, 1: 900.0, 2: 3.0}) == {} == of({0: 0.0, 1: 0.0})
    assert of({0: 1.0, 1: 1e30}, factor=0) == {}
    assert (
        "norm 1e+30, more than 1000 times the round's median 3 ("
        in of({0: 2.0, 1: 1e30, 2: 3.0})[1]
    )
    # One or two are compared with the adapter, and with nothing where that is zero.
    assert of({0: 9999.0}) == {} == of({0: 1e30}, sent=0.0)
    assert "that of the adapter it was sent" in of({0: 1e30, 1: 0.0})[0]


@pytest.mark.parametrize(
    ("prompt", "total", "copies"),
    [
        *(([1], [1, 2], []), ([5], [3], []), ([-1], [4], []), ([1.5], [4], [])),
        *(([1], [2**40], []), ("ab", "ab", []), ([1], [4], [1]), ([1], [4], [0])),
        *(([1, 1], [4, 4], [1, 1]), ([1, 1], [4, 4], [1.0]), ([1, 1], [4, 4], 1)),
    ],
)
def test_lengths_that_make_no_sense_are_no_lengths(prompt, total, copies):
    record = ConfigRecord({"prompt": prompt, "total": total, "copies": copies})
    content = RecordDict({"lengths": record})
    with pytest.raises((InvalidReply, ValueError, TypeError)):
        _lengths_in(content)


def test_a_manifest_and_a_bucket_are_read_in_the_same_place():
    ask = Message(RecordDict(), 7, "query.manifest")
    for record in ({}, {"manifest": ConfigRecord({"weight": "much"})}):
        with pytest.raises(InvalidReply, match="its reply cannot be read"):
            validate_manifest(Message(RecordDict(record), reply_to=ask), "p")
    long = ClientManifest(0, 1, "p", "x" * 10**6).record()
    with pytest.raises(InvalidReply, match="more than 1,000 characters"):
        validate_manifest(Message(RecordDict({"manifest": long}), reply_to=ask), "p")

    plan = Plan([Tensor("t", (4, 2), "F32")], 1000)
    part, manifest = Part(0, 0, 1), ClientManifest(0, 1, plan.digest, "me")
    pieces = plan.pieces(part)
    about = ConfigRecord({**vars(part), "identity": "me"})
    short = ArrayRecord({"0": Array("F32", (4, 2), "raw", b"123")})
    for content in ({}, {"about": about}, {"about": about, "arrays": short}):
        with pytest.raises(Unreadable):
            pieces_of(Message(RecordDict(content), reply_to=ask), pieces, part, manifest)


def test_a_reason_is_a_line_of_bounded_length():
    ask = Message(RecordDict(), 7, "train")
    assert len(reason_of(Message(Error(2, "no\n" * 10**6), reply_to=ask))) <= LONGEST
    died = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly.\n\tclass'>"
    assert "its worker process was killed" in reason_of(Message(Error(0, died), reply_to=ask))


class Twice:
    """A grid on which everyone replies twice, and a stranger once."""

    def send_and_receive(self, messages, timeout=None):
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"m{number}"
            for value in (1, 2):
                content = RecordDict({"metrics": MetricRecord({"v": value})})
                replies.append(Message(content, reply_to=message))
        stranger = Message(RecordDict(), reply_to=Message(RecordDict(), 99, "train"))
        return [*replies, stranger]


def test_duplicate_replies_count_once_and_are_entered_in_the_ledger(caplog):
    messages = [Message(RecordDict(), node, "train") for node in (1000, 1001)]
    ledger = Ledger(1)
    replies = exchange(Twice(), messages, 1, ledger.account(3, {1000: 0, 1001: 1}))
    assert [reply.metadata.src_node_id for reply in replies] == [1000, 1001]
    assert [reply.content["metrics"]["v"] for reply in replies] == [1, 1]
    assert caplog.text.count("replied twice") == 2 and "SuperNode 99" in caplog.text
    assert [entry["direction"] for entry in ledger.entries].count("received") == 5


def test_the_ledger_counts_every_record_of_a_message():
    big = 2**20
    records = {
        "arrays": ArrayRecord({"a": torch.zeros(big // 4)}),
        "config": ConfigRecord({"bytes": b"0" * big, "text": "é" * (big // 2), "": ""}),
        "metrics": MetricRecord({"list": [1.0] * (big // 8), "one": 2}),
    }
    bare = message_bytes(Message(RecordDict(), 7, "train"))
    assert bare == 0
    for name, size in (("arrays", big), ("config", 2 * big), ("metrics", big)):
        counted = message_bytes(Message(RecordDict({name: records[name]}), 7, "train"))
        assert size <= counted <= size + 300
    flags = Message(RecordDict({"c": ConfigRecord({"flag": True})}), 7, "train")
    assert message_bytes(flags) == len("c") + len("flag") + 1
    assert message_bytes(Message(Error(2, json.dumps("x" * big)), reply_to=flags)) == 0
