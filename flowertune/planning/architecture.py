"""The shapes of a base model and its adapter, from its config alone: no weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from flowertune.config.settings import Settings
from flowertune.models.known import model_config
from flowertune.models.memory import Shapes, shapes_of


@dataclass(frozen=True)
class Architecture:
    """What a plan needs to know of a model.

    Attributes
    ----------
    shapes
        What the memory depends on.
    adapter
        The shapes of the adapter's tensors, by name.
    message_bytes
        What the run's ledger counts for one adapter, by ``train.transport``.
    """

    shapes: Shapes
    adapter: Mapping[str, tuple[int, ...]]
    message_bytes: Mapping[str, int]

    @property
    def parameters(self) -> int:
        """The base model's parameters."""
        return self.shapes.parameters

    @property
    def adapter_parameters(self) -> int:
        """Values in one adapter."""
        return sum(map(prod, self.adapter.values()))

    @property
    def adapted_modules(self) -> tuple[str, ...]:
        """The last names of the modules that have an adapter, sorted."""
        paths = {n.split(".lora_A")[0] for n in self.adapter if "lora_A" in n}
        return tuple(sorted({path.split(".")[-1] for path in paths}))


def architecture(cfg: Settings, peft_config: Any) -> Architecture:
    """Return the shapes of the configured model with the configured adapter on it.

    Raises
    ------
    UserError
        If the model's config cannot be had, or the adapter does not fit the model.
    """
    # Late: torch and transformers take seconds to import, and a plan that was made before needs
    # neither.
    from flowertune.config.settings import TRANSPORTS
    from flowertune.models.adapter import adapter_shapes
    from flowertune.models.config import skeleton
    from flowertune.models.loader import source_at
    from flowertune.planning.communication import message_bytes

    base = skeleton(source_at(cfg.model.name, cfg), model_config(cfg))
    tensors = adapter_shapes(cfg, peft_config, base)
    adapter = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Architecture(
        shapes=shapes_of(base, adapter),
        adapter=adapter,
        message_bytes={kind: message_bytes(adapter, kind) for kind in TRANSPORTS},
    )
