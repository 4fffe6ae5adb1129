"""A comparison as it is asked for, on the command line and in a TOML file, and what is wrong."""

import ast
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import SettingsError, UserError
from flowertune.base.files import read_text
from flowertune.base.text import one_line
from flowertune.compare.grid import (
    ARMS,
    BYTES,
    DEALT,
    DEALT_HOW,
    PLACES,
    ROUNDS,
    SEED,
    TOKENS,
    Grid,
    arm_cells,
    method_cells,
)
from flowertune.config.app import read_app
from flowertune.config.checks import STEPS, check_settings
from flowertune.config.read import default_settings, given_settings, unknown_key
from flowertune.methods.options import NAME, OPTIONS
from flowertune.methods.registry import NAMES, problems

SAMPLE, FULL, NO_SCORE = "sample", "full", "none"
SCORES = (SAMPLE, FULL, NO_SCORE)
KEEP = "train.keep-states"
KEPT = 3  # states of a run: enough to go on from, and the runs of a grid are many
# What is decided by something else, and by what.
DECIDED = {
    NAME: "the methods",
    OPTIONS: "the methods (fedprox:mu=0.1)",
    SEED: "--seeds",
    ROUNDS: "--equal",
    **dict.fromkeys(PLACES, "the command itself"),
}
DEALT_BY = "the partitioners (dirichlet:alpha=0.1)"


@dataclass(frozen=True)
class Asked:
    """All that a comparison is asked for with; ``None`` is what nobody said.

    Its fields are the keys of a grid's file, with hyphens, and options of the command.
    """

    methods: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    vary: Mapping[str, Sequence[Any]] | None = None
    partitioners: Sequence[str] | None = None
    run_config: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None
    supernodes: int | None = None
    arms: Sequence[str] | None = None
    equal: str | None = None
    budget: float | None = None
    hold_out: float | None = None
    score: str | None = None
    score_options: str | None = None

    def over(self, other: "Asked") -> "Asked":
        """Return what is asked for here, and elsewhere what the other one says."""
        return Asked(**{k: v if v is not None else vars(other)[k] for k, v in vars(self).items()})


DEFAULTS = Asked(
    methods=(), seeds=(1, 2, 3), vary={}, partitioners=(), run_config=(), settings={},
    arms=ARMS, equal=TOKENS, hold_out=0.1, score=SAMPLE, score_options="",
)  # fmt: skip
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {}


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list) and v != [] and all(type(each) is kind for each in v)


_KINDS |= {
    "methods": (_list_of(str), "a list of names"),
    "seeds": (_list_of(int), "a list of whole numbers"),
    "vary": (
        lambda v: isinstance(v, dict) and all(isinstance(o, list) and o for o in flat(v).values()),
        "a table of lists",
    ),
    "partitioners": (_list_of(str), "a list of names"),
    "run-config": (lambda v: isinstance(v, str), "a text as --run-config takes it"),
    "settings": (lambda v: isinstance(v, dict), "a table of settings"),
    "supernodes": (lambda v: type(v) is int, "a whole number"),
    "arms": (lambda v: v == [] or _list_of(str)(v), "a list of names"),
    "equal": (lambda v: isinstance(v, str), f"{TOKENS} or {BYTES}"),
    "budget": (lambda v: type(v) in (int, float), "a number of MiB"),
    "hold-out": (lambda v: type(v) in (int, float), "a number"),
    "score": (lambda v: isinstance(v, str), " or ".join(SCORES)),
    "score-options": (lambda v: isinstance(v, str), "a text"),
}


def read_grid_file(path: Path) -> Asked:
    """Return what a grid's file asks for.

    Raises
    ------
    UserError
        If it cannot be read, has a key that is none, or a value of another kind; names them all.
    """
    try:
        toml = tomllib.loads(read_text(path))
    except OSError as error:
        raise UserError(
            f"--grid is {str(path)!r}, which cannot be read: {error.strerror or one_line(error)}."
        ) from None
    except ValueError as error:  # of TOML and of UTF-8
        raise UserError(f"{path} is not valid TOML: {one_line(error)}.") from None
    found = []
    for key, value in toml.items():
        if key not in _KINDS:
            near = difflib.get_close_matches(key, _KINDS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            found.append(f"{path} has {key!r}{hint}; its keys are {', '.join(_KINDS)}.")
        elif not _KINDS[key][0](value):
            found.append(f"{key} in {path} is {one_line(repr(value), 80)}; use {_KINDS[key][1]}.")
    if found:
        raise SettingsError(found)
    given = {key.replace("-", "_"): value for key, value in toml.items()}
    if "run_config" in given:
        text = given["run_config"]
        beside = path.parent / text
        given["run_config"] = (str(beside) if text.endswith(".toml") else text,)
    for key in ("settings", "vary"):
        if key in given:
            given[key] = flat(given[key])
    return Asked(**given)


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return tables within tables as one, with dots in its keys."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        made |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return made


def read_method(word: str) -> tuple[str, str]:
    """Return name and options as a grid has those of a method: ``fedprox:mu=0.1``."""
    name, _, options = word.partition(":")
    return name.strip(), options.strip()


def read_vary(text: str) -> tuple[str, list[Any]]:
    """Return a setting and its values, given as ``key=value,value``; texts may have no quotes.

    Raises
    ------
    UserError
        If it is malformed.
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise UserError(
            f"--vary is {text!r}; write a setting and its values, as in "
            "strategy.fraction-train=0.5,1.0."
        )
    try:
        return key.strip(), tomllib.loads(f"v = [{values}]")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), [value.strip().strip("'\"") for value in values.split(",")]


def grid_of(app: Path, asked: Asked) -> Grid:
    """Return the grid that is asked for, checked: every run's settings are.

    Raises
    ------
    SettingsError
        With a sentence for everything that is wrong, before anything is loaded.
    UserError
        If there is no app in the folder.
    """
    asked = asked.over(DEFAULTS)
    defaults = default_settings(app)
    changed = {**given_settings(list(asked.run_config or ())), **(asked.settings or {})}
    vary = asked.vary or {}
    found = _wrong_words(asked)
    for where, keys in (("the settings of the grid", changed), ("--vary", vary)):
        found += [
            f"{where} name {unknown_key(key, defaults)}, which [tool.flwr.app.config] of "
            "pyproject.toml does not have."
            for key in keys
            if key not in defaults
        ]
    found += [
        f"{where} name {key!r}, which is decided by {by}."
        for where, keys in (("the settings of the grid", changed), ("--vary", vary))
        for key, by in DECIDED.items()
        if key in keys and (key != ROUNDS or keys is vary)
    ]
    if asked.partitioners:
        given = [key for key in (DEALT, DEALT_HOW) if key in vary]
        found += [f"--vary names {key!r}, which is decided by {DEALT_BY}." for key in given]
    methods = tuple(dict.fromkeys(map(read_method, asked.methods or ())))
    own = _texts_of(app / read_app(app).package)
    found += [
        f"{name!r} is no method of the library ({', '.join(NAMES)}), and no name in the app's code."
        for name, _ in methods
        if name not in NAMES and name not in own
    ]
    nodes = asked.supernodes
    if nodes is None:
        nodes = defaults.get("static.num-supernodes") or read_app(app).supernodes
    if found:
        raise SettingsError(found)
    grid = Grid(
        methods,
        tuple(dict.fromkeys(asked.seeds or ())), {**defaults, KEEP: KEPT, **changed}, nodes,
        {key: tuple(values) for key, values in vary.items()},
        tuple(dict.fromkeys(map(read_method, asked.partitioners or ()))),
        tuple(asked.arms or ()), str(asked.equal), asked.budget,
    )  # fmt: skip
    _check_runs(app, grid)
    return grid


def _wrong_words(asked: Asked) -> list[str]:
    found = []
    if not asked.methods:
        found.append(
            f"there is nothing to compare: name methods, such as fedavg fedprox:mu=0.1 "
            f"({', '.join(NAMES)}), or a grid's file with --grid."
        )
    for seed in asked.seeds or ():
        if seed < 0:
            found.append(f"--seeds has {seed}; use whole numbers of at least 0.")
    if wrong := [arm for arm in asked.arms or () if arm not in ARMS]:
        found.append(f"--arms has {', '.join(wrong)}; use some of {', '.join(ARMS)}, or none.")
    for option, given, allowed in (
        ("--equal", asked.equal, (TOKENS, BYTES)), ("--score", asked.score, SCORES),
    ):  # fmt: skip
        if given not in allowed:
            found.append(f"{option} is {given!r}; use {', '.join(allowed)}.")
    if asked.budget is not None and asked.equal != BYTES:
        found.append("--budget is the budget of --equal bytes; give both, or none.")
    if asked.budget is not None and asked.budget <= 0:
        found.append(f"--budget is {asked.budget}; use a number of MiB above 0.")
    if asked.hold_out is not None and not 0 <= asked.hold_out < 1:
        found.append(f"--hold-out is {asked.hold_out}; use a share from 0 to below 1.")
    if asked.supernodes is not None and asked.supernodes < 1:
        found.append(f"--supernodes is {asked.supernodes}; use a whole number of at least 1.")
    return found


def _check_runs(app: Path, grid: Grid) -> None:
    """Raise a SettingsError with what is wrong with the settings of any run."""
    found: list[str] = []
    for cell in [*method_cells(grid), *arm_cells(grid)]:
        try:
            cfg = check_settings(cell.settings, app.resolve(), problems)
        except SettingsError as error:
            found += error.problems
        else:
            if cfg.train.training_arguments.max_steps == 0:
                found.append(f"{STEPS} is 0, and a comparison trains; use at least 1.")
    if found:
        raise SettingsError(list(dict.fromkeys(found)))


def _texts_of(package: Path) -> set[str]:
    """Return every text that stands in an app's Python files."""
    texts: set[str] = set()
    for file in package.rglob("*.py"):
        try:
            tree = ast.parse(read_text(file))
        except (OSError, ValueError, SyntaxError):
            continue
        texts |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return texts
