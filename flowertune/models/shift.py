"""The shift of the base model under an adapter that was taken out of its weights (PiSSA, OLoRA).

With the first adapter A0, B0 and LoRA's scale s, a model computes

    W x + s B A x - s B0 A0 x

so that it begins as the base model. W - s B0 A0 is never made: it would have to be rounded to the
type of W, and then what is trained would not be what is exported. A second adapter that does not
train subtracts the last term, in float32. The export is a plain LoRA adapter of twice the rank:

    s [B  -B0] [A; A0],    as PEFT converts such adapters
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]
FIRST, TRAINED = "first", "default"  # adapters of a model
_A, _B = ".lora_A.", ".lora_B."


def factors_of(adapter: Tensors) -> dict[str, torch.Tensor]:
    """Return the factors of an adapter: what shifts the base model where it is the first one."""
    return {name: tensor for name, tensor in adapter.items() if _A in name or _B in name}


def set_shift(model: Any, first: Tensors) -> None:
    """Shift the base model of a PEFT model by its first adapter; a model has one shift at a time.

    Parameters
    ----------
    model : PeftModel
        With the adapter that is trained.
    first : Mapping[str, torch.Tensor]
        Its factors as they were first, by their names in the adapter.
    """
    from peft.tuners.lora import LoraLayer  # late: peft takes seconds to import
    from peft.utils import set_peft_model_state_dict

    if FIRST not in model.peft_config:
        config = copy.deepcopy(model.peft_config[TRAINED])
        config.lora_dropout, config.modules_to_save = 0.0, None
        model.add_adapter(FIRST, config)
        model.base_model.set_adapter([TRAINED, FIRST])
        for name, parameter in model.named_parameters():
            if f".{FIRST}." in name and "lora_" in name:
                parameter.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.scaling[FIRST] = -module.scaling[TRAINED]
    set_peft_model_state_dict(model, dict(first), adapter_name=FIRST)


def plain(adapter: Tensors, first: Tensors) -> dict[str, torch.Tensor]:
    """Return an adapter on a shifted base model as one on the base model: twice the rank.

    [A; A0] and [B  -B0]; other tensors are as they are.
    """
    made = dict(adapter)
    for name, tensor in first.items():
        if _A in name:
            made[name] = torch.cat([adapter[name], tensor], dim=0)
        else:
            made[name] = torch.cat([adapter[name], -tensor], dim=1)
    return made
