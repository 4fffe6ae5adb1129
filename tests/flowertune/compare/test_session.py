"""Whole comparisons on tiny random weights, in this process."""

import json
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from flowertune.base.files import read_json
from flowertune.compare import session
from flowertune.compare.equal import bytes_after
from flowertune.compare.local_grid import LocalGrid
from flowertune.compare.plan import counted_bytes
from flowertune.compare.session import Session
from flowertune.compare.spec import Asked
from flowertune.compare.work import about_of
from flowertune.models import loader
from flowertune.run.training import TrainingRun
from tests.apps import default_settings, rendered, tiny_settings
from tests.local_grid import run_app
from tests.methods import Run

NODES = 3


class Here:
    """In the place of worker processes: everything is done in this one."""

    def __init__(self, *arguments: Any) -> None:
        pass

    @contextmanager
    def running(self) -> Iterator["Here"]:
        yield self

    def one(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    def each(
        self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        for number, given in enumerate(arguments):
            yield number, work(*given)


@pytest.fixture(autouse=True)
def flwr_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    clear_cache()


@pytest.fixture
def changes(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """What differs from the app's own settings: two rounds of three clients, two steps each."""
    cfg = tiny_settings(tmp_path, tiny_model, 40, {
        "strategy.fraction-train": 1.0,
        "num-server-rounds": 2,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
        "model.lora.peft-lora-r": 4,
    })  # fmt: skip
    before = default_settings("finance")
    return {k: v for k, v in cfg.items() if v != before[k] and k != "results-dir"}


class Comparison:
    """A comparison in a folder of its own, and what it said."""

    def __init__(self, tmp_path: Path, changes: dict[str, Any], **asked: Any) -> None:
        self.out, self.said = tmp_path / "out", []
        given = {"methods": ["fedavg"], "seeds": [1], "arms": [], "score": "none", **asked}
        self.asked = Asked(settings=changes, supernodes=NODES, **given)

    def go(self) -> list[Any]:
        one = Session(rendered("finance"), self.asked, self.out, 1, 1, self.said.append, Here)
        self.session = one
        return one.go()

    def run(self, label: str) -> Run:
        (cell,) = [cell for cell in self.session.cells if cell.label == label]
        folder = self.session._task(cell).folder
        return Run(folder / about_of(folder)["run"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        body = read_json(self.out / "compare.json")
        assert body is not None
        return body["runs"]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The base models that are loaded."""
    seen: list[str] = []
    before = loader.pretrained

    def counted(source: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(str(source.path))
        return before(source, *args, **kwargs)

    monkeypatch.setattr(loader, "pretrained", counted)
    return seen


def test_runs_of_one_warm_engine_are_those_of_the_ordinary_path(tmp_path, changes, loads):
    """And the base model is loaded once for all of them, also where a method freezes a factor."""
    methods = ["fedavg", "ffa-lora"]
    one = Comparison(tmp_path, changes, methods=methods, seeds=[1, 2], hold_out=0.1, arms=["base"])
    lines = one.go()
    assert len(loads) == 1
    assert [line.name for line in lines] == [*methods, "base"]
    train = {"static.dataset.name": str(one.out / "rows" / "train.jsonl"), "train.keep-states": 3}
    for name, seed in (("ffa-lora", 1), ("fedavg", 2)):
        clear_cache()
        cfg = {
            **default_settings("finance"), **changes, **train, "strategy.name": name, "seed": seed,
            "results-dir": str(tmp_path / name),
        }  # fmt: skip
        same = one.run(f"{name}, seed {seed}")
        # Its id travels with every message.
        run_app(cfg, NODES, int(same.folder.name))
        ordinary = Run(tmp_path / name / same.folder.name)
        assert same.sha(2) == ordinary.sha(2)
        assert same.ledger == ordinary.ledger
    assert all(row["held-out-loss"] > 0 for row in one.rows)
    assert len({row["held-out-loss"] for row in one.rows}) == len(one.rows)
    for name in ("compare.md", "compare.csv", "compare.svg", "compare.png"):
        assert (one.out / name).stat().st_size > 100


def test_a_comparison_that_was_killed_goes_on_to_the_same_bits(tmp_path, changes, monkeypatch):
    asked = {"methods": ["fedavgm", "scaffold"], "hold_out": 0}
    changes = {**changes, "num-server-rounds": 3}
    whole = Comparison(tmp_path / "whole", changes, **asked)
    whole.go()
    killed = Comparison(tmp_path / "killed", changes, **asked)
    answer, answered = LocalGrid._answer, [0]

    def dies(grid: LocalGrid, message: Any) -> str:
        answered[0] += message.metadata.message_type == "train"
        if answered[0] == 3 * NODES + NODES + 2:  # in round 2 of the second run
            raise KeyboardInterrupt
        return answer(grid, message)

    with monkeypatch.context() as patch:
        patch.setattr(LocalGrid, "_answer", dies)
        with pytest.raises(KeyboardInterrupt):
            killed.go()
    assert [row["done"] for row in killed.rows] == [True, False]
    assert "1 run not done" in (killed.out / "compare.md").read_text("utf-8")
    trained: list[str] = []

    def counts(grid: LocalGrid, message: Any) -> str:
        trained.append(message.metadata.message_type)
        return answer(grid, message)

    monkeypatch.setattr(LocalGrid, "_answer", counts)
    killed.go()
    assert trained.count("train") == 2 * NODES  # rounds 2 and 3, and nothing of the first run
    assert "2 runs: 1 done, 1 to go on with; 1 at a time" in killed.said
    for label in ("fedavgm, seed 1", "scaffold, seed 1"):
        assert killed.run(label).sha(3) == whole.run(label).sha(3)
    trained.clear()
    killed.go()
    assert not trained


def test_a_larger_grid_uses_the_runs_that_are_there(tmp_path, changes):
    small = Comparison(tmp_path, changes, hold_out=0)
    small.go()
    before = small.run("fedavg, seed 1").folder
    larger = Comparison(tmp_path, changes, methods=["fedavgm", "fedavg"], hold_out=0)
    larger.go()
    assert larger.run("fedavg, seed 1").folder == before
    other = Comparison(tmp_path, {**changes, "train.learning-rate-max": 2e-2}, hold_out=0)
    other.go()
    assert other.run("fedavg, seed 1").folder != before


def test_equal_bytes_counts_messages_and_fills_the_budget(tmp_path, changes):
    one = Comparison(
        tmp_path, changes, methods=["fedavg", "rolora"], equal="bytes", budget=0.32, hold_out=0
    )
    one.go()
    budget = 0.32 * 2**20
    for name in ("fedavg", "rolora"):
        run = one.run(f"{name}, seed 1")
        used, (before, *rounds) = sum(run.ledger.values()), counted_bytes(run.folder)
        # What was counted in a short run is what the whole run took, but for a few characters.
        assert bytes_after(len(rounds), before, rounds[:5]) == pytest.approx(used, rel=1e-3)
        assert used <= budget * 1.001 < bytes_after(len(rounds) + 1, before, rounds[:5])
    fedavg, rolora = (len(one.run(f"{n}, seed 1").rounds) for n in ("fedavg", "rolora"))
    assert rolora > fedavg > 4
    assert f"rounds: fedavg {fedavg}, rolora {rolora}" in one.said


def test_the_arms_are_runs_of_the_same_tokens(tmp_path, changes):
    one = Comparison(tmp_path, changes, arms=["local", "centralised"], hold_out=0)
    lines = one.go()
    assert [(line.name, line.means["rounds"].mean) for line in lines] == [
        ("fedavg", 2), ("local", 2), ("centralised", 2),
    ]  # fmt: skip
    tokens = [line.means["tokens"].mean for line in lines]
    assert max(tokens) < 1.1 * min(tokens)  # as many rows, of other lengths
    local = [one.run(f"local, seed 1, client {client}") for client in range(NODES)]
    # Alone, a client does what it does in the federation before anything is averaged.
    together = one.run("fedavg, seed 1")
    alone = [run.rounds[0]["train-loss"] for run in local]
    assert sum(alone) / NODES == pytest.approx(together.rounds[0]["train-loss"], rel=0.05)
    assert len({run.sha(2) for run in [*local, together]}) == NODES + 1
    assert {row["mib"] for row in one.rows if row["kind"] != "method"} == {None}


def test_a_run_that_fails_is_said_and_the_others_are_done(tmp_path, changes, monkeypatch):
    one = Comparison(tmp_path, changes, methods=["fedavg", "fedprox"], hold_out=0)
    answer = LocalGrid._answer

    def fails(grid: LocalGrid, message: Any) -> str:
        context = next(iter(grid._contexts.values()))
        config = message.content.config_records.get("config", {})
        if config.get("server-round") == 2 and context.run_config["strategy.name"] == "fedprox":
            message.content.config_records["config"]["learning-rate"] = float("nan")
        return answer(grid, message)

    monkeypatch.setattr(LocalGrid, "_answer", fails)
    lines = one.go()
    assert [len(line.failed) for line in lines] == [0, 1]
    (problem,) = one.session.problems
    assert problem.startswith("fedprox, seed 1: ")
    assert one.run("fedavg, seed 1").checkpoints


def test_a_run_that_ended_is_let_go_of(tmp_path, changes, monkeypatch):
    """The start of the next one would keep it for good."""
    seen: list[weakref.ref[TrainingRun]] = []
    begin = TrainingRun.begin

    def noted(run: TrainingRun, *arguments: Any) -> Any:
        seen.append(weakref.ref(run))
        return begin(run, *arguments)

    monkeypatch.setattr(TrainingRun, "begin", noted)
    Comparison(tmp_path, changes, seeds=[1, 2], hold_out=0).go()
    assert [run() for run in seen] == [None, None]


def test_equal_rows_are_on_one_side_and_a_share_without_rows_is_refused(tmp_path, changes):
    rows = Path(changes["static.dataset.name"])
    rows.write_text(rows.read_text() * 3)
    one = Comparison(tmp_path, changes, hold_out=0.3)
    session_of = Session(rendered("finance"), one.asked, one.out, 1, 1, one.said.append, Here)
    session_of._split()
    train, held = (
        [json.dumps(json.loads(line), sort_keys=True) for line in file.read_text().splitlines()]
        for file in (one.out / "rows" / "train.jsonl", one.out / "rows" / "held-out.jsonl")
    )
    assert len(train) + len(held) == 120 and not {*train} & {*held}
    assert 15 <= len(held) <= 60
    small = Comparison(tmp_path, changes, hold_out=1e-9)
    with pytest.raises(UserError, match="--hold-out is 1e-09, and of the 120 rows"):
        small.go()


def test_two_commands_do_not_work_in_one_folder(tmp_path, changes):
    one = Comparison(tmp_path, changes)
    first = Session(rendered("finance"), one.asked, one.out, 1, 1, one.said.append, Here)
    with first._alone(), pytest.raises(UserError, match="another comparison works in"):
        one.go()
    shutil.rmtree(one.out)


def test_without_a_scorer_the_comparison_says_so(tmp_path, changes, monkeypatch):
    monkeypatch.setattr(session, "scorer_of", lambda challenge: None)
    one = Comparison(tmp_path, changes, score="sample", hold_out=0)
    one.go()
    assert one.said[0].startswith("no scores: the challenge finance has no scorer")
