"""Whole small runs of every method of the library: they are counted to the byte, go on to the same
bits after a stop, end as an adapter that PEFT loads, and take every transport.

A method that is added to the registry is tested here without a line of its own. Each method has one
run, which most tests look at.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file

from flowertune.base.errors import SettingsError
from flowertune.base.files import flower_home
from flowertune.config.checks import check_settings
from flowertune.methods import noise_key
from flowertune.methods.registry import NAMES, load
from flowertune.planning.traffic import traffic_of_run
from flowertune.run import training
from tests.apps import rendered, tiny_settings
from tests.local_grid import KillAt, fork
from tests.methods import (
    Run,
    Traffic,
    changed,
    counted,
    it_is_what_peft_loads,
    lost_and_resumed,
    run,
)

NODES, ROUNDS = 4, 3
# Options under which a method shows what it does in so few rounds.
OPTIONS = {"fedprox": "mu=10", "dp-fedavg": "clip=0.1, noise=0.01, epsilon=1e8"}
# Bytes of a message and its reply, without the dataset's name: settings, metrics, which rows.
BESIDE_TENSORS = 320
KEPT = 88  # bytes of a reply that says what its client keeps for later rounds
TRANSPORTS = ("float16", "bfloat16", "int8")
MERGING = ("flora", "fedex-lora")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the clients of all runs keep their files."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("flwr-home")
        patch.setenv("FLWR_HOME", str(folder))
        # A plot takes as long as a round here, and is tested by itself.
        patch.setattr(training, "plot_run", lambda *given: None)
        # The same noise in two runs of the same settings, so that they can be compared.
        patch.setenv(noise_key.GIVEN, str(folder / "noise.key"))
        noise_key.NoiseKey(bytes(range(32)), folder / "noise.key").save()
        yield folder


@pytest.fixture(scope="module")
def cfg(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, Any]:
    """Three rounds over four partitions of unequal size, of which three train for two steps."""
    changes = {
        "strategy.fraction-train": 0.75,
        "num-server-rounds": ROUNDS,
        "train.save-every-round": 1,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
        "model.lora.peft-lora-r": 4,
        "model.lora.peft-lora-alpha": 8,
    }
    return tiny_settings(tmp_path_factory.mktemp("runs"), tiny_model, 42, changes)


def of(cfg: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    return {**cfg, "strategy.name": name, "strategy.options": OPTIONS.get(name, ""), **more}


@dataclass(frozen=True)
class Whole:
    """A run that was not disturbed, what went over its grid, and the replies that were trained."""

    cfg: dict[str, Any]
    run: Run
    traffic: Traffic
    replies: dict[int, list[tuple[int, dict[str, np.ndarray]]]]  # by round: examples, adapter


class Runs:
    """The undisturbed run of each method, done when it is asked for first; new numbers of runs."""

    def __init__(self, cfg: dict[str, Any]) -> None:
        self.cfg, self.last, self.done = cfg, 0, dict[tuple[str, str], Whole]()

    def number(self) -> int:
        self.last += 1
        return self.last

    def __call__(self, name: str, options: str = "") -> Whole:
        if (name, options) not in self.done:
            cfg = of(self.cfg, name, **({"strategy.options": options} if options else {}))
            replies: dict[int, list[tuple[int, dict[str, np.ndarray]]]] = {}

            def keep(server_round: int, partition: int, reply: Message) -> Message:
                arrays = reply.content.array_records["arrays"]
                examples = reply.content.metric_records["metrics"]["num-examples"]
                values = {n: array.numpy().astype(np.float64) for n, array in arrays.items()}
                replies.setdefault(server_round, []).append((int(examples), values))  # type: ignore
                return reply

            with pytest.MonkeyPatch.context() as patch, counted(patch) as traffic:
                whole = run(rendered("finance"), cfg, self.number(), NODES, keep)
            self.done[name, options] = Whole(cfg, whole, traffic, replies)
        return self.done[name, options]


@pytest.fixture(scope="module")
def runs(cfg: dict[str, Any]) -> Runs:
    return Runs(cfg)


@pytest.fixture
def go_on(runs: Runs, tmp_path: Path) -> Callable[[Whole, int], Run]:
    """Go on with a copy of a run from an earlier state, in a worker that has served nobody.

    As after a process that was killed late in the next round: its clients kept files in it.
    """

    def resumed(whole: Whole, server_round: int) -> Run:
        folder = tmp_path / str(server_round) / whole.run.folder.name
        shutil.copytree(whole.run.folder, folder)
        state = str(folder / "state" / f"round_{server_round}")
        run(rendered("finance"), {**whole.cfg, "resume-from": state}, 1000 + runs.number(), NODES)
        return Run(folder)

    return resumed


def is_counted(whole: Whole) -> None:
    """The ledger is what went over the grid; its parts by round are its whole."""
    ledger, traffic, rounds = whole.run.ledger, whole.traffic, whole.run.rounds
    assert ledger == {"sent": traffic.sent, "received": traffic.received}
    for direction, key in (("sent", "bytes-down"), ("received", "bytes-up")):
        # The ledger's round 0: discovery, lengths of rows.
        before = rounds[0][f"{direction}-bytes"] - rounds[0][key]
        assert before + sum(line[key] for line in rounds) == ledger[direction]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_counted_goes_on_to_the_same_bits_and_is_what_peft_loads(name, runs, go_on):
    whole = runs(name)
    ended = whole.run
    assert ended.checkpoints == [f"peft_{n}" for n in range(1, ROUNDS + 1)]
    is_counted(whole)
    for line in ended.rounds:
        assert 0 <= line["residual"] < 1.5 and line["drift"] > 0 and line["residuals"]
    resumed = go_on(whole, ROUNDS - 1)
    assert changed(ended, resumed, range(1, ROUNDS + 1)) == []
    for key in ("drift", "residual", "train-loss", "bytes-up"):
        assert [line[key] for line in ended.rounds] == [line[key] for line in resumed.rounds]
    it_is_what_peft_loads(ended, whole.cfg["model.name"], ROUNDS)
    if name != "fedavg":
        assert changed(ended, runs("fedavg").run, [2]) == [2]
    the_plan_is_right(whole.cfg, ended)


def the_plan_is_right(cfg: dict[str, Any], ended: Run) -> None:
    """To the byte, but for what messages hold beside tensors, in every round.

    ``flowertune plan`` asks the method itself, so it is right about any that is added.
    """
    # Of the state: a checkpoint may be an export of another rank.
    adapter = load_file(ended.folder / "state" / "round_1" / "adapter.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.items()}
    strategy_of = sys.modules["flowertune_finance.strategy"].strategy_of
    read = check_settings(cfg, Path(), lambda given: [])
    planned = traffic_of_run(read, strategy_of, {}, shapes, NODES)
    kept = any(flower_home(os.environ).glob(f"flowertune/clients/{ended.folder.name}/*/state_1.*"))
    beside = BESIDE_TENSORS + (KEPT if kept else 0)
    for number, line in enumerate(ended.rounds):
        tensors = planned.counted[number]
        others = line["bytes-down"] + line["bytes-up"] - tensors
        named = len(cfg["static.dataset.name"])
        assert others / line["asked"] - named == pytest.approx(beside, abs=20)
        assert planned.down[number] < line["bytes-down"]
        assert planned.up[number] < line["bytes-up"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_all_replies_of_a_round_are_lost_and_it_goes_on_to_the_same_bits(name, runs):
    whole = runs(name)
    resumed = lost_and_resumed(rendered("finance"), whole.cfg, runs.number(), NODES, lost=ROUNDS)
    assert changed(whole.run, resumed, range(1, ROUNDS + 1)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_killed_three_times_in_a_round_it_ends_with_the_same_bits(name, runs, home, tmp_path):
    """SIGKILL to a process amid the replies of round 2, while its state is saved, and just after.

    Each process goes on where the one before it was killed; the last one is this.
    """
    app, output, whole = rendered("finance"), tmp_path / "output.txt", runs(name)
    number, cfg = runs.number(), whole.cfg
    killed = Run(Path(cfg["results-dir"]) / str(number))
    for point, saved in zip(KillAt.POINTS, (1, 1, 2), strict=True):
        process = fork(app, cfg, NODES, number, home, output, KillAt(point, 2))
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, output.read_text()
        states = sorted(path.name for path in (killed.folder / "state").glob("round_*"))
        assert states[-1] == f"round_{saved}"
        cfg = {**whole.cfg, "resume-from": str(killed.folder)}
    run(app, cfg, 1000 + number, NODES)
    assert changed(whole.run, killed, range(1, ROUNDS + 1)) == []
    for key in ("round", "partitions", "drift", "residual", "train-loss"):
        assert [line[key] for line in whole.run.rounds] == [line[key] for line in killed.rounds]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_it_takes_every_transport_and_goes_on_to_the_same_bits(name, transport, runs):
    app, cfg = rendered("finance"), of(runs.cfg, name, **{"train.transport": transport})
    whole = run(app, cfg, runs.number(), NODES)
    resumed = lost_and_resumed(app, cfg, runs.number(), NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_layer_by_layer_it_gives_the_same_or_says_why_not(name, runs):
    """The mean comes rounded to float32, so methods that go on from it differ in its last bit."""
    app, layerwise = rendered("finance"), of(runs.cfg, name, **{"aggregation.mode": "layerwise"})
    number = runs.number()
    if not load(name).Server.layerwise:
        with pytest.raises(SettingsError, match=f"'layerwise', which gives {name}"):
            run(app, layerwise, number, NODES)
        assert not Run(Path(runs.cfg["results-dir"]) / str(number)).checkpoints
        return
    whole, in_buckets = runs(name).run, run(app, layerwise, number, NODES)
    for name, tensor in whole.adapter(ROUNDS).items():
        torch.testing.assert_close(in_buckets.adapter(ROUNDS)[name], tensor, rtol=1e-3, atol=1e-5)


# What a client is sent and sends in rounds 1, 2, 3: the factors A and B, P for both.
TRAVELS = {
    "fedavg": ("P P P", "P P P"),
    "fedprox": ("P P P", "P P P"),
    "scaffold": ("PP PP PP", "PP PP PP"),
    "ffa-lora": ("B B B", "B B B"),
    "rolora": ("P P P", "B A B"),
    "fedsvd": ("P P P", "B B B"),
    "flexlora": ("P P P", "P P P"),
    "fedrot": ("P P P", "P P P"),
    "lora-fair-ridge": ("P P P", "P P P"),
}


@pytest.mark.parametrize("name", TRAVELS)
def test_nothing_travels_but_what_the_method_says(name, runs):
    whole, sizes = runs(name), dict.fromkeys("AB", 0)
    for tensor_name, tensor in whole.run.adapter(1).items():
        sizes["A" if "lora_A" in tensor_name else "B"] += 128 + 4 * tensor.numel()  # npy's header
    sizes["P"] = sizes["A"] + sizes["B"]
    of_client = [sum(sizes[part] for part in way.replace(" ", "")) for way in TRAVELS[name]]
    assert whole.traffic.tensors == {"sent": 3 * of_client[0], "received": 3 * of_client[1]}


@pytest.mark.parametrize("name", ["ffa-lora", "rolora", "fedsvd", *MERGING])
def test_what_the_server_makes_is_the_mean_of_the_clients_products(name, runs):
    """To what float32 holds of it; FedAvg's is not."""
    assert all(0 <= line["residual"] < 2e-6 for line in runs(name).run.rounds)
    assert runs("fedavg").run.rounds[0]["residual"] > 1e-3


def factors(tensors: dict[str, Any]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for a in (name for name in tensors if "lora_A" in name):
        b = a.replace("lora_A", "lora_B")
        yield a, np.asarray(tensors[b], np.float64), np.asarray(tensors[a], np.float64)


@pytest.mark.parametrize("name", MERGING)
def test_the_export_is_all_that_clients_learned_up_to_what_it_says(name, runs):
    """Added up from the clients' replies: that clients went on from it, test_merging.py shows."""
    whole = runs(name)
    learned, saved = dict[str, Any](), whole.run.adapter(ROUNDS)
    for server_round in range(1, ROUNDS + 1):
        replies = whole.replies[server_round]
        total = sum(examples for examples, _ in replies)
        mean = {n: sum(e / total * one[n] for e, one in replies) for n in saved}
        for examples, one in replies:
            for key, b, a in factors(one):
                learned[key] = learned.get(key, 0) + examples / total * b @ a
        if name == "fedex-lora" and server_round < ROUNDS:
            for key, b, a in factors(mean):  # the next round begins with it: it comes again
                learned[key] = learned[key] - b @ a
    off = sum(np.linalg.norm(learned[key] - b @ a) ** 2 for key, b, a in factors(saved))
    relative = np.sqrt(off / sum(np.linalg.norm(product) ** 2 for product in learned.values()))
    said = whole.run.rounds[-1]["export-error"]
    assert said == pytest.approx(relative, rel=1e-4) and 0.001 < said < 1
    manifest = whole.run.manifest(ROUNDS)
    assert manifest["export-error"] == said
    assert manifest["export-errors"] == whole.run.rounds[-1]["export-errors"]


@pytest.mark.parametrize("name", MERGING)
def test_quantized_weights_are_refused_before_anything_is_loaded(name, runs):
    number = runs.number()
    with pytest.raises(SettingsError, match=f"'{name}', which merges every round's update"):
        run(rendered("finance"), of(runs.cfg, name, **{"model.quantization": 4}), number, NODES)


def test_flexlora_with_ranks_of_their_own_is_counted_and_goes_on(runs, go_on):
    whole = runs("flexlora", "ranks=1/2/4")
    is_counted(whole)
    assert changed(whole.run, go_on(whole, ROUNDS - 1), range(1, ROUNDS + 1)) == []
    it_is_what_peft_loads(whole.run, whole.cfg["model.name"], ROUNDS)
    full = runs("flexlora").run
    assert whole.run.rounds[-1]["bytes-up"] < full.rounds[-1]["bytes-up"]


def test_wrong_options_are_said_before_anything_is_loaded(runs):
    wrong = {"strategy.name": "fedprox", "strategy.options": "mu=-1, nu=2", "seed": -1}
    with pytest.raises(SettingsError) as refusal:
        run(rendered("finance"), {**runs.cfg, **wrong}, runs.number(), NODES)
    assert [p.split(" ")[0] for p in refusal.value.problems] == [
        "seed", "strategy.options", "strategy.options",
    ]  # fmt: skip


def test_the_librarys_fedavg_is_the_apps_to_the_bit(runs, monkeypatch):
    from flowertune.methods.fedavg import Server

    of_app = runs("fedavg")
    monkeypatch.setattr(sys.modules["flowertune_finance.strategy"], "LoraFedAvg", Server)
    # The rendered app is loaded already, so this is the module that the next run has.
    again = run(rendered("finance"), of_app.cfg, runs.number(), NODES)
    assert changed(of_app.run, again, [1, 2, 3]) == []
