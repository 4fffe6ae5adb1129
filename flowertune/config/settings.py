"""The one table of settings: key, type, default, allowed values and help of each.

From it come the checks before a run, the comments in an app's pyproject.toml and the reference
page of the documentation. A setting is a field below; its key is the way to it, with hyphens:
``cfg.train.learning_rate_max`` is ``train.learning-rate-max``.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

LAYERWISE, ALL_AT_ONCE = "layerwise", "all_at_once"
TRANSPORTS = ("float32", "float16", "bfloat16", "int8")
ADAMW, CONSTANT, LINEAR, COSINE = "adamw", "constant", "linear", "cosine"
OPTIMIZERS = (
    ADAMW, "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "sgd", "adafactor", "muon",
)  # fmt: skip
# How the first adapter is made; those of SHIFTED take it out of the base weights.
SHIFTED = ("pissa", "pissa-fast", "olora")
EVA, DRAWN = "eva", "default"
MADE = (*SHIFTED, EVA)  # by one client, before round 1
INITS = (DRAWN, "gaussian", *SHIFTED, EVA)
IID = "iid"
PARTITIONERS = (
    IID, "dirichlet", "pathological", "shard", "natural-id", "continuous", "linear", "square",
    "exponential", "size",
)  # fmt: skip
ANEW = "none"  # the value of resume-from that starts a new run
WHERE = "in [tool.flwr.app.config] of pyproject.toml or with --run-config"


@dataclass(frozen=True)
class Rule:
    """What one setting takes: its type, a test of its value, and the same in words."""

    kind: type
    allowed: str
    test: Callable[[Any], bool] = lambda value: True
    one_line: bool = False  # a text that holds no control characters
    also: tuple[str, ...] = ()  # texts that are allowed beside values of the kind


def placeholders(template: str) -> set[str]:
    """Return the names in braces of a format string; an empty set where it is malformed."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError:
        return set()


def _at_least(least: int, more: str = "") -> Rule:
    return Rule(int, f"a whole number of at least {least}{more}", lambda v: v >= least)


def _number(least: float, more: str = "") -> Rule:
    return Rule(float, f"a number of at least {least}{more}", lambda v: v >= least)


def _above_zero(what: str = "a number", kind: type = float) -> Rule:
    return Rule(kind, f"{what} above 0", lambda v: v > 0)


def _up_to(most: int, kind: type = float) -> Rule:
    what = "a whole number" if kind is int else "a number"
    return Rule(kind, f"{what} above 0, {most:,} at most", lambda v: 0 < v <= most)


def _one_of(*values: str) -> Rule:
    return Rule(str, f"{', '.join(values[:-1])} or {values[-1]}", lambda v: v in values)


def _name(allowed: str) -> Rule:
    return Rule(str, allowed, lambda v: v.strip() == v and v != "", one_line=True)


def _text(allowed: str) -> Rule:
    return Rule(str, allowed, lambda v: v.strip() != "", one_line=True)


def _format(allowed: str) -> Rule:
    return Rule(str, allowed, lambda v: bool(placeholders(v)))


AUTO = "auto"
_PATTERN = Rule(str, "module names and numbers, such as q_proj=16, with commas between",
                one_line=True)  # fmt: skip
_SWITCH = Rule(bool, "true or false")
_AUTO_SWITCH = Rule(bool, "auto, true or false", also=(AUTO,))
_NOT_SETTINGS = ("flat", "app_dir")
_CHALLENGE = object()  # the default is a fact of the challenge


def setting(default: Any, rule: Rule, help: str = "", why: str = "") -> Any:
    """Return the field of one setting.

    Parameters
    ----------
    help : str
        The comment beside it in pyproject.toml.
    why : str
        The comment above it, where a few words do not do.
    """
    return field(metadata={"default": default, "rule": rule, "help": help, "why": why})


@dataclass(frozen=True, kw_only=True)
class Lora:
    """``model.lora``: the adapter."""

    peft_lora_r: int = setting(
        32, _up_to(10**6, int), "rank: a higher one learns more, and costs memory and communication"
    )
    peft_lora_alpha: float = setting(64, _up_to(10**9), "the update is scaled by alpha / r")
    peft_lora_dropout: float = setting(
        0.075,
        Rule(float, "a number from 0 to below 1", lambda v: 0 <= v < 1),
        "share of the adapter's inputs dropped in training",
    )
    target_modules: str = setting(
        "auto",
        _text("auto, all-linear, or module names with commas between"),
        'the projections of queries and values; "all-linear"; or names: "q_proj,layers.0.*.v_proj"',
    )
    rank_pattern: str = setting(
        "", _PATTERN, 'ranks of their own for modules: "q_proj=16, layers.0.*.v_proj=8"'
    )
    alpha_pattern: str = setting("", _PATTERN, 'alphas of their own: "q_proj=32"')
    dora: bool = setting(
        False, _SWITCH, "true: DoRA trains a magnitude of each output as well; slower steps"
    )
    rslora: bool = setting(
        False, _SWITCH, "true: rsLoRA, the update is scaled by alpha / sqrt(r), for high ranks"
    )
    init: str = setting(
        DRAWN,
        _one_of(*INITS),
        "the first adapter: drawn; of the base weights (pissa, pissa-fast, olora; not quantized); "
        "of rows of one client (eva)",
    )
    bias: str = setting(
        "none", _one_of("none", "lora_only", "all"), "biases that are trained: of which layers"
    )
    modules_to_save: str = setting(
        "",
        Rule(str, "module names with commas between", one_line=True),
        'modules that are trained and sent whole: "lm_head"; large',
    )
    plus_ratio: float = setting(
        1.0,
        Rule(float, "a number of at least 1 (1: no LoRA+)", lambda v: v >= 1),
        "LoRA+: how many times the learning rate of A is that of B",
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """``model``: the base model."""

    name: str = setting(
        _CHALLENGE,
        _name("a hub id, a path or a built-in name"),
        why="The base model: a Hugging Face id, a folder (starting with /, ./, ../ or ~), or\n"
        '"smollm2-135m-instruct", the built-in one that needs neither the hub nor a GPU.',
    )
    revision: str = setting(
        "main",
        _text("a branch, tag or commit of the hub"),
        "a commit of the model on the hub; pin one to train on the same weights again",
    )
    quantization: int = setting(
        4,
        Rule(int, "4, 8 or 0 (none)", lambda v: v in (0, 4, 8)),
        "4 or 8 bits, or 0 for none; fewer bits take less memory and lose some accuracy",
    )
    dtype: str = setting(
        "auto",
        _one_of("auto", "float32", "bfloat16", "float16"),
        "type of the computation; auto is bfloat16 on a GPU that has it, float16 on others",
    )
    device_map: str = setting(
        "auto",
        Rule(
            str,
            "auto, cpu, cuda or cuda:<number>",
            lambda v: v in ("auto", "cpu", "cuda") or re.fullmatch(r"cuda:\d+", v) is not None,
        ),
        "where it is loaded: auto is the GPU where there is one; or cpu, cuda:0, cuda:1 ...",
    )
    weights: str = setting(
        "checkpoint",
        _one_of("checkpoint", "synthetic"),
        "synthetic: made-up weights in the model's shapes, to try out whole-model aggregation",
    )
    gradient_checkpointing: bool | str = setting(
        AUTO,
        _AUTO_SWITCH,
        "true: less memory, slower steps; auto: where the GPU needs it",
    )
    compile: bool = setting(
        False, _SWITCH, "true: torch.compile; faster after minutes, other bits than without"
    )
    liger_kernels: bool = setting(
        False, _SWITCH, "true: Liger's kernels for NVIDIA and AMD GPUs (pip install liger-kernel)"
    )
    trust_remote_code: bool = setting(
        False, _SWITCH, "true runs code that comes with the model: only for authors you trust"
    )
    chat_template: bool = setting(
        False, _SWITCH, "true: use the tokenizer's chat template instead of prompt.template"
    )
    lora: Lora


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """``prompt``: how a row becomes text."""

    template: str = setting(
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n### Instruction:\n{question}\n### Response:",
        _format("a text that holds {question} or a column of the dataset in braces"),
        why="How a row becomes text. {question} is the locked question form; any column of the "
        "row may be used as well.\nThe answer follows, after one space unless the prompt ends in "
        "white space. Only the answer is trained on.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """``train.training-arguments``: one client's steps."""

    per_device_train_batch_size: int = setting(
        16, _at_least(1), "rows a step; halve it if the GPU runs out of memory ..."
    )
    gradient_accumulation_steps: int = setting(
        1, _at_least(1), "... and double this to keep the effective batch"
    )
    max_steps: int = setting(
        10,
        _at_least(0, " (0: no training)"),
        "optimizer steps of one client in one round; 0 trains nothing",
    )
    weight_decay: float = setting(
        0.0, _number(0), "pulls the adapter's weights towards zero at every step"
    )
    max_grad_norm: float = setting(
        1.0,
        _number(0, " (0: no clipping)"),
        "gradients are scaled down to this norm; 0 leaves them as they are",
    )


@dataclass(frozen=True, kw_only=True)
class Train:
    """``train``: training and what travels."""

    save_every_round: int = setting(
        5, _at_least(1), "a checkpoint every so many rounds, and always after the last"
    )
    keep_states: int = setting(
        0,
        Rule(int, "0 (all) or a whole number of at least 3", lambda v: v == 0 or v >= 3),
        "how many of the newest states stay; 0 keeps all: a verifier of a submission draws rounds, "
        "and trains them again from the states before",
    )
    learning_rate_max: float = setting(
        5e-5, _above_zero(), "the learning rate falls from here along a cosine over the rounds ..."
    )
    learning_rate_min: float = setting(
        1e-6, _number(0), "... to this in the last; within a round train.schedule says"
    )
    schedule: str = setting(
        CONSTANT,
        _one_of(CONSTANT, LINEAR, COSINE),
        "the learning rate within a round: constant, or falling to 0 after its last step",
    )
    warmup_steps: int = setting(
        0, _at_least(0), "steps of each round in which the learning rate rises to the round's"
    )
    optimizer: str = setting(
        ADAMW,
        _one_of(*OPTIMIZERS),
        "what makes a client's steps; each round begins with a new one",
    )
    optimizer_options: str = setting(
        "",
        Rule(str, "names and values, such as momentum=0.9, with commas between", one_line=True),
        'its options, as in "momentum=0.9"; docs/settings.md lists them',
    )
    seq_length: int = setting(
        512,
        _at_least(8),
        "tokens of prompt and answer together; longer rows are cut, memory grows with it",
    )
    transport: str = setting(
        "float32",
        _one_of(*TRANSPORTS),
        "adapters on the wire: float16 or bfloat16 take half the bytes, int8 about a quarter",
    )
    dynamic_data_seed: bool = setting(
        True, _SWITCH, "true: other rows in every round; false: the same rows in every round"
    )
    deterministic: bool = setting(
        True, _SWITCH, "false: a GPU may sum faster, and the same seed gives other last bits"
    )
    evaluate_every: int = setting(
        0,
        _at_least(0, " (0: never)"),
        "rounds between two looks at the loss on held-out rows; the best checkpoint is kept; 0: "
        "none, and no row is held out",
    )
    held_out: float = setting(
        0.1,
        Rule(float, "a number above 0 and below 1", lambda v: 0 < v < 1),
        "share of each client's rows that is held out of training for it",
    )
    evaluate_clients: int = setting(
        0,
        _at_least(0, " (0: as many as train in a round)"),
        "how many clients evaluate, the same each time; 0: as many as train in a round",
    )
    early_stop: int = setting(
        0,
        _at_least(0, " (0: never)"),
        "the run ends after so many evaluations in a row without a lower loss; 0: never",
    )
    training_arguments: TrainingArguments


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """``strategy``: the method, and who trains in a round."""

    name: str = setting(
        "fedavg",
        _name("the name of a method"),
        "the method: one of those that `flowertune methods` lists, or your own in strategy.py",
    )
    options: str = setting(
        "",
        Rule(str, "names and values, such as mu=0.01, with commas between", one_line=True),
        'its options, as in "mu=0.01"; `flowertune methods NAME` lists them',
    )
    fraction_train: float = setting(
        _CHALLENGE,
        Rule(float, "a number above 0 and at most 1", lambda v: 0 < v <= 1),
        "share of the SuperNodes that train in a round, rounded down; at least two",
    )
    min_clients: int = setting(
        0,
        _at_least(0, " (0: half of a round's clients, rounded up)"),
        "a round with fewer usable replies is repeated once, then the run fails; its state is "
        "kept; 0: half of the round's clients",
    )
    max_update_norm: float = setting(
        1000.0,
        _number(0, " (0: any norm)"),
        "a client's update does not count if its norm is more than so many times the median",
    )
    timeout: int = setting(
        43200,
        _above_zero("a whole number of seconds", int),
        "seconds a round waits for its clients",
    )


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """``aggregation``: how the server averages."""

    mode: str = setting(
        _CHALLENGE,
        _one_of(LAYERWISE, ALL_AT_ONCE),
        "layerwise: in buckets, memory stays bounded; all_at_once: whole replies, all held",
        why="How the server averages (docs/guides/aggregation.md of the template's repository).",
    )
    weights: str = setting(
        "auto",
        _one_of("auto", "adapter", "model"),
        "adapter, or the whole model; auto: the model where max-steps and quantization are 0",
    )
    bucket_mb: float = setting(
        256,
        _above_zero("a number of MiB"),
        "MiB in a message of layerwise; the server takes about 6 times that, and 300 MiB",
    )
    window: int = setting(
        2,
        _at_least(1),
        "replies in flight; more is faster where clients are slow, and takes memory",
    )
    exact: bool = setting(
        False,
        _SWITCH,
        "true: whole models are summed in float64, equal to the bit in any order; slower",
    )
    on_failure: str = setting(
        "wait",
        _one_of("wait", "restart", "abort"),
        "a client lost during a round: wait for it, restart the round without it, or abort",
    )
    sink: str = setting(
        "safetensors",
        _one_of("safetensors", "digest"),
        "digest: store no model, only its checksum, for trying out sizes",
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """``log``: where else numbers go."""

    wandb: bool = setting(
        False, _SWITCH, "true: numbers go to Weights & Biases, too (pip install wandb; wandb login)"
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """``profile``: time and memory."""

    enabled: bool = setting(
        False, _SWITCH, "true: time and memory of every phase; read them: flwr profile <run id>"
    )


@dataclass(frozen=True, kw_only=True)
class DatasetLimits:
    """``dataset``: what the rows must be like, and how else they are dealt out."""

    max_bad_rows: float = setting(
        0.05,
        Rule(float, "a number from 0 to 1", lambda v: 0 <= v <= 1),
        "share of rows without a text for question or answer; they are left out, and more is an "
        "error",
    )
    partitioner_options: str = setting(
        "",
        Rule(str, "names and values, such as alpha=0.1, with commas between", one_line=True),
        'options of another static.partitioner.name than iid, such as dirichlet: "alpha=0.1"',
    )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """``static.dataset``: the rows."""

    name: str = setting(_CHALLENGE, _name("a hub id, a folder or a .jsonl file"))
    revision: str = setting(_CHALLENGE, _text("a branch, tag or commit of the hub"))
    question: str = setting(_CHALLENGE, _format("a text that holds a column in braces"))
    answer: str = setting(_CHALLENGE, _format("a text that holds a column in braces"))


@dataclass(frozen=True, kw_only=True)
class Partitioner:
    """``static.partitioner``: how rows are dealt out."""

    name: str = setting(_CHALLENGE, _one_of(*PARTITIONERS))


@dataclass(frozen=True, kw_only=True)
class Static:
    """``static``: what is locked for a challenge."""

    challenge: str = setting(_CHALLENGE, _text("the name of the challenge"))
    rules: str = setting(_CHALLENGE, _text("the name of a rule set"))
    rules_version: str = setting(_CHALLENGE, _text("the version of the rule set"))
    num_supernodes: int = setting(_CHALLENGE, _at_least(0, " (0: any)"))
    budget_mib: int = setting(_CHALLENGE, _above_zero("a whole number of MiB", int))
    dataset: Dataset
    partitioner: Partitioner


@dataclass(frozen=True, kw_only=True)
class Settings(Mapping[str, Any]):
    """All settings of a run, checked. As a mapping it is flat, by key, as the run-config is.

    A participant's own settings are read by their key: ``cfg["proximal-mu"]``. ``app_dir`` is the
    folder of the app that runs: relative paths in the settings start there.
    """

    num_server_rounds: int = setting(
        _CHALLENGE, _at_least(1), "more rounds: longer training, more communication"
    )
    seed: int = setting(2024, _at_least(0), "same seed, same clients, batches and starting adapter")
    resume_from: str = setting(
        ANEW,
        _text("none, the folder of a run, or one of the states in it"),
        "none starts a new run; the folder of a run (results/<run id>) resumes that run",
    )
    results_dir: str = setting(
        "results",
        _text("a folder name, or an absolute path"),
        "checkpoints go to <results-dir>/<run id>/; relative to this folder, or an absolute path",
    )
    model: Model
    prompt: Prompt
    dataset: DatasetLimits
    train: Train
    strategy: Strategy
    aggregation: Aggregation
    log: Log
    profile: Profile
    static: Static
    flat: Mapping[str, Any] = field(repr=False)
    app_dir: Path = field(repr=False)

    def __getitem__(self, key: str) -> Any:
        return self.flat[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.flat)

    def __len__(self) -> int:
        return len(self.flat)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.flat.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self.flat) == dict(other)

    def replace(self, changes: Mapping[str, Any]) -> "Settings":
        """Return the settings with other values, by key; the caller answers for them."""
        return typed({**self.flat, **changes}, self.app_dir)


@dataclass(frozen=True)
class Entry:
    """One line of the table: a setting's key, its default (None: from the challenge), its rule."""

    key: str
    default: Any
    rule: Rule
    help: str
    why: str


def table(section: type = Settings, prefix: str = "") -> list[Entry]:
    """Return every setting, in the order of pyproject.toml."""
    entries: list[Entry] = []
    for item in fields(section):
        key = prefix + item.name.replace("_", "-")
        if "rule" in item.metadata:
            about = item.metadata
            default = None if about["default"] is _CHALLENGE else about["default"]
            entries.append(Entry(key, default, about["rule"], about["help"], about["why"]))
        elif item.name not in _NOT_SETTINGS:
            entries += table(item.type, key + ".")  # type: ignore[arg-type]
    return entries


def keys_of_models(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a loaded model may depend on: the settings of ``model``, and a participant's own.

    The latter are keys that the table does not have; their meaning is the participant's.
    """
    known = {entry.key for entry in table()}
    return ("model.", *sorted(key for key in cfg if key not in known))


def defaults() -> dict[str, Any]:
    """Return every setting's default by key; None where it is a fact of the challenge."""
    return {entry.key: entry.default for entry in table()}


def typed(flat: Mapping[str, Any], app_dir: Path) -> Settings:
    """Return checked values as settings."""
    return Settings(**_section(Settings, flat, ""), flat=dict(flat), app_dir=app_dir)


def _section(section: type, flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in fields(section):
        key = prefix + item.name.replace("_", "-")
        if "rule" in item.metadata:
            values[item.name] = flat[key]
        elif item.name not in _NOT_SETTINGS:
            kind: Any = item.type
            values[item.name] = kind(**_section(kind, flat, key + "."))
    return values
