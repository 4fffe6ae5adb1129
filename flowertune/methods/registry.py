"""The methods of the library by name; each is imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flowertune.base.errors import SettingsError, UserError
from flowertune.config.checks import whole_models
from flowertune.config.settings import WHERE, Settings
from flowertune.methods.options import NAME, OPTIONS, Option, read_options, text_of

FEDAVG = "fedavg"
NAMES = (
    FEDAVG, "fedavgm", "nesterov", "fedadam", "fedyogi", "fedadagrad", "fedprox", "fedmedian",
    "trimmed-mean", "scaffold", "ffa-lora", "rolora", "fedsvd", "flexlora", "fedrot",
    "lora-fair-ridge", "flora", "fedex-lora", "dp-fedavg",
)  # fmt: skip


def load(name: str) -> Any:
    """Return the module of a method: ``flowertune/methods/<name>.py``, with _ for -.

    It has a docstring (the paper, the equations), the class ``Server``, and ``Client`` where
    clients do something else than the app's loop; ``OPTIONS`` and ``check`` where it needs them.
    """
    return import_module(f"flowertune.methods.{name.replace('-', '_')}")


def options_in(module: Any) -> tuple[Option, ...]:
    """Return the table of a method's options."""
    return getattr(module, "OPTIONS", ())


def problems(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong with the method that settings name.

    A name that the library does not have may be that of a class in an app's strategy.py: then the
    app decides. Takes unchecked settings.
    """
    name, text = text_of(run_config, NAME), text_of(run_config, OPTIONS)
    if name not in NAMES or (name == FEDAVG and not text):
        return []
    module = load(name)
    _, found = read_options(text, options_in(module), name)
    if whole_models(run_config):
        found.append(
            f"{NAME} is {name!r}, and whole models are averaged in this run, by "
            f"{FEDAVG} only; set {NAME} to {FEDAVG!r}, or aggregation.weights to 'adapter' "
            f"({WHERE})."
        )
    if run_config.get("aggregation.mode") == "layerwise" and not module.Server.layerwise:
        found.append(
            f"aggregation.mode is 'layerwise', which gives {name} the mean of the replies and not "
            f"each of them; use aggregation.mode='all_at_once' with it ({WHERE})."
        )
    if hasattr(module, "check"):
        found += module.check(run_config)
    return found


def options_of(cfg: Settings) -> dict[str, Any]:
    """Return the options of the method that the settings name; {} for a method of the app's own.

    Raises
    ------
    SettingsError
        With a sentence for each option that is wrong.
    """
    name = cfg.strategy.name
    if name not in NAMES or (name == FEDAVG and not cfg.strategy.options):
        return {}
    values, found = read_options(cfg.strategy.options, options_in(load(name)), name)
    if found:
        raise SettingsError(found)
    return values


def method_server(cfg: Settings, nodes: dict[int, int], clients: int) -> Any:
    """Return the server's half of the method that ``strategy.name`` names.

    Parameters
    ----------
    nodes : dict[int, int]
        The node id of each partition.
    clients : int
        How many partitions train in a round.

    Raises
    ------
    UserError
        If the library has no method of that name, or an option is wrong.
    """
    name = cfg.strategy.name
    if name not in NAMES:
        raise UserError(
            f"{NAME} is {name!r}, which is neither a class that strategy_of of strategy.py names "
            f"nor one of the library's: {', '.join(NAMES)} ({WHERE})."
        )
    if found := problems(cfg):
        raise SettingsError(found)
    return load(name).Server.of(cfg, nodes, clients, options_of(cfg))


def client_class(name: str) -> type:
    """Return the class of a method's client half; one that changes nothing for other names."""
    # Late: it imports torch.
    from flowertune.methods.base import MethodClient

    return getattr(load(name), "Client", MethodClient) if name in NAMES else MethodClient
