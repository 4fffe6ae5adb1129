"""The roll call, the ledger, the round's line, the reason of a failure."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import pytest
import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict

from flowertune.base.errors import UserError
from flowertune.base.text import duration
from flowertune.comms.failures import reason_of
from flowertune.comms.ledger import Ledger, tensor_bytes
from flowertune.comms.nodes import Roll, add_answers, answer_roll_call, call_roll
from flowertune.run.failures import too_few
from flowertune.run.progress import round_line


def context(partition: int, partitions: int) -> Context:
    return Context(
        run_id=1,
        node_id=100 + partition,
        node_config={"partition-id": partition, "num-partitions": partitions},
        state=RecordDict(),
        run_config={"static.challenge": "finance", "seed": 1},
    )


def question(node: int) -> Message:
    message = Message(RecordDict(), node, "query.roll_call")
    message.metadata.__dict__["_message_id"] = f"m{node}"
    return message


class FakeGrid:
    """A grid whose SuperNodes join one a second; node n holds partition n - 100."""

    def __init__(self, partitions: int, joined: int) -> None:
        self.partitions, self.joined = partitions, joined

    def get_node_ids(self):
        nodes = [100 + p for p in range(self.joined)]
        self.joined = min(self.partitions, self.joined + 1)
        return nodes

    def send_and_receive(self, messages, timeout=None):
        return [
            answer_roll_call(
                question(m.metadata.dst_node_id),
                context(m.metadata.dst_node_id - 100, self.partitions),
            )
            for m in messages
        ]


def test_the_roll_call_waits_for_nodes_that_join_late():
    roll = call_roll(FakeGrid(partitions=5, joined=2), wait=20)
    assert roll.complete and roll.partitions == {5}
    assert roll.nodes == {p: 100 + p for p in range(5)}
    assert len(roll.digests) == 1


def test_the_roll_call_goes_on_without_nodes_that_never_join():
    grid = FakeGrid(partitions=5, joined=2)
    grid.get_node_ids = lambda: [100, 101]
    roll = call_roll(grid, wait=0.5)
    assert not roll.complete and set(roll.nodes) == {0, 1}


def test_no_node_at_all_is_an_error():
    grid = FakeGrid(partitions=5, joined=0)
    grid.get_node_ids = list
    with pytest.raises(UserError, match="no SuperNode joined"):
        call_roll(grid, wait=0.3)


def test_two_nodes_with_one_partition_are_an_error():
    answers = [answer_roll_call(question(node), context(3, 5)) for node in (103, 104)]
    with pytest.raises(UserError, match="two SuperNodes hold partition 3"):
        add_answers(Roll(), answers)


def test_the_ledger_counts_tensors_and_not_errors():
    content = RecordDict({"arrays": ArrayRecord({"w": torch.zeros(1024, 256)})})
    message = Message(content, 1, "train")
    size = tensor_bytes(message)
    # An array travels in numpy's file format, whose header is counted as well.
    assert 1024**2 <= size < 1024**2 + 200
    failed = Message(Error(0, "x"), reply_to=question(1))
    ledger = Ledger(budget_mib=3)
    ledger.count_sent(1, [message, message], {1: 30})
    ledger.count_received(1, [message, failed], {1: 30})
    assert ledger.entries[0] == {
        "round": 1, "partition": 30, "direction": "sent", "bytes": size,
    }  # fmt: skip
    assert [entry["bytes"] for entry in ledger.entries] == [size, size, size, 0]
    assert (ledger.sent, ledger.received) == (2 * size, size)
    assert ledger.over_budget
    assert ledger.summary()["total-mib"] == pytest.approx(3, abs=0.001)


def test_a_reason_comes_without_class_names():
    # As flwr 1.41 wraps what a ClientApp raised.
    wrapped = "<class 'a.B'>:<'\nException B occurred. Message: no such column 'x'\nreally'>"
    reply = Message(Error(1, wrapped), reply_to=question(1))
    assert reason_of(reply) == "no such column 'x' really"
    # As it comes out of a Ray worker.
    traced = (
        "<class 'ray.exceptions.RayTaskError(B)'>:<'ray::ClientAppActor.run() (pid=1)\n"
        "Traceback (most recent call last):\n  raise B\na.B: \n"
        "Exception B occurred. Message: it is 'full'.'>"
    )
    assert reason_of(Message(Error(1, traced), reply_to=question(1))) == "it is 'full'."
    assert reason_of(Message(Error(1, "timed\nout"), reply_to=question(1))) == "timed out"


def test_too_few_replies_are_counted_and_the_first_reason_is_told():
    cfg = {"strategy.min-clients": 2}
    assert str(too_few(4, 0, 2, cfg, ["no such"])) == "all 2 clients of round 4 failed: no such"
    assert str(too_few(4, 1, 3, cfg, ["lost"])) == (
        "round 4 failed: 1 of 3 replies count, and strategy.min-clients is 2; "
        "the first that does not: lost"
    )


def test_a_round_is_one_line():
    line = round_line(3, 200, 5, 1, 1.23456, 312.5, 200_000, 41.0)
    assert line == (
        "round   3/200 | 5 clients (1 failed) | loss 1.2346 | 312.5 of 200,000 MiB | "
        "about 2 h 14 min left"
    )
    assert round_line(1, 1, 1, 0, 0.0, 0.0, 5, 1.0).endswith("| done")


def test_durations_are_said_as_people_say_them():
    assert [duration(s) for s in (0.4, 59.4, 200, 7500)] == [
        "0 s", "59 s", "3 min 20 s", "2 h 05 min",
    ]  # fmt: skip
