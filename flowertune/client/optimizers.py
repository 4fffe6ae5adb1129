"""The optimizer of a client's steps and its learning rate within a round, by settings.

AdamW (Loshchilov and Hutter, 2019) as it comes is written out in the app; here are the others:
AdamW with 8-bit state (Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2022) or with
state in pages that leave the GPU where memory is short (Dettmers et al., QLoRA, 2023), both of
bitsandbytes; SGD, Adafactor (Shazeer and Stern, 2018) and Muon (Jordan et al., 2024) of torch; and
any of them with LoRA+ (Hayou et al., 2024), which trains B at another rate than A, by PEFT.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.config.optimizers import MUON, NAME, SGD, options_of
from flowertune.config.settings import ADAMW, COSINE, LINEAR, WHERE, Settings

_BITSANDBYTES = {
    "adamw-8bit": "AdamW8bit",
    "paged-adamw": "PagedAdamW",
    "paged-adamw-8bit": "PagedAdamW8bit",
}


def check_here(cfg: Settings) -> None:
    """Refuse an optimizer that this machine cannot run, before a model is loaded.

    Raises
    ------
    UserError
        If it is paged and there is no CUDA device, needs bitsandbytes and that cannot be imported,
        or is Muon and torch is older than that.
    """
    name = cfg.train.optimizer
    if name.startswith("paged") and not torch.cuda.is_available():
        raise UserError(
            f"{NAME} is {name!r}, which moves its state between a GPU and the main memory, and "
            f"there is no CUDA device here; use {name.removeprefix('paged-')!r} ({WHERE})."
        )
    if name == MUON and not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"{NAME} is {MUON!r}, which torch has from 2.9 on, and torch {torch.__version__} is "
            f"installed here; install a later one, or use another optimizer ({WHERE})."
        )
    if name in _BITSANDBYTES:
        try:
            import bitsandbytes  # noqa: F401  (late: only these need it)
        except ImportError as error:
            raise UserError(
                f"{NAME} is {name!r}, which needs the package bitsandbytes, and that cannot be "
                f"imported here ({one_line(error)}); install it, or use {ADAMW!r} ({WHERE})."
            ) from error


def optimizer_of(
    cfg: Settings, model: Any, parameters: Sequence[torch.nn.Parameter], rate: float
) -> Optimizer | None:
    """Return the optimizer that the settings name; None for AdamW as it comes: the app has it.

    Parameters
    ----------
    model : PeftModel
        LoRA+ reads names from it.
    parameters : Sequence[torch.nn.Parameter]
        What is trained in this round.
    rate : float
        The round's learning rate; with LoRA+ that of A.

    Raises
    ------
    UserError
        If this machine cannot run it.
    """
    check_here(cfg)
    train, ratio = cfg.train, cfg.model.lora.plus_ratio
    if train.optimizer == ADAMW and not train.optimizer_options.strip() and ratio == 1:
        return None
    kind, given = _kind_of(train.optimizer, options_of(cfg))
    decay = train.training_arguments.weight_decay
    if ratio == 1:
        return kind(parameters, lr=rate, weight_decay=decay, **given)
    # Late: peft takes seconds to import, and other optimizers do without.
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model, kind, lr=rate, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay, **given
    )


def _kind_of(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return an optimizer's class, and its options as the class takes them."""
    if name == SGD:
        return torch.optim.SGD, options
    if name == "adafactor":
        given = {"beta2_decay": options["beta2-decay"], "d": options["clip"]}
        return torch.optim.Adafactor, {**given, "eps": (None, options["least"])}
    if name == MUON:
        given = {name: options[name] for name in ("momentum", "nesterov")}
        more = {"ns_steps": options["iterations"], "adjust_lr_fn": options["adjust"]}
        return torch.optim.Muon, {**given, **more}
    given = {"betas": (options["beta1"], options["beta2"]), "eps": options["eps"]}
    if name == ADAMW:
        return torch.optim.AdamW, given
    import bitsandbytes  # late, as above

    return getattr(bitsandbytes.optim, _BITSANDBYTES[name]), given


def schedule_of(cfg: Settings, optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return the learning rate within a round; its ``step()`` goes after the optimizer's.

    Parameters
    ----------
    steps : int
        How many the round has.
    """
    train = cfg.train
    return LambdaLR(optimizer, partial(share_of_rate, train.schedule, train.warmup_steps, steps))


def share_of_rate(kind: str, warmup: int, steps: int, number: int) -> float:
    """Return by what the round's rate is multiplied at step ``number`` (the first is 0).

    It rises by 1 / (warmup + 1) a step, so that no step has the rate 0, and falls in the others:
    with x = (number - warmup) / (steps - warmup), by 1 - x (linear) or (1 + cos(pi x)) / 2 (cosine;
    Loshchilov and Hutter, SGDR, 2017). "constant" stays.
    """
    if number < warmup:
        return (number + 1) / (warmup + 1)
    x = (number - warmup) / max(1, steps - warmup)
    return {LINEAR: 1 - x, COSINE: (1 + math.cos(math.pi * x)) / 2}.get(kind, 1.0)
