"""The optimizer of a client's steps: names, options, and what does not go together.

What makes them stands in client/optimizers.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.options import Option, number, read, share, text_of
from flowertune.config.settings import ADAMW, WHERE, Rule, Settings

NAME, OPTIONS = "train.optimizer", "train.optimizer-options"
SCHEDULE, WARMUP, STEPS = (
    "train.schedule", "train.warmup-steps", "train.training-arguments.max-steps",
)  # fmt: skip
MUON, SGD = "muon", "sgd"
_SWITCH = Rule(bool, "true or false")
_ADAM = (
    Option("beta1", 0.9, share(), "what stays of the mean gradient at each step"),
    Option("beta2", 0.999, share(), "what stays of the mean square at each step"),
    Option("eps", 1e-8, number(0, above=True), "is added to the root of the mean square"),
)
_MOMENTUM = number(0, 1)
_ADJUST = ("original", "match_rms_adamw")

TABLE: dict[str, tuple[Option, ...]] = {
    ADAMW: _ADAM,
    "adamw-8bit": _ADAM,
    "paged-adamw": _ADAM,
    "paged-adamw-8bit": _ADAM,
    SGD: (
        Option("momentum", 0.0, _MOMENTUM, "what stays of the last step"),
        Option("nesterov", False, _SWITCH, "true: the gradient is looked up one step ahead"),
    ),
    "adafactor": (
        Option("beta2-decay", -0.8, Rule(float, "a number of at most 0", lambda v: v <= 0),
               "the mean square forgets by 1 - step to this power"),
        Option("clip", 1.0, number(0, above=True), "the most that a step's root mean square is"),
        Option("least", 1e-3, number(0, above=True),
               "the rate is times the tensor's root mean square, and at least times this"),
    ),
    MUON: (
        Option("momentum", 0.95, _MOMENTUM, "what stays of the last gradients"),
        Option("nesterov", True, _SWITCH, "true: the gradient is looked up one step ahead"),
        Option("iterations", 5, Rule(int, "a whole number from 1 to 99", lambda v: 0 < v < 100),
               "of Newton and Schulz, which make a step's matrix orthogonal"),
        Option("adjust", "original", Rule(str, " or ".join(_ADJUST), lambda v: v in _ADJUST),
               "how the rate follows a matrix's shape; match_rms_adamw: steps as large as AdamW's"),
    ),
}  # fmt: skip
# Bytes of float32 moments for each value that is trained; 8 bits have scales in blocks of 256.
STATE_BYTES = {ADAMW: 8.0, "adamw-8bit": 2 + 8 / 256, "paged-adamw": 8.0,
               "paged-adamw-8bit": 2 + 8 / 256, SGD: 4.0, "adafactor": 0.0, MUON: 4.0}  # fmt: skip


def problems(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong with the optimizer; of unchecked settings.

    A name that there is not, is the business of the table of settings.
    """
    name = text_of(run_config, NAME)
    if name not in TABLE:
        return []
    values, found = read(text_of(run_config, OPTIONS), TABLE[name], OPTIONS, name)
    if not found and name == SGD and values["nesterov"] and not values["momentum"]:
        found.append(
            f"{OPTIONS} gives nesterov=true and no momentum; add momentum=0.9, or another number "
            f"above 0 ({WHERE})."
        )
    if name.startswith("paged") and run_config.get("model.device-map") == "cpu":
        found.append(
            f"{NAME} is {name!r}, which moves its state between a GPU and the main memory, and "
            f"model.device-map is 'cpu'; use {name.removeprefix('paged-')!r} ({WHERE})."
        )
    warmup, steps = run_config.get(WARMUP), run_config.get(STEPS)
    if isinstance(warmup, int) and isinstance(steps, int) and warmup >= steps > 0:
        found.append(
            f"{WARMUP} is {warmup}, and a round has {steps} steps ({STEPS}); warm up for fewer "
            f"({WHERE})."
        )
    return found


def options_of(cfg: Settings) -> dict[str, Any]:
    """Return the options of a run's optimizer; its settings are checked."""
    return read(cfg.train.optimizer_options, TABLE[cfg.train.optimizer], OPTIONS, NAME)[0]


def check_shapes(cfg: Settings, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse an optimizer that cannot train an adapter of these shapes.

    Raises
    ------
    UserError
        With Muon, which makes matrices orthogonal, if a tensor is no matrix.
    """
    others = [name for name, shape in shapes.items() if len(shape) != 2]
    if cfg.train.optimizer == MUON and others:
        raise UserError(
            f"{NAME} is {MUON!r}, which trains matrices only, and {len(others)} tensors of the "
            f"adapter are none ({others[0]} has the shape {tuple(shapes[others[0]])}); use another "
            f"optimizer, or LoRA of linear layers without magnitudes and biases ({WHERE})."
        )
