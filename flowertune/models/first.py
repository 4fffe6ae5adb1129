"""The first adapter out of the base weights or from data, as one client makes it before round 1.

PiSSA (Meng et al., 2024): W = U S V^T; B0 = U_r S_r^1/2, A0 = S_r^1/2 V_r^T; "pissa-fast" by a
randomized SVD of 16 iterations. OLoRA (Buyukakyuz, 2024): W = Q R; B0 = Q_r, A0 = R_r. Both by
PEFT's own layers; PiSSA's divide S by LoRA's scale. EVA (Paischer et al., 2024): A0 has the
directions in which the inputs of a module vary most, on rows of this client, and B0 = 0; all ranks
stay as they are. Signs are fixed: the entry of largest absolute value in each column of B0 (with
EVA in each row of A0) is positive.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.config.lora import INIT
from flowertune.config.settings import WHERE

_PEFTS = {"pissa": "pissa", "pissa-fast": "pissa_niter_16", "olora": "olora"}
_MOST_PASSES = 512  # of batches through the model, after which EVA is given up
Batch = dict[str, torch.Tensor]


def check_layers(how: str, model: Any, name: str) -> None:
    """Refuse layers of which no first adapter can be made.

    Parameters
    ----------
    how : str
        ``model.lora.init``.
    model : PeftModel
        May be without weights.
    name : str
        Of the base model.

    Raises
    ------
    UserError
        If a layer is not linear, or its weight has a smaller side than the adapter's rank.
    """
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    for at, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        module: Any = layer
        base = module.get_base_layer()
        weight = getattr(base, "weight", None)
        linear = isinstance(module, Linear) if how in _PEFTS else hasattr(base, "in_features")
        # PEFT's OLoRA takes the weight as it lies, which for GPT-2's layers is transposed.
        if not linear or (how == "olora" and module.fan_in_fan_out):
            raise UserError(
                f"{INIT} is {how!r}, which {at} of {name} cannot have ({type(base).__name__}); use "
                "'default' or 'gaussian', or name other layers in model.lora.target-modules "
                f"({WHERE})."
            )
        rank = module.r[module.active_adapters[0]]
        if weight is not None and weight.ndim == 2 and rank > min(weight.shape):
            raise UserError(
                f"{INIT} is {how!r}, and {at} of {name} has the shape "
                f"{' x '.join(map(str, weight.shape))}, which has no rank of {rank}; lower "
                f"model.lora.peft-lora-r ({WHERE})."
            )


def make_first(how: str, model: Any) -> None:
    """Put the first adapter of PiSSA or OLoRA on a PEFT model; its base weights stay as they are.

    Parameters
    ----------
    how : str
        One of ``settings.SHIFTED``.
    """
    from peft.tuners.lora import LoraLayer  # late: peft takes seconds to import

    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        module: Any = layer
        weight = module.get_base_layer().weight
        kept = weight.data
        weight.data = kept.clone()  # PEFT takes the adapter out of it
        (adapter,) = module.active_adapters
        if how == "olora":
            module.olora_init(adapter)
        else:
            module.pissa_init(adapter, _PEFTS[how])
        weight.data = kept
        _fix_signs(module.lora_B[adapter].weight, module.lora_A[adapter].weight)


def make_first_from(batches: Sequence[Batch], model: Any) -> None:
    """Put EVA's first adapter on a PEFT model, from what its modules are given on some batches.

    Parameters
    ----------
    batches : Sequence[dict[str, torch.Tensor]]
        Of one client's rows, as the model takes them.

    Raises
    ------
    UserError
        If no batch has as many tokens as the adapter's rank, or the directions do not settle.
    """
    from peft import EvaConfig, get_eva_state_dict
    from peft.tuners.lora import LoraLayer

    (adapter,) = model.active_adapters
    config = copy.deepcopy(model.peft_config[adapter])
    # Without a mask for labels: an answer may be a single token. With rho = 1 no rank changes.
    config.eva_config = EvaConfig(rho=1.0, use_label_mask=False)
    usable = [batch for batch in batches if int(batch["attention_mask"].sum()) >= config.r]
    if not usable:
        raise UserError(
            f"{INIT} is 'eva', and no batch of this client's rows has {config.r} tokens, as many "
            "as the adapter's rank; lower model.lora.peft-lora-r, or raise "
            f"train.training-arguments.per-device-train-batch-size ({WHERE})."
        )
    passes = 0

    def forward(model: Any, batch: Batch) -> None:
        nonlocal passes
        passes += 1
        if passes > _MOST_PASSES:
            raise UserError(
                f"{INIT} is 'eva', and the directions of this client's {len(usable)} batches did "
                f"not settle in {_MOST_PASSES} passes; use 'default' or 'gaussian' ({WHERE})."
            )
        model(**batch, use_cache=False)

    found = get_eva_state_dict(model, usable, config, forward_fn=forward, show_progress_bar=False)
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            module: Any = layer
            first = module.lora_A[adapter].weight
            with torch.no_grad():
                first.copy_(found[name])
                module.lora_B[adapter].weight.zero_()
                _fix_signs(first.T, None)


@torch.no_grad()
def _fix_signs(columns: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Make the largest entry of each column positive, in place; turn the rows with them."""
    signs = columns.gather(0, columns.abs().argmax(dim=0, keepdim=True)).sign()
    signs[signs == 0] = 1
    columns.mul_(signs)
    if rows is not None:
        rows.mul_(signs.T)
