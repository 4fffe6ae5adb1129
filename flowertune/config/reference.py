"""Text generated from the table of settings: the tables in an app's pyproject.toml, and a page."""

import json
from typing import Any

from flowertune.config import optimizers
from flowertune.config.options import Option
from flowertune.config.partitioners import BY_ANSWER, TABLE
from flowertune.config.settings import IID, WHERE, Entry, table

# Defaults that are facts of a challenge, as Copier's template names them.
FACTS = {
    "num-server-rounds": "{{ facts['num-server-rounds'] }}",
    "model.name": '"{{ facts.model }}"',
    "strategy.fraction-train": "{{ facts['fraction-train'] }}",
    "aggregation.mode": "\"{{ facts['aggregation-mode'] }}\"",
    "static.challenge": '"{{ challenge }}"',
    "static.rules": '"{{ rules }}"',
    "static.rules-version": '"{{ rule_set.version }}"',
    "static.num-supernodes": "{{ locked_supernodes }}"
    "{{ '  # any number' if not locked_supernodes }}",
    "static.budget-mib": "{{ rule_set['budget-mib'] }}",
    "static.dataset.name": '"{{ facts.dataset.name }}"',
    "static.dataset.revision": '"{{ facts.dataset.revision }}"',
    "static.dataset.question": "{{ facts.dataset.question | to_json }}",
    "static.dataset.answer": "{{ facts.dataset.answer | to_json }}",
    "static.partitioner.name": '"{{ rule_set.partitioner }}"',
}
STATIC = "static."
CHANGEABLE = """\
# Everything in this table is yours to change, here or for one run with
# --run-config "train.learning-rate-max=1e-4 strategy.fraction-train=0.2".
[tool.flwr.app.config]
"""
LOCKED = """
# Locked. A run with other values trains all the same, but it is unofficial: its log and its
# checkpoints say so, and evaluation refuses them unless told otherwise.
[tool.flwr.app.config.static]
"""
PAGE = """\
# Settings

Every setting of an app, in the order of its `pyproject.toml`. This page is written by
`scripts/generate` from the table in `flowertune/config/settings.py`; a value is checked before
anything is loaded. Change one in `[tool.flwr.app.config]` of `pyproject.toml`, or for one run
(GPU, hub):

```shell
flwr run . --stream --run-config "train.learning-rate-max=1e-4 strategy.fraction-train=0.2"
```

In code a setting is an attribute: `train.learning-rate-max` is `cfg.train.learning_rate_max`. A
setting of your own is added to `pyproject.toml` first, and read as `cfg["its-key"]`.

A relative path (`./models/mine`, `./data`, `results/123`) starts at the app's folder, in every
command and in both engines; a run knows that folder from `flwr run` or `flowertune connect`. On
another machine, a SuperNode's say, there is no such folder: a file that was sent with the app
(`./samples/*.jsonl`) is found all the same, a folder is refused, and an absolute path or a hub id
works. Paths on a command line start where the command is typed.

| Setting | Default | Allowed | What it does |
| :-- | :-- | :-- | :-- |
"""
STATIC_PAGE = """
## Locked settings

Their values come from the challenge and its rules. A run with other values is unofficial.

| Setting | Allowed |
| :-- | :-- |
"""
PARTITIONERS = """
## Partitioners

What `static.partitioner.name` may be beside `iid`, and the options of each, which
`dataset.partitioner-options` gives: "alpha=0.1, by=output". All are classes of flwr-datasets. `by`
is the column of the answers unless it is said. A run with any of them is unofficial.

| Partitioner | Options |
| :-- | :-- |
"""
OPTIMIZERS = """
## Optimizers

What `train.optimizer` may be, and the options of each, which `train.optimizer-options` gives:
"momentum=0.9, nesterov=true". `weight-decay` of `train.training-arguments` goes for all of them.
[LoRA and optimizers](guides/lora-and-optimizers.md) says what each is for.

| Optimizer | Options |
| :-- | :-- |
"""


def pyproject_tables() -> str:
    """Return the two tables of settings as they stand in ``template/pyproject.toml.jinja``."""
    lines, section = [CHANGEABLE], ""
    changeable = [entry for entry in table() if not entry.key.startswith(STATIC)]
    for entry in changeable:
        first = entry.key.partition(".")[0] if "." in entry.key else ""
        if first != section:
            lines.append("\n")
            section = first
        lines.append(_line(entry, entry.key))
    lines.append(LOCKED)
    for entry in table():
        if entry.key.startswith(STATIC):
            lines.append(_line(entry, entry.key.removeprefix(STATIC)))
    return "".join(lines)


def reference_page() -> str:
    """Return docs/settings.md."""
    rows = [PAGE]
    for entry in table():
        if not entry.key.startswith(STATIC):
            default = "the challenge's" if entry.default is None else f"`{_toml(entry.default)}`"
            does = " ".join(part for part in (entry.why, entry.help) if part).replace("\n", " ")
            cells = (f"`{entry.key}`", default, entry.rule.allowed, does)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    rows.append(STATIC_PAGE)
    for entry in table():
        if entry.key.startswith(STATIC):
            rows.append(f"| `{entry.key}` | {entry.rule.allowed} |\n")
    rows.append(PARTITIONERS)
    rows += [
        f"| `{name}` | {'<br>'.join(map(_option, options)) or 'none'} |\n"
        for name, options in TABLE.items()
        if name != IID
    ]
    rows.append(OPTIMIZERS)
    rows += [
        f"| `{name}` | {'<br>'.join(map(_option, options))} |\n"
        for name, options in optimizers.TABLE.items()
    ]
    return "".join(rows) + f"\nA wrong value is named with what is allowed ({WHERE}).\n"


def _line(entry: Entry, key: str) -> str:
    value = FACTS[entry.key] if entry.default is None else _toml(entry.default)
    above = "".join(f"# {line}\n" for line in entry.why.splitlines())
    return above + f"{key} = {value}" + (f"  # {entry.help}" if entry.help else "") + "\n"


def _option(option: Option) -> str:
    default = "" if option.default in (None, BY_ANSWER) else f"={option.default}".lower()
    return f"`{option.name}{default}` {option.help}; {option.rule.allowed}"


def _toml(value: Any) -> str:
    if isinstance(value, float) and 0 < value < 0.001:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    # A number, true or false and a text are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)
