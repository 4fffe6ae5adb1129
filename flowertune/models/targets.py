"""Whether an adapter's configuration names only what the model has."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from flowertune.config.lora import key_of

_SHOWN = 8
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Vain:
    """What a field of a configuration names in vain; as text, a clause that begins with it."""

    field: str
    name: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field} names {self.name!r}, {self.why}"


def unknown_name(
    peft_config: Any, modules: Mapping[str, bool], parameters: Collection[str]
) -> Vain | None:
    """Return what a configuration names in vain; None if nothing.

    Of lists, every name counts: PEFT itself is content if one of them is found.

    Parameters
    ----------
    peft_config : PeftConfig
        Of the adapter.
    modules : Mapping[str, bool]
        The names of all modules of the base model, and whether each is a layer with weights.
    parameters : Collection[str]
        The names of all parameters of the base model.
    """
    layers = [name for name, has_weights in modules.items() if has_weights]
    for field in ("target_modules", "modules_to_save", "exclude_modules"):
        for name in _listed(getattr(peft_config, field, None)):
            if not any(_ends_with(full, name) for full in modules):
                return _unknown(field, name, layers)
    for name in _listed(getattr(peft_config, "target_parameters", None)):
        if not any(_ends_with(full, name) for full in parameters):
            return _unknown("target_parameters", name, list(parameters), "parameter")
    return None


def unmatched(names: Sequence[str], modules: Mapping[str, bool]) -> Vain | None:
    """Return which of some names with stars is the end of no module's; None if all are."""
    layers = [name for name, has_weights in modules.items() if has_weights]
    for name in names:
        if not any(_matches(key_of(name), full) for full in modules):
            return _unknown("target_modules", name, layers)
    return None


def unused_pattern(
    peft_config: Any, adapted: Sequence[str], given: Mapping[str, Mapping[str, str]]
) -> Vain | None:
    """Return which key or layer number of a configuration changes nothing; None if all do.

    Parameters
    ----------
    adapted : Sequence[str]
        The names of the modules that got an adapter.
    given : Mapping[str, Mapping[str, str]]
        How keys of a field were written.
    """
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(peft_config, field, None) or {}:
            if not any(_matches(key, name) for name in adapted):
                said = given.get(field, {}).get(key, key)
                return _unknown(field, said, adapted, "adapted module")
    wanted = getattr(peft_config, "layers_to_transform", None)
    wanted = [wanted] if isinstance(wanted, int) else list(wanted or [])
    there = sorted({int(n) for name in adapted for n in _NUMBER.findall(name)})
    for number in wanted:
        if number not in there:
            return Vain("layers_to_transform", number, "and no layer of that number is adapted")
    return None


def _matches(key: str, name: str) -> bool:
    # As PEFT reads these keys: a regular expression for the end of a name.
    try:
        return re.match(rf"(.*\.)?({key})$", name) is not None
    except re.error:
        return False


def _listed(names: Any) -> list[str]:
    # A text is a regular expression for whole names, or "all-linear": PEFT refuses one in vain.
    return [] if names is None or isinstance(names, str) else sorted(map(str, names))


def _ends_with(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _unknown(field: str, name: str, full_names: Sequence[str], kind: str = "module") -> Vain:
    known = sorted({full.rpartition(".")[2] for full in full_names} - {""})
    known = [last for last in known if not last.isdigit()]
    near = get_close_matches(name.rpartition(".")[2], known, n=3, cutoff=0.5) or known[:_SHOWN]
    return Vain(field, name, f"and there is no such {kind} (there is {', '.join(near)})")
