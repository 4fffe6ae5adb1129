"""Node discovery, the ledger, the round's line, the reason of a failure."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import pytest
import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict

from flowertune.base.errors import UserError
from flowertune.base.text import duration
from flowertune.comms.failures import reason_of
from flowertune.comms.ledger import Ledger, message_bytes, tensor_bytes
from flowertune.comms.nodes import DISCOVER, NodeRegistry, answer_discovery
from flowertune.run.failures import too_few
from flowertune.run.progress import round_line
from flowertune.run.round_cost import RoundCost


def context(partition: int, partitions: int) -> Context:
    return Context(
        run_id=1,
        node_id=100 + partition,
        node_config={"partition-id": partition, "num-partitions": partitions},
        state=RecordDict(),
        run_config={"static.challenge": "finance", "seed": 1},
    )


def question(node: int) -> Message:
    message = Message(RecordDict(), node, DISCOVER)
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
            answer_discovery(
                question(m.metadata.dst_node_id),
                context(m.metadata.dst_node_id - 100, self.partitions),
            )
            for m in messages
        ]


def test_discovery_waits_for_nodes_that_join_late():
    registry = NodeRegistry().discover(FakeGrid(partitions=5, joined=2), wait=20)
    assert registry.complete and registry.partitions == {5}
    assert registry.nodes == {p: 100 + p for p in range(5)}
    assert len(registry.digests) == len(registry.libraries) == 1


def test_discovery_goes_on_without_nodes_that_never_join():
    grid = FakeGrid(partitions=5, joined=2)
    grid.get_node_ids = lambda: [100, 101]
    registry = NodeRegistry().discover(grid, wait=0.5)
    assert not registry.complete and set(registry.nodes) == {0, 1}


def test_no_node_at_all_is_an_error():
    grid = FakeGrid(partitions=5, joined=0)
    grid.get_node_ids = list
    with pytest.raises(UserError, match="no SuperNode joined"):
        NodeRegistry().discover(grid, wait=0.3)


def test_two_nodes_with_one_partition_are_an_error():
    grid = FakeGrid(partitions=5, joined=5)
    grid.get_node_ids = lambda: [103, 104]
    grid.send_and_receive = lambda messages, timeout=None: [
        answer_discovery(question(m.metadata.dst_node_id), context(3, 5)) for m in messages
    ]
    with pytest.raises(UserError, match="two SuperNodes hold partition 3"):
        NodeRegistry().discover(grid)


def test_the_ledger_counts_messages_and_not_errors():
    content = RecordDict({"arrays": ArrayRecord({"w": torch.zeros(1024, 256)})})
    message = Message(content, 1, "train")
    size = message_bytes(message)
    assert size == tensor_bytes(message) + len("arrays") + len("w")
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
    assert str(too_few(4, 0, 2, 2, ["no such"])) == "all 2 clients of round 4 failed: no such"
    assert str(too_few(4, 1, 3, 2, ["lost"])) == (
        "round 4 failed: 1 of 3 replies count, and strategy.min-clients asks for 2; "
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


def test_what_a_server_received_before_it_was_killed_is_counted_once():
    ledger = Ledger(budget_mib=3)
    ledger.count_recovered(1, 7, 1000)
    ledger.count_recovered(1, 7, 1000)
    ledger.count_recovered(1, 8, 400)
    ledger.count_recovered(2, 7, 1000)
    assert [entry["bytes"] for entry in ledger.entries] == [1000, 400, 1000]
    assert (ledger.sent, ledger.received) == (0, 2400)


def entry(direction: str, partition: int, nbytes: int) -> dict:
    return {"round": 1, "partition": partition, "direction": direction, "bytes": nbytes}


def test_a_round_costs_what_its_fullest_attempt_took_as_if_all_had_answered():
    cost = RoundCost(100)
    failed = [entry("sent", 0, 90), entry("sent", 1, 90), entry("received", 0, 0)]
    cost.note(failed, asked=2)
    assert cost.nbytes == 100
    # Other arrays travel with the adapter, and one of two clients has failed.
    cost.note([entry("sent", 0, 90), entry("sent", 1, 90), entry("received", 1, 80)], asked=2)
    assert cost.nbytes == 180 + 160
    cost.note([entry("sent", 0, 10), entry("received", 0, 10)], asked=1)
    assert cost.nbytes == 340
