"""SuperNodes that go away during a run, and come back under the same or another id."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from flowertune.base.errors import UserError
from flowertune.comms import nodes
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.rules.provenance import Library
from tests.apps import rendered, tiny_settings
from tests.local_grid import LocalGrid, load

SUPERLINK = 1
LOST = "Error: Node Unavailable"
LIBRARY = Library("1.0.0", "0" * 64)


class Changing(LocalGrid):
    """SuperNodes whose id modulo 1000 is their partition; some are gone.

    ``before_round`` maps a round to what happens before its training messages arrive: the ids
    of all SuperNodes from then on.
    """

    def __init__(self, cfg, nodes: int, before_round: dict[int, list[int]] | None = None) -> None:
        super().__init__(cfg, nodes)
        self.before_round = before_round or {}
        self.ids = super().get_node_ids()
        self.asked: list[tuple[str, int]] = []

    def get_node_ids(self) -> list[int]:
        return list(self.ids)

    def send_and_receive(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> list[Message]:
        replies = []
        for message in messages:
            self.sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self.sent}"
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            self.asked.append((kind, node))
            if kind == "train":
                number = message.content.config_records["config"]["server-round"]
                self.ids = self.before_round.pop(int(number), self.ids)  # type: ignore
            if node in self.ids:
                replies.append(self.handle(message, node % 1000))
            else:
                # as the SuperLink answers for a SuperNode that is gone
                reply = Message(Error(5, LOST), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = SUPERLINK
                replies.append(reply)
        return replies


@pytest.fixture
def cfg(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    return tiny_settings(
        tmp_path,
        tiny_model,
        12,
        {
            "strategy.fraction-train": 1.0,
            "num-server-rounds": 3,
            "train.training-arguments.max-steps": 1,
            "train.training-arguments.per-device-train-batch-size": 1,
        },
    )


def run(cfg, grid: Changing) -> tuple[list[dict], list[dict]]:
    """Run the app over the grid; return the lines of rounds.jsonl and of ledger.jsonl."""
    server, _ = load(rendered("finance"))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    server(grid=grid, context=context)
    folder = Path(cfg["results-dir"]) / "1"
    return tuple(
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("rounds.jsonl", "ledger.jsonl")
    )  # type: ignore[return-value]


def test_a_round_goes_on_without_a_lost_node_and_the_next_with_the_one_that_came_back(cfg, caplog):
    grid = Changing(cfg, 2, {2: [1000], 3: [1000, 2001]})
    # it comes back between round 2 and round 3
    ids = grid.get_node_ids

    def back_after_round_2():
        if ("train", 1001) in grid.asked[-2:] and grid.ids == [1000]:
            grid.ids = [1000, 2001]
        return ids()

    grid.get_node_ids = back_after_round_2
    rounds, ledger = run(cfg, grid)
    assert [line["partitions"] for line in rounds] == [[0, 1], [0], [0, 1]]
    assert [line["failed"] for line in rounds] == [0, 1, 0]
    assert grid.asked[-1] == ("train", 2001)
    # the SuperLink's answer is entered for the partition that was asked
    (lost,) = [e for e in ledger if e["round"] == 2 and not e["bytes"]]
    assert (lost["partition"], lost["direction"]) == (1, "received")


def test_a_node_that_came_back_under_its_own_id_is_asked_again(cfg):
    grid = Changing(cfg, 2, {2: [1000], 3: [1000, 1001]})
    rounds, _ = run(cfg, grid)
    assert [line["partitions"] for line in rounds] == [[0, 1], [0], [0, 1]]
    assert [kind for kind, _ in grid.asked].count(nodes.DISCOVER) == 2


def test_the_second_try_of_a_round_goes_to_the_new_node(cfg):
    """Only one client trains; it is gone, and back under a new id by the time of the retry."""
    grid = Changing({**cfg, "strategy.min-clients": 2}, 2, {2: [1000, 2001]})
    rounds, _ = run(grid.cfg, grid)
    assert [line["partitions"] for line in rounds] == [[0, 1]] * 3
    tries = [node for kind, node in grid.asked if kind == "train"]
    assert tries == [1000, 1001, 1000, 1001, 1000, 2001, 1000, 2001]


def test_a_lost_node_has_no_lengths_and_the_run_goes_on(cfg):
    class LostAfterDiscovery(Changing):
        def send_and_receive(self, messages, timeout=None):
            messages = list(messages)
            if messages[0].metadata.message_type == "query.lengths":
                self.ids = [1000]
            return super().send_and_receive(messages, timeout)

    rounds, _ = run(cfg, LostAfterDiscovery(cfg, 2))
    assert [line["partitions"] for line in rounds] == [[0], [0], [0]]


def test_replies_come_from_the_node_that_was_asked(cfg):
    grid = Changing(cfg, 2)
    grid.ids = [1000]
    messages = [Message(RecordDict(), n, nodes.DISCOVER) for n in (1000, 1001)]
    replies = exchange(grid, messages, 1, Ledger(1).account(0, {}))
    assert [reply.metadata.src_node_id for reply in replies] == [1000, 1001]
    assert [reply.has_error() for reply in replies] == [False, True]
    assert replies[1].error.reason == LOST


def test_nodes_that_join_and_do_not_belong_are_left_out(cfg, monkeypatch, caplog):
    grid = Changing(cfg, 2)
    registry = NodeRegistry().discover(grid)
    assert registry.handle_rejoins(grid) == {}

    grid.ids = [1000, 1001, 3002]  # a partition that the run does not know
    assert registry.handle_rejoins(grid) == {}
    grid.ids, grid.cfg = [1000, 4001], {**cfg, "static.budget-mib": 1}  # other locked values
    assert registry.handle_rejoins(grid) == {}
    grid.ids, grid.cfg, grid.nodes = [1000, 5001], cfg, 7  # partitions of another cut
    assert registry.handle_rejoins(grid) == {}
    grid.ids, grid.nodes = [1000, 7001], 2
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "installed_library", lambda: Library("9.9.9", "f" * 64))
        assert registry.handle_rejoins(grid) == {}
    assert registry.nodes == {0: 1000, 1: 1001}
    assert caplog.text.count("this run goes on without it") == 3
    assert "SuperNode 3002 joined, but could not answer: it holds partition 2 of 2" in caplog.text

    grid.ids = [1000, 6001]
    assert registry.handle_rejoins(grid) == {1001: 6001}
    assert registry.nodes == {0: 1000, 1: 6001}
    assert [registry.current(node) for node in (1000, 1001, 6001)] == [1000, 6001, 6001]
    before = len(grid.asked)
    assert registry.handle_rejoins(grid) == {}
    assert len(grid.asked) == before  # nobody is asked twice


def test_a_client_with_another_library_makes_the_run_unofficial_and_takes_part(cfg, monkeypatch):
    class Mixed(Changing):
        def handle(self, message, partition):
            if message.metadata.message_type != nodes.DISCOVER or partition != 1:
                return super().handle(message, partition)
            with monkeypatch.context() as patch:
                patch.setattr(nodes, "installed_library", lambda: Library("9.9.9", "f" * 64))
                return super().handle(message, partition)

    rounds, _ = run(cfg, Mixed(cfg, 2))
    assert [line["partitions"] for line in rounds] == [[0, 1]] * 3
    about = json.loads((Path(cfg["results-dir"]) / "1" / "run.json").read_text())
    (difference,) = [d for d in about["differences"] if d["key"] == "the library on clients"]
    assert "9.9.9" in str(difference["given"]) and about["official"] is False


def test_a_strategy_may_keep_the_nodes_it_was_made_with(cfg, monkeypatch):
    """It goes on sending to ids that are gone; what it sends goes to the nodes that came."""
    grid = Changing({**cfg, "num-server-rounds": 2}, 2)
    server = load(rendered("finance"))[0]
    strategy = sys.modules["flowertune_finance.strategy"].LoraFedAvg  # type: ignore
    first = {0: 1000, 1: 1001}
    monkeypatch.setattr(
        sys.modules["flowertune_finance.strategy"],
        "LoraFedAvg",
        lambda nodes, clients, seed: strategy(dict(first), clients, seed),
    )
    ids = grid.get_node_ids

    def restarted_after_round_1():
        if ("train", 1001) in grid.asked:
            grid.ids = [1000, 2001]
        return ids()

    monkeypatch.setattr(grid, "get_node_ids", restarted_after_round_1)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=grid.cfg)
    server(grid=grid, context=context)
    trained = [node for kind, node in grid.asked if kind == "train"]
    assert trained == [1000, 1001, 1000, 2001]


def test_a_node_that_joins_and_cannot_answer_does_not_end_the_run(cfg):
    grid = Changing(cfg, 2)
    registry = NodeRegistry().discover(grid)
    grid.ids = [1000, 1001, 2001]

    class Failing(Changing):
        def handle(self, message, partition):
            return Message(Error(2, "out of memory"), reply_to=message)

    failing = Failing(cfg, 2)
    failing.ids = grid.ids
    assert registry.handle_rejoins(failing) == {}
    assert registry.nodes == {0: 1000, 1: 1001}
    with pytest.raises(UserError, match="could not answer: out of memory"):
        NodeRegistry().discover(failing, wait=1)
    assert not NodeRegistry().complete


def test_a_superlink_that_goes_away_leaves_a_reason_and_a_state_to_go_on_from(cfg):
    class Ended(Changing):
        def handle(self, message, partition):
            config = message.content.config_records.get("config", {})
            if config.get("server-round") == 2:
                raise SystemExit(0)  # as Flower ends a ServerApp whose SuperLink died
            return super().handle(message, partition)

    with pytest.raises(SystemExit):
        run(cfg, Ended(cfg, 2))
    folder = Path(cfg["results-dir"]) / "1"
    about = json.loads((folder / "run.json").read_text())
    assert about["status"] == "stopped" and "its SuperLink went away" in about["reason"]
    assert (folder / "state" / "round_1").is_dir() and not (folder / "state" / "round_2").exists()
    rounds, _ = run({**cfg, "resume-from": str(folder)}, Changing(cfg, 2))
    assert [line["round"] for line in rounds] == [1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"library": "[" * 100_000},
        {"library": json.dumps({**LIBRARY.record(), "edited": [["nested"]]})},
        {"library": json.dumps({**LIBRARY.record(), "edited": None})},
        {"partition-id": -1},
        {"partition-id": 2},
        {"partition-id": 0.5},
        {"num-partitions": 0},
        {"library": json.dumps({**LIBRARY.record(), "version": "9" * 10**6})},
        {"more": b"0" * 10**6},
    ],
)
def test_an_answer_that_makes_no_sense_is_a_sentence(changes):
    answer = {
        "partition-id": 0,
        "num-partitions": 2,
        "static-sha256": "",
        "library": json.dumps(LIBRARY.record()),
        **changes,
    }

    class Answering(LocalGrid):
        def __init__(self) -> None:
            self.nodes, self.tamper, self.sent = 1, None, 0

        def handle(self, message: Message, partition: int) -> Message:
            return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)

    with pytest.raises(UserError, match="SuperNode 1000 could not answer: it"):
        NodeRegistry().discover(Answering(), wait=0.1)

    class OneOfTwo(Answering):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = 2

        def handle(self, message: Message, partition: int) -> Message:
            if partition == 0:
                return super().handle(message, partition)
            good = {**answer, "partition-id": 1, "num-partitions": 2, "more": ""}
            good["library"] = json.dumps(LIBRARY.record())
            return Message(RecordDict({"answer": ConfigRecord(good)}), reply_to=message)

    # The others are not held up by it.
    registry = NodeRegistry().discover(OneOfTwo(), wait=30)
    assert registry.nodes == {1: 1001} and registry.complete
