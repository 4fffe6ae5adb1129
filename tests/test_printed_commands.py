"""Every command that is printed is one that its program takes, and says what it needs.

Nothing is run here: the commands are given to the parsers that would read them, their settings to
the checks of a run, their checkpoints to the facts of the challenge. The tests of the end to end
type those that a newcomer meets.
"""

import importlib.util
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
import typer

import challenges
from flowertune.config.checks import check_settings, client_problems
from flowertune.config.read import default_settings, read_settings
from tests.apps import ROOT
from tests.printed import Printed, in_apps, in_helps, on_pages, own_parsers

# What is somebody else's, and that no parser here knows; each is in a test, or on a page that says
# where it was typed.
OTHERS = {
    "cd", "cp", "curl", "docker", "export", "git", "hf", "jq", "lm_eval", "mkdir", "mkdocs", "mv",
    "openssl", "pip", "printf", "ray", "sed", "source", "ssh-keygen", "tensorboard", "uv", "uvx",
}  # fmt: skip


# Commands of the scorer's name that load no model.
NO_MODEL = {f"evaluation.{name}" for name in ("submit", "verify", "leaderboard", "reference")}


@pytest.mark.parametrize("source", [on_pages, in_apps, in_helps], ids=lambda f: f.__name__)
def test_every_printed_command_is_one_that_can_be_typed(source):
    wrong = [f"{printed}: {text}" for printed in source() if (text := problem(printed))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("source", [on_pages, in_apps, in_helps], ids=lambda f: f.__name__)
def test_every_printed_command_says_what_it_needs(source):
    wrong = [
        f"{printed}: needs ({', '.join(sorted(missing))})"
        for printed in source()
        if (missing := needs(printed) - printed.marks)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("flowertune conect", "conect"),
        ("flowertune plan --run-confg x", "--run-confg"),
        ("flowertune plan --run-config no-such.toml", "no-such.toml"),
        ("flwr run . --stream --run-config num-server-round=5", "num-server-round"),
        ("flwr run . --stream --run-config strategy.fraction-train=0", "fraction-train"),
        ("flwr run . local-deployment --run-config strategy.min-clients=3", "min-clients"),
        ("flwr profil 5", "profil"),
        ("python -m evaluation.law results/x/peft_200", "law"),
        ("python -m evaluation.finance results/x/peft_201", "peft_201"),
        ("python -m evaluation.finance results/x/peft_200 --sample", "peft_200"),
        ("python -m evaluation.finance results/x/peft_10 --sampel", "--sampel"),
        ("python -m challenges.hubs", "challenges.hubs"),
        ("python -m challenges.pin --wrote", "--wrote"),
        ("python -m evaluation.contamination law", "law"),
        ("python tset.py", "tset.py"),
        ("./scripts/tset", "tset"),
        ("copier cpy x y", "cpy"),
        ("wget x", "wget"),
    ],
)
def test_what_cannot_be_typed_is_found(words, said):
    from tests.apps import rendered

    printed = Printed("here", tuple(words.split()), frozenset(), rendered("finance"))
    assert said in (problem(printed) or "")


def needs(printed: Printed) -> set[str]:
    """What a command cannot do without: GPU, hub, account."""
    match printed.words:
        case ("flwr", "run", ".", *rest):
            given = _run_config(rest)
            if any(text.endswith(".toml") or "resume-from" in text for text in given):
                return set()
            cfg = read_settings(printed.app, given)
            return {"GPU", "hub"} if cfg.train.training_arguments.max_steps else _hub_of(cfg)
        case ("python", "-m", "evaluation.contamination", *rest):
            return set() if {"--sample", "--data-dir", "--help"} & {*rest} else {"hub"}
        case ("python", "-m", module, _, *rest) if module in NO_MODEL:
            return {"GPU", "hub"} if "--rescore" in rest else set()
        case ("python", "-m", "evaluation.replay", _, *rest) if "--list" in rest:
            return set()
        case ("python", "-m", "challenges.pin", *_):
            return {"hub"}
        case ("python", "-m", module, _, *_) if module.startswith("evaluation."):
            return set() if {"--sample", "CKPT", "--help"} & {*printed.words} else {"GPU", "hub"}
        case ("flowertune", "inspect", *rest) | ("flowertune", "plan", "--probe", *rest):
            return set() if "quickstart.toml" in rest else {"hub"}
        case ("flowertune", "compare", *rest):
            return set() if {"quickstart.toml", "--grid"} & {*rest} else {"GPU", "hub"}
        case ("hf", *_):
            return {"hub"}
        case ("flwr", "login", *_) | ("flwr", "app", "publish", *_):
            return {"account"}
        case _:
            return set()


def _hub_of(cfg: Any) -> set[str]:
    # The shapes of synthetic weights come with the library.
    here = cfg.model.weights == "synthetic" or cfg.model.name.startswith("/")
    return set() if here else {"hub"}


def problem(printed: Printed) -> str | None:
    """What keeps a command from being typed as it stands, or None."""
    program, *rest = printed.words
    try:
        if program in OTHERS:
            return None
        if program.startswith("./scripts/"):
            return None if (ROOT / program).is_file() else f"there is no {program}"
        checks = {
            "flowertune": _flowertune,
            "flwr": _flwr,
            "flwr-profile": lambda rest, app: _parse(_group().commands["profile"], rest),
            "flower-superlink": _server,
            "flower-supernode": _node,
            "python": _python,
            "copier": _copier,
        }
        if program not in checks:
            return f"no test knows {program}"
        checks[program](rest, printed.app)
    except click.ClickException as error:
        return error.format_message()
    except Exception as error:
        return str(error) or type(error).__name__
    return None


@cache
def _group() -> click.Group:
    from flowertune.cli.main import commands

    group = typer.main.get_command(commands())
    assert isinstance(group, click.Group)
    return group


@cache
def _flwr_group() -> click.Group:
    from flwr.cli.app import app

    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    return group


def _parse(command: click.Command, arguments: Sequence[str]) -> None:
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            raise ValueError(f"there is no command {arguments[0]}")
        return _parse(command.commands[arguments[0]], arguments[1:])
    if "--help" not in arguments and "--version" not in arguments:
        command.make_context(command.name, list(arguments))
    return None


def _flowertune(rest: list[str], app: Path) -> None:
    own, inner = rest, []
    if "--" in rest:
        own, inner = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    _parse(_group(), own)
    _settings(own, app)
    if inner:
        nested = problem(Printed("", tuple(inner), frozenset(), app))
        assert nested is None, nested


def _flwr(rest: list[str], app: Path) -> None:
    if rest[:1] == ["profile"]:
        return _parse(_group().commands["profile"], rest[1:])
    _parse(_flwr_group(), rest)
    if rest[:2] == ["run", "."]:
        cfg = _settings(rest, app)
        # The federations that are started by hand in these pages have two SuperNodes.
        if len(rest) > 2 and rest[2] in ("local-deployment", "by-hand"):
            assert not (problems := client_problems(cfg, 2)), problems[0]
    return None


def _settings(arguments: list[str], app: Path) -> Any:
    given = [text for text in _run_config(arguments) if not text.startswith("results-dir")]
    mine = [text for text in given if text != "mine.toml"]
    toml = [app / text for text in mine if text.endswith(".toml")]
    if toml:
        assert toml[0].is_file(), f"the app has no {toml[0].name}"
        mine = [str(toml[0])]
    return read_settings(app, mine) if mine else check_settings(default_settings(app), app)


def _run_config(arguments: Sequence[str]) -> list[str]:
    return [b for a, b in pairwise(arguments) if a == "--run-config"]


def _python(rest: list[str], app: Path) -> None:
    match rest:
        case ["-m", module, *arguments]:
            assert importlib.util.find_spec(module), f"there is no module {module}"
            if module.removeprefix("evaluation.").replace("_", "-") in challenges.names():
                _evaluation(module, arguments)
            if module == "evaluation.all":
                _several(arguments)
            if module in own_parsers() and "--help" not in arguments:
                _taken(own_parsers()[module], arguments)
        case ["test.py", *arguments]:
            _parse(_group().commands["chat"], arguments)
        case [file, *_]:
            assert (ROOT / file).is_file(), f"there is no {file}"


def _evaluation(module: str, arguments: list[str]) -> None:
    from evaluation import cli

    name = module.removeprefix("evaluation.").replace("_", "-")
    facts = challenges.load(name)
    if not arguments or "--help" in arguments:
        return
    given = _taken(cli.parser(name), arguments)
    found = re.fullmatch(r"peft_(\d+)", given.checkpoint.name if given.checkpoint else "")
    if found:
        saved = _saved(facts["quickstart"] if given.sample else facts)
        assert int(found[1]) in saved, f"{found[0]} is not saved; those that are: {sorted(saved)}"


def _several(arguments: list[str]) -> None:
    from evaluation import all as several

    if arguments and "--help" not in arguments:
        given = _taken(several.parser(), arguments)
        assert given.checkpoints or given.model
        several._wanted(given.challenges)


def _saved(facts: dict[str, Any]) -> set[int]:
    rounds, every = facts["num-server-rounds"], facts.get("train.save-every-round", 5)
    return {*range(every, rounds + 1, every), rounds}


def _copier(rest: list[str], app: Path) -> None:
    from copier._cli import CopierCopySubApp, CopierUpdateSubApp

    known = {"copy": CopierCopySubApp, "update": CopierUpdateSubApp}
    assert rest[0] in known, f"copier has no command {rest[0]}"
    switches = known[rest[0]]("copier")._switches_by_name
    for word in rest[1:]:
        assert not word.startswith("-") or word.lstrip("-") in switches, f"copier has no {word}"
    challenge = [word.removeprefix("challenge=") for word in rest if word.startswith("challenge=")]
    # The guide to a new challenge makes this one.
    assert {*challenge} <= {*challenges.names(), "law"}, f"there is no challenge {challenge}"


def _server(rest: list[str], app: Path) -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    _taken(_parse_args_run_superlink(), rest)


def _node(rest: list[str], app: Path) -> None:
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    _taken(_parse_args_run_supernode(), rest)


def _taken(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser.error = refuse
    return parser.parse_args(arguments)
