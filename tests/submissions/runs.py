"""Honest runs under the small rules, each of another kind, with their scores: all are valid."""

import atexit
import contextlib
import hashlib
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from evaluation import store
from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from tests.apps import default_settings
from tests.local_grid import LocalGrid, Tamper, run_app
from tests.methods import apply, diffs, edit
from tests.submissions.bundles import RUN_ID, Scored, app_of, score, small_settings
from tests.submissions.on_record import NODES, on_record
from tests.tiny import save_tiny_llama

EVERYBODY = {"strategy.fraction-train": 1.0}


class DeployedGrid(LocalGrid):
    """As in the Deployment Engine: SuperNodes have the numbers that their keys were given."""

    @staticmethod
    def node_of(partition: int) -> int:
        return int.from_bytes(hashlib.sha256(f"key {partition}".encode()).digest()[:8])


@dataclass(frozen=True)
class Honest:
    """A way to run an app that keeps the rules.

    Attributes:
        settings: what differs from `small_settings`, given with --run-config.
        change: what the participant does to the app.
        tamper: what becomes of replies (see `LocalGrid`).
        stops_in: the round in which the run fails and is resumed.
        built_in: whether strategy.py is the template's, so that clients can be drawn again.
        grid: what the messages go through.
    division: of the submission.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Path], None] = lambda app: None
    tamper: Tamper | None = None
    stops_in: int | None = None
    built_in: bool = True
    grid: type[LocalGrid] = LocalGrid
    division: str = "closed"


def _tutorial(heading: str) -> Callable[[Path], None]:
    return lambda app: apply(app, diffs()[heading])


def _lora(arguments: str) -> Callable[[Path], None]:
    old = '        task_type="CAUSAL_LM",\n'
    return lambda app: edit(app, "models.py", old, f"{old}        {arguments},\n")


def _lost(*those: tuple[int, int]) -> Tamper:
    """Lose the replies of (round, partition)."""
    return lambda n, partition, reply: None if (n, partition) in those else reply


def _lost_once(server_round: int) -> Tamper:
    """Lose all replies of a round the first time: it is repeated."""
    lost: set[int] = set()

    def tamper(n: int, partition: int, reply: Any) -> Any:
        if n != server_round or partition in lost:
            return reply
        lost.add(partition)
        return None

    return tamper


HONEST = {
    "another rank": Honest({"model.lora.peft-lora-r": 4, "model.lora.peft-lora-alpha": 16}),
    "other modules": Honest({"model.lora.target-modules": "q_proj,k_proj,v_proj,o_proj"}),
    "DoRA": Honest(change=_tutorial("DoRA")),
    "rsLoRA": Honest(change=_lora("use_rslora=True")),
    "float16 on the wire": Honest({"train.transport": "float16"}),
    "bfloat16 on the wire": Honest({"train.transport": "bfloat16"}),
    "int8 on the wire": Honest({"train.transport": "int8"}),
    "layer by layer": Honest({"aggregation.mode": "layerwise"}),
    "fewer rounds": Honest({"num-server-rounds": 2, "train.save-every-round": 1}),
    "all clients, another seed": Honest({**EVERYBODY, "seed": 7}),
    "more steps, a higher rate": Honest(
        {"train.training-arguments.max-steps": 2, "train.learning-rate-max": 1e-3}
    ),
    "few states": Honest({"train.keep-states": 3}),
    "another strategy": Honest(change=_tutorial("FedAvgM"), built_in=False),
    "another loss": Honest(change=_tutorial("FedProx")),
    "FFA-LoRA": Honest({"strategy.name": "ffa-lora"}),
    "RoLoRA": Honest({"strategy.name": "rolora"}),
    "SCAFFOLD": Honest({"strategy.name": "scaffold"}),
    "FedSVD": Honest({"strategy.name": "fedsvd"}),
    "FlexLoRA": Honest({"strategy.name": "flexlora", "strategy.options": "ranks=4/8/16/32"}),
    "FedAdam": Honest({"strategy.name": "fedadam", "train.transport": "float16"}),
    "FedProx, bfloat16": Honest({"strategy.name": "fedprox", "train.transport": "bfloat16"}),
    "FedRot": Honest({"strategy.name": "fedrot"}),
    "LoRA-FAIR": Honest({"strategy.name": "lora-fair-ridge"}),
    "FedMedian": Honest({"strategy.name": "fedmedian"}),
    "DP-FedAvg": Honest({"strategy.name": "dp-fedavg", "strategy.options": "epsilon=3, noise=2"}),
    "PiSSA, resumed": Honest(
        {
            "model.lora.init": "pissa",
            "model.lora.peft-lora-r": 4,
            "model.lora.rslora": True,
            "model.quantization": 0,
        },
        stops_in=2,
    ),
    "OLoRA, layer by layer": Honest(
        {
            "model.lora.init": "olora",
            "model.lora.peft-lora-r": 4,
            "aggregation.mode": "layerwise",
            "strategy.name": "scaffold",
        }
    ),
    "DoRA, ranks by pattern, a whole head, SGD": Honest(
        {
            "model.lora.init": "gaussian",
            "model.lora.rank-pattern": "v_proj=4",
            "model.lora.modules-to-save": "lm_head",
            "model.lora.dora": True,
            "train.optimizer": "sgd",
            "train.schedule": "linear",
        }
    ),
    "EVA": Honest({"model.lora.init": "eva", "model.lora.peft-lora-r": 4}),
    "resumed": Honest(stops_in=3),
    "resumed, int8": Honest({"train.transport": "int8"}, stops_in=2),
    "lost clients": Honest(EVERYBODY, tamper=_lost((1, 2), (3, 0))),
    "evaluated on held-out rows": Honest({"train.evaluate-every": 1, "train.held-out": 0.2}),
    "ended early": Honest(
        {"train.evaluate-every": 1, "train.early-stop": 1, "train.learning-rate-max": 10.0}
    ),
    "a repeated round": Honest(tamper=_lost_once(2)),
    "another model": Honest(division="open"),
    # tests/end_to_end/test_submission.py has a real one, whose records are the same.
    "deployed with keys": Honest(grid=DeployedGrid),
}


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="honest-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def honest(name: str) -> Scored:
    """The run of one kind and its score, made once in a process, with no `on_record`."""
    one, folder = HONEST[name], _folder() / name.replace(" ", "-").replace(",", "")
    with on_record() as rules, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        patch.setattr(store, "answers_folder", lambda: folder / "answers")
        for part in ("run", "node", "task"):
            patch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
        app = app_of(folder / "app", rules)
        one.change(app)
        cfg = {**default_settings("finance"), **small_settings(rules), **one.settings}
        if one.division == "open":
            cfg["model.name"] = str(_another_model(rules.model))
        clear_cache()  # a worker serves one app
        run, scores = app / "results" / str(RUN_ID), folder / "scores"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            _train(one, cfg, app, run)
            score(run, rules, scores)
    return Scored(rules, app, run, scores, printed.getvalue())


def _train(one: Honest, cfg: dict[str, Any], app: Path, run: Path) -> None:
    if one.stops_in is None:
        run_app(cfg, NODES, RUN_ID, one.tamper, app, one.grid)
        return
    with pytest.raises(UserError, match=f"of round {one.stops_in} failed"):
        run_app(cfg, NODES, RUN_ID, _nobody(one.stops_in), app)
    run_app({**cfg, "resume-from": str(run)}, NODES, RUN_ID + 1, app=app)


def _nobody(server_round: int) -> Tamper:
    return lambda n, partition, reply: None if n == server_round else reply


@cache
def _another_model(default: Path) -> Path:
    folder = save_tiny_llama(_folder() / "model", seed=5, width=128)
    shutil.copy(default / "generation_config.json", folder)
    return folder
