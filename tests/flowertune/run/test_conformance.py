"""Methods as participants write them: each works, is counted and goes on to the same bits after a
stop, or it ends with one sentence before anything wrong is trained or saved.

docs/strategy-contract.md has these as a table, and a test compares the two.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from flowertune.base.errors import UserError
from flowertune.models.loader import with_adapter
from tests.apps import ROOT, tiny_settings
from tests.local_grid import run_app
from tests.methods import (
    Run,
    Traffic,
    apply,
    changed,
    copy_of_app,
    counted,
    diffs,
    edit,
    it_is_what_peft_loads,
    lost_and_resumed,
    run,
    use_strategy,
)
from tests.tiny import save_tiny_llama

NODES, ROUNDS = 4, 3
LAYERWISE = {"aggregation.mode": "layerwise"}
Change = Callable[[Path], None]


def tutorial(heading: str) -> Change:
    return lambda app: apply(app, diffs()[heading])


def strategy(code: str) -> Change:
    return lambda app: use_strategy(app, code)


def lora(arguments: str) -> Change:
    """Give LoraConfig more arguments."""
    old = '        task_type="CAUSAL_LM",\n'
    return lambda app: edit(app, "models.py", old, f"{old}        {arguments},\n")


def in_turn(*changes: Change) -> Change:
    def all_of_them(app: Path) -> None:
        for change in changes:
            change(app)

    return all_of_them


MOMENTUM_STATE = """
    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(value) for name, value in self.velocity.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.velocity = {name: tensor.numpy() for name, tensor in state.items()}
"""

MEDIAN = '''
class Median(LoraFedAvg):
    """The median of each coordinate (Yin et al., 2018)."""

    def aggregate_train(self, server_round, replies):
        contents = [reply.content for reply in replies]
        adapters = [content.array_records["arrays"] for content in contents]
        arrays = ArrayRecord()
        for name in adapters[0]:
            stacked = np.stack([adapter[name].numpy() for adapter in adapters])
            arrays[name] = Array(np.median(stacked, axis=0))
        return arrays, self.train_metrics_aggr_fn(contents, "num-examples")
'''

PLAIN_MEAN = MEDIAN.replace("Median", "PlainMean").replace("np.median", "np.mean")

PER_CLIENT = '''
class Ranks(LoraFedAvg):
    """Clients of two ranks: they train the first components, and zeros stand for the others."""

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            full = next(a.shape[0] for name, a in arrays.items() if "lora_A" in name)
            rank = full if message.metadata.dst_node_id % 2 else full // 4
            own = ArrayRecord()
            for name, array in arrays.items():
                tensor = array.numpy()
                own[name] = Array(tensor[:rank] if "lora_A" in name else tensor[:, :rank].copy())
            message.content = RecordDict({**message.content, "arrays": own})
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        return messages

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for reply in replies:
            padded = ArrayRecord()
            for name, array in reply.content["arrays"].items():
                whole = np.zeros(self.shapes[name], np.float32)
                whole[: array.shape[0], : array.shape[1]] = array.numpy()
                padded[name] = Array(whole)
            reply.content["arrays"] = padded
        return super().aggregate_train(server_round, replies)
'''

SCAFFOLD = '''
class Scaffold(LoraFedAvg):
    """SCAFFOLD (Karimireddy et al., 2020): a control variate for the server and each client."""

    def __init__(self, nodes, clients, seed):
        super().__init__(nodes, clients, seed)
        self.control = {}

    def configure_train(self, server_round, arrays, config, grid):
        zeros = {name: np.zeros(array.shape, np.float32) for name, array in arrays.items()}
        self.control = self.control or zeros
        control = ArrayRecord({name: Array(value) for name, value in self.control.items()})
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content["control"] = control
        return messages

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for name, value in self.control.items():
            deltas = [reply.content["control"][name].numpy() for reply in replies]
            self.control[name] = value + np.float32(1 / len(self.nodes)) * np.sum(deltas, axis=0)
        return super().aggregate_train(server_round, replies)

    def state_dict(self):
        import torch

        return {name: torch.from_numpy(value) for name, value in self.control.items()}

    def load_state_dict(self, state):
        self.control = {name: value.numpy() for name, value in state.items()}
'''


def scaffold(app: Path) -> None:
    use_strategy(app, SCAFFOLD)
    edit(
        app, "client_app.py", "            optimizer.step()\n",
        """            for name, p in named.items():
                p.grad.add_(control[name] - own[name])
            optimizer.step()
""",
    )  # fmt: skip
    edit(
        app, "client_app.py", "        model.train()\n",
        """        model.train()
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        named = {name.replace(".default", ""): p for name, p in trained}
        control = task.received("control")
        own = task.load_state() or {name: torch.zeros_like(t) for name, t in control.items()}
""",
    )  # fmt: skip
    edit(
        app, "client_app.py",
        "    return task.reply(method.sent(model), loss=loss, arrays=method.beside())\n",
        """    moved = {name: task.adapter[name] - p.detach() for name, p in named.items()}
    steps_times_rate = len(steps) * task.learning_rate
    new = {n: own[n] - control[n] + moved[n] / steps_times_rate for n in named}
    task.save_state(new)
    delta = {n: new[n] - own[n] for n in named}
    return task.reply(model, loss=loss, arrays={"control": delta})
""",
    )  # fmt: skip


MADE = "    return get_peft_model(flowertune.load_base_model(cfg), lora_config(cfg))"


def per_client_ranks(app: Path) -> None:
    use_strategy(app, PER_CLIENT)
    edit(
        app, "client_app.py",
        """        model = task.cached(load_model)
        task.load_adapter(model)
        steps = task.steps(""",
        """        rank = next(t.shape[0] for n, t in task.adapter.items() if "lora_A" in n)
        model = task.cached(load_model, rank)
        task.load_adapter(model)
        steps = task.steps(""",
    )  # fmt: skip
    edit(app, "models.py", "def load_model(cfg: flowertune.Settings) -> Any:",
         "def load_model(cfg: flowertune.Settings, rank: int | None = None) -> Any:")  # fmt: skip
    edit(
        app, "models.py", MADE,
        """    config = lora_config(cfg)
    if rank is not None:
        config.lora_alpha, config.r = config.lora_alpha * rank / config.r, rank
    return get_peft_model(flowertune.load_base_model(cfg), config)""",
    )  # fmt: skip


def unfrozen_norm(app: Path) -> None:
    edit(
        app, "models.py", MADE,
        """    model = get_peft_model(flowertune.load_base_model(cfg), lora_config(cfg))
    model.get_base_model().model.norm.weight.requires_grad = True
    return model""",
    )  # fmt: skip


def aggregated(line: str) -> str:
    """A strategy that does something with the mean before it returns it."""
    return f"""
class Own(LoraFedAvg):
    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        {line}
        return arrays, metrics
"""


SEED = "flowertune.derive_seed(self.seed, server_round)"
NOISE = """tensors = {n: a.numpy() for n, a in arrays.items()}
        rng = np.random.default_rng(SEED)
        tensors = {n: t + rng.normal(0, 1e-3, t.shape).astype(np.float32)
                   for n, t in tensors.items()}
        arrays = ArrayRecord({n: Array(t) for n, t in tensors.items()})"""

ADAM = '''
from flwr.serverapp.strategy import FedAdam


class ServerAdam(LoraFedAvg):
    """Flower's FedAdam over a repeatable choice of clients."""

    def __init__(self, nodes, clients, seed):
        super().__init__(nodes, clients, seed)
        self.server = FedAdam()

    def configure_train(self, server_round, arrays, config, grid):
        self.server.current_arrays = {n: a.numpy() for n, a in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        for reply in replies:
            del reply.content["client"]
        arrays, metrics = self.server.aggregate_train(server_round, replies)
        float32 = {n: Array(a.numpy().astype(np.float32)) for n, a in arrays.items()}
        return ArrayRecord(float32), metrics
'''

CONFIGURED = """
class Own(LoraFedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        return RETURNED
"""


@dataclass(frozen=True)
class Works:
    """A method that trains something else than FedAvg, or for ``same`` the same."""

    change: Change
    settings: Mapping[str, Any] = field(default_factory=dict)
    same: bool = False
    times: float | None = 1.0  # as many bytes as FedAvg; None where adapters have other tensors


@dataclass(frozen=True)
class Refused:
    """A method that ends with a sentence, which holds these words; before the first step, or at
    the latest before round 1 is saved (``trains``)."""

    change: Change
    words: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = False


def unchanged(app: Path) -> None:
    """An app as it was rendered: settings choose."""


def chosen(
    lora: Mapping[str, Any], settings: Mapping[str, Any] | None = None, **expected: Any
) -> Works:
    """LoRA's choices by setting."""
    of_lora = {f"model.lora.{name}": value for name, value in lora.items()}
    return Works(unchanged, {**of_lora, **(settings or {})}, **expected)


SGD = {
    "train.optimizer": "sgd", "train.optimizer-options": "momentum=0.9, nesterov=true",
    "train.schedule": "cosine", "train.warmup-steps": 1,
}  # fmt: skip
WORKS = {
    "FedAvg": Works(unchanged, same=True),
    "FedAvg, layer by layer": Works(unchanged, LAYERWISE, same=True),
    "FedProx": Works(tutorial("FedProx")),
    "FedAvgM": Works(tutorial("FedAvgM")),
    "FedAvgM, layer by layer": Works(tutorial("FedAvgM"), LAYERWISE),
    "coordinate-wise median": Works(strategy(MEDIAN)),
    "SCAFFOLD": Works(scaffold, times=2.0),
    "SCAFFOLD, layer by layer": Works(scaffold, LAYERWISE, times=2.0),
    "per-client ranks": Works(per_client_ranks, times=None),
    "DoRA": Works(tutorial("DoRA"), times=None),
    "rsLoRA": chosen({"rslora": True}),
    "gaussian init": chosen({"init": "gaussian"}),
    "modules_to_save": chosen({"modules-to-save": "lm_head"}, times=None),
    'bias="all"': chosen({"bias": "all"}, {"model.name": "biased"}, times=None),
    'bias="lora_only"': chosen({"bias": "lora_only"}, {"model.name": "biased"}, times=None),
    "ranks by pattern, rsLoRA, DoRA, LoRA+": chosen(
        {
            "target-modules": "q_proj, layers.0.*.v_proj",
            "rank-pattern": "v_proj=4, q_*=8",
            "alpha-pattern": "layers.1.self_attn.q_proj=3",
            "rslora": True,
            "dora": True,
            "plus-ratio": 4.0,
        },
        times=None,
    ),
    "PiSSA": chosen({"init": "pissa", "peft-lora-r": 4}, times=None),
    "OLoRA, layer by layer": chosen(
        {"init": "olora", "peft-lora-r": 4, "rslora": True, "rank-pattern": "v_proj=6"},
        LAYERWISE,
        times=None,
    ),
    "EVA": chosen({"init": "eva", "peft-lora-r": 4}, times=None),
    "trainable tokens": Works(lora("trainable_token_indices=[5, 6]"), times=None),
    "SGD with momentum": Works(unchanged, SGD),
    "label smoothing": Works(tutorial("Your own loss")),
    "noise from a derived seed": Works(strategy(aggregated(NOISE.replace("SEED", SEED)))),
}


def momentum_with(state: str) -> Change:
    """FedAvgM of the tutorial with another state_dict."""
    whole = "{name: torch.from_numpy(value) for name, value in self.velocity.items()}"
    change = lambda app: edit(app, "strategy.py", whole, state)  # noqa: E731
    return in_turn(tutorial("FedAvgM"), change)


NO_STATE = in_turn(tutorial("FedAvgM"), lambda app: edit(app, "strategy.py", MOMENTUM_STATE, ""))
REFUSED = {
    "FedAvgM without state_dict": Refused(
        NO_STATE, ("keeps velocity between rounds", "state_dict")
    ),
    "FedAvgM with an empty state_dict": Refused(
        momentum_with("{}"), ("keeps velocity between rounds", "load_state_dict does not set")
    ),
    "FedAvgM with half of its state": Refused(
        momentum_with("{n: torch.from_numpy(v / 2) for n, v in self.velocity.items()}"),
        ("gives other values after load_state_dict", "named torch tensors"),
    ),
    "state_dict of NumPy arrays": Refused(
        momentum_with("self.velocity"), ("state_dict returned", "ndarray", "named torch tensors")
    ),
    "FedAdam of Flower": Refused(strategy(ADAM), ("keeps server between rounds", "state_dict")),
    "median, layer by layer": Refused(
        strategy(MEDIAN), ("'layerwise'", "weighted mean", "all_at_once"), LAYERWISE
    ),
    "unweighted mean, layer by layer": Refused(
        strategy(PLAIN_MEAN), ("'layerwise'", "weighted mean", "all_at_once"), LAYERWISE
    ),
    "per-client ranks, layer by layer": Refused(
        per_client_ranks, ("'layerwise'", "other shapes", "all_at_once"), LAYERWISE
    ),
    "FLoRA's stacking": Refused(
        strategy(
            aggregated(
                "arrays = ArrayRecord({n: Array(np.concatenate([a.numpy()] * 3, "
                "axis=int('lora_B' in n))) for n, a in arrays.items()})"
            )
        ),
        ("float32 (96, 32)", "float32 (32, 32)", "lora_config"),
    ),
    "a result in float64": Refused(
        strategy(
            aggregated(
                "arrays = ArrayRecord({n: Array(a.numpy().astype('float64')) "
                "for n, a in arrays.items()})"
            )
        ),
        ("float64", "float32", "lora_config"),
    ),
    "a result that is not finite": Refused(
        strategy(
            aggregated(
                "arrays = ArrayRecord({n: Array(a.numpy() * np.float32('nan')) "
                "for n, a in arrays.items()})"
            )
        ),
        ("not finite",),
        trains=True,
    ),
    "no train-loss": Refused(
        strategy(aggregated('del metrics["train-loss"]')), ("train-loss None", "finite number")
    ),
    "no metrics": Refused(strategy(aggregated("metrics = None")), ("NoneType", "MetricRecord")),
    "random draws of its own": Refused(
        strategy(aggregated(NOISE.replace("SEED", ""))),
        ("is not deterministic", "derive_seed"),
    ),
    "Flower's choice of clients": Refused(
        strategy(
            "class Own(LoraFedAvg):\n    def configure_train(self, server_round, *arguments):\n"
            "        return FedAvg.configure_train(self, server_round, *arguments)\n"
        ),
        ("is not deterministic", "sample_clients"),
    ),
    "no messages": Refused(
        strategy(CONFIGURED.replace("RETURNED", "[]")), ("no messages", "each client")
    ),
    "two messages to one client": Refused(
        strategy(CONFIGURED.replace("RETURNED", "messages + messages[:1]")),
        ("2 messages for node", "once"),
    ),
    "PiSSA in lora_config": Refused(
        lora('init_lora_weights="pissa"'),
        ("'pissa'", "'gaussian'", "lora_config", "model.lora.init"),
    ),
    "OLoRA in lora_config": Refused(
        lora('init_lora_weights="olora"'),
        ("'olora'", "'gaussian'", "lora_config", "model.lora.init"),
    ),
    "EVA in lora_config": Refused(
        lora('init_lora_weights="eva"'), ("'eva'", "'gaussian'", "lora_config", "model.lora.init")
    ),
    "random B": Refused(lora("init_lora_weights=False"), ("False", "'gaussian'", "lora_config")),
    "training outside the adapter": Refused(
        unfrozen_norm, ("model.norm.weight", "modules_to_save"), trains=True
    ),
    "a strategy that raises": Refused(
        strategy(aggregated("arrays = undefined")), ("undefined",), trains=True
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    plain, biased = (tmp_path_factory.mktemp(name) for name in ("plain", "biased"))
    save_tiny_llama(save_tiny_llama(plain) and biased)
    config = LlamaConfig.from_pretrained(plain, attention_bias=True)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(biased)
    return {"plain": str(plain), "biased": str(biased)}


def settings(folder: Path, models: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, Any]:
    cfg = {
        "strategy.fraction-train": 0.75,
        "num-server-rounds": ROUNDS,
        "train.save-every-round": 1,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
        "model.name": "plain",
        **changes,
    }
    folder.mkdir(exist_ok=True)
    # 42 rows in 4 partitions: their numbers of examples differ, so weights of a mean matter.
    return tiny_settings(folder, Path(), 42, {**cfg, "model.name": models[cfg["model.name"]]})


@pytest.fixture(scope="module")
def fedavg_and_traffic(tmp_path_factory, models) -> tuple[Run, Traffic]:
    """The run of an unchanged app."""
    folder = tmp_path_factory.mktemp("fedavg")
    with pytest.MonkeyPatch.context() as patch:
        for part in ("run", "node", "task"):
            patch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        with counted(patch) as traffic:
            cfg = settings(folder / "data", models, {})
            return run(copy_of_app(folder), cfg, 1, NODES), traffic


@pytest.fixture
def fedavg(fedavg_and_traffic) -> Run:
    return fedavg_and_traffic[0]


@pytest.fixture(autouse=True)
def flwr_home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))


@pytest.mark.parametrize("name", WORKS)
def test_it_trains_is_counted_to_the_byte_and_goes_on_to_the_same_bits(
    name, models, fedavg_and_traffic, tmp_path, monkeypatch
):
    method, (fedavg, of_fedavg) = WORKS[name], fedavg_and_traffic
    app = copy_of_app(tmp_path)
    method.change(app)
    cfg = settings(tmp_path / "data", models, method.settings)
    with counted(monkeypatch) as traffic:
        whole = run(app, cfg, 1, NODES)

    assert whole.checkpoints == [f"peft_{n}" for n in range(1, ROUNDS + 1)]
    assert whole.ledger == {"sent": traffic.sent, "received": traffic.received}
    assert bool(changed(whole, fedavg, [ROUNDS])) is not method.same
    if method.times:
        times = {way: method.times * nbytes for way, nbytes in of_fedavg.tensors.items()}
        if method.settings == LAYERWISE:  # buckets are bare bytes, without NumPy's headers
            replies = sum(line["clients"] for line in whole.rounds)
            times["received"] -= 128 * replies * len(whole.adapter(1))
        assert traffic.tensors == times

    resumed = lost_and_resumed(app, cfg, 2, NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []
    same = ("partitions", "train-loss")
    assert [[r[k] for k in same] for r in resumed.rounds] == [
        [r[k] for k in same] for r in whole.rounds
    ]
    it_is_what_peft_loads(whole, cfg["model.name"], ROUNDS)


@pytest.mark.parametrize("name", REFUSED)
def test_it_ends_with_one_sentence_before_anything_wrong_is_trained_or_saved(
    name, models, tmp_path, monkeypatch
):
    method = REFUSED[name]
    app = copy_of_app(tmp_path)
    method.change(app)
    cfg = settings(tmp_path / "data", models, method.settings)
    error = NameError if name == "a strategy that raises" else UserError
    with counted(monkeypatch) as traffic, pytest.raises(error) as refusal:
        run(app, cfg, 1, NODES)
    sentence = str(refusal.value)
    assert all(word in sentence for word in method.words), sentence
    assert "\n" not in sentence and ". " not in sentence.replace("models.py", "")
    ended = Run(Path(cfg["results-dir"]) / "1")
    assert ended.checkpoints == []
    assert not list(ended.folder.glob("state/round_1"))
    assert bool(traffic.tensors["sent"]) is method.trains


# What went wrong in silence before there was a contract.


def test_dora_starts_from_the_base_model_itself(models, tmp_path):
    app = copy_of_app(tmp_path)
    apply(app, diffs()["DoRA"])
    cfg = settings(tmp_path / "data", models, {"train.training-arguments.max-steps": 0,
                   "aggregation.weights": "adapter", "num-server-rounds": 1})  # fmt: skip
    start = run(app, cfg, 1, NODES)
    base = AutoModelForCausalLM.from_pretrained(models["plain"])
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        wanted = base(ids).logits
        given = with_adapter(base, str(start.folder / "peft_1")).eval()(ids).logits
    assert any("magnitude" in name for name in start.adapter(1))
    assert float((given - wanted).abs().max()) <= 1e-6


def test_the_first_adapter_does_not_come_from_a_model_that_was_trained_before(models, tmp_path):
    app = copy_of_app(tmp_path)
    apply(app, diffs()["DoRA"])
    cfg = settings(tmp_path / "data", models, {"num-server-rounds": 1})
    for run_id in (1, 2):
        run_app(cfg, NODES, run_id, app=app)  # in one worker
    first, second = (Run(Path(cfg["results-dir"]) / run_id) for run_id in "12")
    assert changed(first, second, [1]) == []


def test_each_client_is_sent_the_adapter_that_the_strategy_made_for_it(models, tmp_path):
    app = copy_of_app(tmp_path)
    per_client_ranks(app)
    seen = {}

    def look(server_round, partition, reply):
        arrays = reply.content.array_records["arrays"]
        seen[partition] = {n: tuple(a.shape) for n, a in arrays.items() if "lora_A" in n}
        return reply

    cfg = settings(
        tmp_path / "data", models, {"num-server-rounds": 1, "strategy.fraction-train": 1.0}
    )
    run(app, cfg, 1, NODES, look)
    ranks = {
        partition: {shape[0] for shape in shapes.values()} for partition, shapes in seen.items()
    }
    assert ranks == {0: {8}, 1: {32}, 2: {8}, 3: {32}}


def test_scaffolds_server_has_the_mean_of_what_its_clients_keep(models, tmp_path):
    """c = mean of c_i in every round (Karimireddy et al.); a client that forgot would break it."""
    app = copy_of_app(tmp_path)
    scaffold(app)
    ended = run(app, settings(tmp_path / "data", models, {}), 1, NODES)
    server = load_file(ended.folder / "state" / f"round_{ROUNDS}" / "strategy.safetensors")
    kept: dict[str, Path] = {}
    for path in sorted((tmp_path / "flwr-home").rglob("state_*.safetensors")):
        kept[path.parent.name] = path  # the newest file of each partition
    assert len(kept) == NODES
    total = {name: torch.zeros_like(tensor) for name, tensor in server.items()}
    for path in kept.values():
        total = {name: tensor + load_file(path)[name] for name, tensor in total.items()}
    for name, tensor in server.items():
        torch.testing.assert_close(tensor, total[name] / NODES, rtol=1e-4, atol=1e-4)


def test_the_table_of_the_contract_is_what_is_tested_here():
    page = (ROOT / "docs" / "strategy-contract.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (works|a sentence) \|", page, re.MULTILINE)
    told = {name.replace("`", ""): what for name, what in rows}
    assert told == {**dict.fromkeys(WORKS, "works"), **dict.fromkeys(REFUSED, "a sentence")}
