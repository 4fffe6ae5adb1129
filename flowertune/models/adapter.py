"""Adapters as tensors: those of a model, onto a model, and the one a run starts from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from flowertune.base.errors import UserError
from flowertune.base.seeds import derive_seed
from flowertune.base.text import one_line
from flowertune.config.lora import names_in
from flowertune.config.settings import MADE, SHIFTED, WHERE, Settings
from flowertune.models.config import check_positions, skeleton
from flowertune.models.first import check_layers
from flowertune.models.loader import settings_source, source_at, source_of
from flowertune.models.lora_choices import FIELDS, names_given
from flowertune.models.quantized import loaded
from flowertune.models.targets import Vain, unknown_name, unmatched, unused_pattern

# Initializations whose B is zero: they change nothing at first, and need no base weights.
SEEDED = (True, "gaussian")


# A model's adapter as tensors that share the parameters' memory: PEFT takes longer to find their
# names than a small model takes for a step, and a worker has one model for all its messages.
_KEPT: WeakKeyDictionary[Any, dict[str, torch.Tensor]] = WeakKeyDictionary()


# The names of its parameters that were trained at first: a method may freeze some for a round.
_TRAINED: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapter of a PEFT model as tensors: what is trained, and nothing of the base.

    They share the parameters' memory. A part that is frozen in this round is in it.
    """
    parameters = dict(model.named_parameters())
    names = _TRAINED.get(model)
    if names is None:
        return _adapter_of(model, _trained(parameters))
    also = {name: p for name, p in parameters.items() if p.requires_grad or name in names}
    return _adapter_of(model, also)


def thaw(model: Any, parameters: Mapping[str, torch.Tensor] | None = None) -> None:
    """Have a model train what it trained when it was first seen: workers keep it for others."""
    parameters = parameters or dict(model.named_parameters())
    if model not in _TRAINED:
        _TRAINED[model] = frozenset(_trained(parameters))
    for name in _TRAINED[model]:
        if name in parameters and not parameters[name].requires_grad:
            parameters[name].requires_grad_(True)


def _trained(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}


def _adapter_of(model: Any, trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    places = _places(trained.values())
    own = _KEPT.get(model)
    if own is None or _places(own.values()) != places:
        # Late: peft takes seconds to import, and a client's other answers do without.
        from peft.utils import get_peft_model_state_dict

        # Else PEFT asks the hub whether the vocabulary was enlarged.
        own = get_peft_model_state_dict(model, save_embedding_layers=False)
        if _places(own.values()) == places:
            _KEPT[model] = own
        else:
            _KEPT.pop(model, None)
    return dict(own)


def _places(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors}


def load_adapter(
    model: Any,
    adapter: Mapping[str, torch.Tensor],
    parameters: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Put an adapter's values on a PEFT model.

    Parameters
    ----------
    parameters : Mapping[str, torch.Tensor], optional
        The model's parameters by name, where the caller has found them.

    Raises
    ------
    UserError
        If its names or shapes are not the model's, or the model trains what is no part of it.
    """
    trained = _trained(parameters or dict(model.named_parameters()))
    own = _adapter_of(model, trained)
    # Memory, not names: PEFT's names for what it saves are not those of the parameters.
    sent = _places(own.values())
    lost = [name for name, parameter in trained.items() if parameter.data_ptr() not in sent]
    if lost:
        raise UserError(
            f"load_model of models.py lets {lost[0]!r} be trained ({len(lost)} such parameters), "
            "which is not in the adapter and is not sent; name its module in "
            "modules_to_save of lora_config, or freeze it."
        )
    for name in sorted(own.keys() | adapter.keys()):
        given, wanted = adapter.get(name), own.get(name)
        if given is None or wanted is None or given.shape != wanted.shape:
            raise UserError(
                f"the adapter that came does not fit this client's model: {name!r} is "
                f"{_shape(given)} in it and {_shape(wanted)} in the model; lora_config and "
                "load_model of models.py must make the same adapter as the server sends."
            )
    if model in _KEPT:
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(adapter[name])
        return
    # Late, as above.
    from peft.utils import set_peft_model_state_dict

    set_peft_model_state_dict(model, dict(adapter))


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


def check_initialization(peft_config: Any) -> None:
    """Refuse adapters whose first values change the base weights of every client.

    Raises
    ------
    UserError
        If the configuration asks for PiSSA, OLoRA, EVA, CorDA, LoftQ or the like, or starts B at
        random.
    """
    how = getattr(peft_config, "init_lora_weights", True)
    if how not in SEEDED:
        raise UserError(
            f"init_lora_weights is {how!r} in lora_config of models.py, which makes the first "
            "adapter from the base weights or at random and so changes the base model of each "
            "client; use True or 'gaussian', or set model.lora.init, for which one client makes "
            "the first adapter."
        )


def experts_of(
    cfg: Settings, peft_config: Any, shapes: Mapping[str, torch.Tensor]
) -> dict[str, int]:
    """Return how many experts' factors a tensor of the adapter holds, where it holds several.

    PEFT adapts all experts of a layer that are one tensor with one pair of factors.

    Parameters
    ----------
    shapes : Mapping[str, torch.Tensor]
        As ``adapter_shapes`` gives them.
    """
    # Late: peft takes seconds to import.
    from peft import get_peft_model
    from peft.utils.other import get_pattern_key

    rank, patterns = getattr(peft_config, "r", None), getattr(peft_config, "rank_pattern", {})
    first = ".lora_A."
    ranks = {name: len(shape) for name, shape in shapes.items() if first in name}
    plain = lambda name: patterns.get(get_pattern_key([*patterns], name.split(first)[0]), rank)  # noqa: E731
    if all(found == plain(name) for name, found in ranks.items()):
        return {}  # no need to make the model once more
    with torch.device("meta"):
        model = get_peft_model(skeleton(settings_source(cfg)), peft_config)
    counts = {
        name: module.num_experts
        for name, module in model.named_modules()
        if getattr(module, "num_experts", 1) > 1 and hasattr(module, "lora_A")
    }
    return {
        name: counts[module]
        for name in shapes
        for factor in (first, ".lora_B.")
        if factor in name and (module := name.partition(factor)[0]) in counts
    }


def adapter_shapes(cfg: Settings, peft_config: Any, base: Any = None) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors on the meta device: names, shapes, no values.

    Parameters
    ----------
    base : PreTrainedModel, optional
        The base model's ``skeleton``, where there is one already; it gets the adapter.

    Raises
    ------
    UserError
        If the adapter cannot be trained on the model: it names modules that the model lacks,
        adapts an embedding or the output head, or adds tokens to the prompt; the model comes
        quantized otherwise than the settings say, or takes fewer tokens than the rows have.
    """
    # Late: peft takes seconds to import.
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    base = base or skeleton(settings_source(cfg))
    loaded(source_at(cfg.model.name, cfg), base.config, cfg.model.quantization)
    check_positions(cfg, base.config)
    if cfg.model.gradient_checkpointing is True and not base.supports_gradient_checkpointing:
        raise UserError(
            f"model.gradient-checkpointing is true, and {cfg.model.name} cannot compute its layers "
            f"again in the backward pass; set it to false ({WHERE})."
        )
    if peft_config.is_prompt_learning:
        raise UserError(
            f"lora_config of models.py gives an adapter of type {peft_config.peft_type.value}, "
            "which adds tokens to every prompt, and the scorer would read answers from the wrong "
            "places; use one that changes layers, such as LoRA or IA3."
        )
    names = _names(base)
    _check_names(cfg, unknown_name(peft_config, *names))
    modules = cfg.model.lora.target_modules
    if "*" in modules:
        _check_names(cfg, unmatched(names_in(modules), names[0]))
    try:
        with torch.device("meta"):
            model = get_peft_model(base, peft_config)
    except Exception as error:  # PEFT checks little: a wrong configuration may raise anything
        if "lora_dropout" in str(error):
            raise UserError(
                f"model.lora.peft-lora-dropout is {peft_config.lora_dropout}, and "
                f"model.lora.target-modules is {modules!r}, which adapts experts of "
                f"{cfg.model.name}, for which PEFT knows no dropout; set "
                f"model.lora.peft-lora-dropout to 0, or model.lora.target-modules to 'auto' "
                f"({WHERE})."
            ) from None
        raise UserError(
            f"model.lora.target-modules is {modules!r}, and PEFT refuses the adapter of models.py "
            f"for {cfg.model.name} ({one_line(error).split('. ')[0]}); name modules of this model "
            f"({WHERE})."
        ) from None
    inner = [name for name, module in model.get_base_model().named_modules() if _adapted(module)]
    _check_names(cfg, unused_pattern(peft_config, inner, names_given(cfg)))
    if router := _adapted_router(model.get_base_model()):
        raise UserError(
            f"model.lora.target-modules is {modules!r}, which adapts {router!r}, a router of "
            f"{cfg.model.name} that PEFT cannot adapt; set it to 'auto', or name other modules "
            f"({WHERE})."
        )
    if cfg.model.lora.init in MADE:
        check_layers(cfg.model.lora.init, model, cfg.model.name)
    shapes = get_peft_model_state_dict(model)
    for name in shapes:
        # PEFT saves the whole weight of an adapted embedding; biases are there if asked for.
        if name.endswith("base_layer.weight") or "lora_embedding" in name:
            raise UserError(
                f"model.lora.target-modules is {modules!r}, which adapts an embedding or the "
                f"output head ({name}); name layers between them ({WHERE})."
            )
    return shapes


def _names(base: Any) -> tuple[dict[str, bool], list[str]]:
    modules = {
        name: any(True for _ in module.parameters(recurse=False))
        for name, module in base.named_modules()
        if name
    }
    return modules, [name for name, _ in base.named_parameters()]


def _adapted(module: Any) -> bool:
    # Layers of PEFT's that change a module; the wrapper of a module to save is none of them.
    from peft.tuners.tuners_utils import BaseTunerLayer  # late, as above

    return isinstance(module, BaseTunerLayer)


def _adapted_router(model: Any) -> str | None:
    # Some routers are linear layers that return several tensors; PEFT takes them for plain ones.
    for name, module in model.named_modules():
        kind = type(module.get_base_layer()) if _adapted(module) else torch.nn.Linear
        own = issubclass(kind, torch.nn.Linear) and kind.forward is not torch.nn.Linear.forward
        if own and "router" in kind.__name__.lower():
            return name
    return None


def _check_names(cfg: Settings, vain: Vain | None) -> None:
    if vain is None:
        return
    given = names_given(cfg).get(vain.field, {})
    if vain.name in given.values():
        key = FIELDS[vain.field]
        raise UserError(
            f"{key} is {cfg[key]!r}, which names {vain.name!r}, {vain.why}; name modules of "
            f"{cfg.model.name} ({WHERE})."
        )
    raise UserError(
        f"lora_config of models.py gives an adapter that does not fit {cfg.model.name}: {vain}; "
        "change it in models.py."
    )


def initial_adapter(
    cfg: Settings, peft_config: Any, shapes: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the adapter that round 1 starts from, and the names that only base weights can give.

    With a ``model.lora.init`` that one client makes, these are its factors as well. Else
    A is drawn as LoRA draws it (Kaiming uniform, or with "gaussian" normal with a deviation of
    1 / r), from ``seed`` and the tensor's name; B is zero, so that the adapter changes nothing at
    first. All tensors are float32 on the CPU. What is neither (DoRA's magnitudes, modules to save,
    biases) starts from the base model's weights, which the server has not got.
    """
    adapter: dict[str, torch.Tensor] = {}
    missing = []
    how = cfg.model.lora.init
    for name, like in shapes.items():
        if "lora_A" in name and how not in MADE:
            adapter[name] = drawn_factor(cfg.seed, name, like.shape, peft_config.init_lora_weights)
            continue
        if "lora_B" not in name or how in SHIFTED:
            missing.append(name)
        adapter[name] = torch.zeros(like.shape)
    peft_config.base_model_name_or_path = source_of(cfg)
    return adapter, missing


def drawn_factor(seed: int, name: str, shape: Sequence[int], how: Any = True) -> torch.Tensor:
    """Return a factor A as it is drawn before round 1 from the seed and its name: float32.

    A client that needs it can draw it as well: it need not travel.
    """
    tensor = torch.zeros(tuple(shape))
    generator = torch.Generator().manual_seed(derive_seed("adapter", seed, name))
    if how == "gaussian":
        return tensor.normal_(std=1 / shape[0], generator=generator)
    return torch.nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
