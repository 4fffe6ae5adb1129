"""Options in one text, "mu=0.01, ranks=8/16": Flower refuses settings that pyproject.toml lacks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowertune.config.settings import WHERE, Rule


@dataclass(frozen=True)
class Option:
    """One option: its name, its default (None: it has to be given), what it takes and does."""

    name: str
    default: Any
    rule: Rule
    help: str


def number(least: float, most: float = math.inf, *, above: bool = False) -> Rule:
    """Return the rule of a number from ``least`` (or above it) to ``most``."""
    start = f"a number above {least:g}" if above else f"a number of at least {least:g}"
    end = f", {most:g} at most" if most < math.inf else ""
    test = lambda v: (v > least if above else v >= least) and v <= most  # noqa: E731
    return Rule(float, start + end, test)


def share(*, zero: bool = True) -> Rule:
    """Return the rule of a number from 0 (or above it) to below 1."""
    start = "from 0" if zero else "above 0 and"
    return Rule(float, f"a number {start} to below 1" if zero else f"a number {start} below 1",
                lambda v: (v >= 0 if zero else v > 0) and v < 1)  # fmt: skip


def read(
    text: str, table: Sequence[Option], setting: str, whose: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the value of each option in the table, and a sentence for each thing that is wrong.

    Parameters
    ----------
    text : str
        "mu=0.01, ranks=8/16": names and values, with commas between.
    setting : str
        The key of the setting that holds the text.
    whose : str
        What the options belong to.
    """
    known = {option.name: option for option in table}
    values = {option.name: option.default for option in table}
    problems, given = [], set[str]()
    for part in text.split(",") if text.strip() else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals:
            has = ", ".join(known) if known else "none"
            problems.append(
                f"{setting} holds {part.strip()!r}; the options of {whose} are written "
                f"name=value, with commas between, and are: {has} ({WHERE})."
            )
            continue
        if name in given:
            problems.append(f"{setting} holds {name!r} twice; give it once ({WHERE}).")
        given.add(name)
        rule = known[name].rule
        made = _read(value, rule)
        if made is None or not rule.test(made):
            problems.append(
                f"{setting} gives {name} of {whose} the value {value!r}; use {rule.allowed} "
                f"({WHERE})."
            )
            continue
        values[name] = made
    problems += [
        f"{setting} gives no {option.name}, which {whose} needs; add {option.name}=VALUE, "
        f"{option.rule.allowed} ({WHERE})."
        for option in table
        if option.default is None and option.name not in given
    ]
    return values, problems


def _read(text: str, rule: Rule) -> Any:
    """Return a text as a value of the rule's kind, or None."""
    if rule.kind is str:
        return text
    if rule.kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = rule.kind(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text_of(run_config: Mapping[str, Any], key: str) -> str:
    """Return a setting that is a text; "" where it is none, which is another check's business."""
    value = run_config.get(key, "")
    return value if isinstance(value, str) else ""
