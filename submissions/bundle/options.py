"""The options of ``python -m evaluation.submit``, and what is wrong with those that were given."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flowertune.base.errors import UserError
from flowertune.base.hub import is_hub_id
from flowertune.rules.values import shown
from submissions import outputs, push
from submissions.bundle import statement
from submissions.bundle.contents import Extras
from submissions.formats.benchmarks import OWNER, dataset
from submissions.signing import keys, model_signing
from submissions.signing.keys import PrivateKey

_Read = TypeVar("_Read")
_DESCRIPTION = """\
Make a bundle of a scored run: one zip with everything that an organizer checks, and check it here
as the organizer will. What is missing or wrong is listed, all of it, and then nothing is written.

The division is found out: closed on the challenge's default base model, else open. The states of
the rounds stay with you; once rounds were drawn, --states packs those that are asked for.
"""
_EPILOG = """\
examples:
  # after scoring, in the folder where the scorer was run: what would be in it
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org --dry-run
  # the bundle
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org
  # a key of your own, and a bundle that is signed by it
  python -m evaluation.submit --new-key ~/.flowertune/key
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org \\
    --sign ~/.flowertune/key
  # the states that a replay of rounds 1, 50 and the last asks for
  python -m evaluation.submit results/RUN --states 1,50,last -o states.zip

exit status: 0 it was done, 1 it was refused or could not be done (the run, its score or its app is
not what a bundle needs; nothing can be written or uploaded), 2 the command line is wrong.
"""


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.submit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add(
        "run", nargs="?", type=Path, metavar="RUN",
        help="folder of the run; its last checkpoint is submitted",
    )  # fmt: skip
    add(
        "-o", "--output", type=Path, metavar="FILE",
        help="the zip (default: <challenge>-<team>-<digest>.zip, where the command runs)",
    )  # fmt: skip
    add("--force", action="store_true", help="replace a file of that name")
    add("--dry-run", action="store_true", help="check everything and show the tree; write nothing")
    _add_said(options)
    _add_places(options)
    _add_more(options)
    return options


def _add_said(options: argparse.ArgumentParser) -> None:
    add = options.add_argument_group("what you say").add_argument
    add("--team", metavar="NAME", help="who submits, as it stands on the board")
    add("--contact", metavar="TEXT", help="how the organizer reaches you; it is not published")
    add("--note", metavar="TEXT", help="a line for the board")
    add(
        "--division", choices=(statement.CLOSED, statement.OPEN),
        help="default: closed on the challenge's default base model, else open",
    )  # fmt: skip
    add("--hardware", metavar="TEXT", help="what you trained on (default: as the run noted it)")
    add("--hours", type=float, metavar="H", help="of training (default: those of the run's rounds)")
    add("--method", type=Path, metavar="FILE", help="Markdown for the model card: what you changed")


def _add_places(options: argparse.ArgumentParser) -> None:
    add = options.add_argument_group("where things are").add_argument
    add(
        "--scores", type=Path, metavar="DIR",
        help="folder of the official score (default: scores/<digest>/<challenge>-official)",
    )  # fmt: skip
    add(
        "--app", type=Path, metavar="DIR",
        help="the app as it was for the run (default: the folder that the results lie in)",
    )  # fmt: skip
    add(
        "--link", metavar="URL",
        help="leave the weights out of the zip, and say where they are; their hash stays in it",
    )  # fmt: skip
    add("--states-link", metavar="URL", help="where the states of all rounds are, if they are")


def _add_more(options: argparse.ArgumentParser) -> None:
    add = options.add_argument_group("keys, hub and states").add_argument
    add("--sign", type=Path, metavar="KEY", help="sign it with this private key (Ed25519 or EC)")
    add(
        "--model-sign", type=Path, metavar="KEY",
        help="OpenSSF model signing with this EC key (pip install 'flowertune[sign]')",
    )  # fmt: skip
    add(
        "--new-key", type=Path, metavar="FILE",
        help="make an Ed25519 key, and end; it is encrypted where the environment variable "
        f"{keys.PASSPHRASE} holds a passphrase",
    )  # fmt: skip
    add(
        "--push", metavar="OWNER/NAME",
        help="upload adapter, card and results to this repository of the Hugging Face hub, too",
    )  # fmt: skip
    add("--private", action="store_true", help="if --push makes a new repository: a private one")
    add(
        "--benchmarks", metavar="OWNER", default=OWNER,
        help="whose benchmark datasets .eval_results names (default: %(default)s)",
    )  # fmt: skip
    add(
        "--states", metavar="1,50,last",
        help="pack the states before and after these rounds, which were drawn, and end",
    )  # fmt: skip
    add(
        "--clients", type=Path, metavar="DIR", action="append", default=[],
        help="with --states: flowertune/clients in FLWR_HOME of a SuperNode's machine, or a copy "
        "of it; once for each machine (default: here)",
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What a command line gives for a bundle, read.

    Attributes
    ----------
    said
        What the participant says; it may be lacking or wrong.
    extras
        For the forms of other tools.
    key
        The private key that signs, if one does.
    problems
        A sentence for each thing on the command line that is wrong or missing.
    """

    said: statement.Said
    extras: Extras
    key: PrivateKey | None
    problems: list[str]


def given(arguments: argparse.Namespace) -> Given:
    """Return what a command line gives for a bundle, with all that is wrong with it."""
    problems: list[str] = []
    key = _read(lambda: arguments.sign and keys.private_key(arguments.sign), problems)
    method = _read(lambda: arguments.method and push.read_method(arguments.method), problems)
    if arguments.model_sign is not None:
        _read(lambda: model_signing.check_key(arguments.model_sign), problems)
    hub_id = None
    if arguments.push is not None:
        hub_id = _read(lambda: push.checked_id(arguments.push), problems)
    if arguments.private and arguments.push is None:
        problems.append("--private is for a repository that --push makes: give --push, too.")
    benchmarks = arguments.benchmarks
    if not is_hub_id(dataset("x", benchmarks)):
        problems.append(f"--benchmarks is {shown(benchmarks)}, which has to be a name on the hub.")
        benchmarks = OWNER
    if arguments.output is not None and not arguments.dry_run:
        problems += output_problems(arguments.output, arguments.force)
    said = statement.Said(
        team=arguments.team,
        contact=arguments.contact,
        division=arguments.division,
        note=arguments.note,
        hardware=arguments.hardware,
        hours=arguments.hours,
        link=arguments.link,
        states_link=arguments.states_link,
    )
    problems += statement.unsaid(said).values()
    return Given(said, Extras(method, hub_id, benchmarks), key, problems)


def output_problems(target: Path, force: bool) -> list[str]:
    """Return why a file cannot be written under this name; nothing of it is touched."""
    if target.is_dir():
        return [f"-o is {target}, which is a folder: name a file in it."]
    return [] if force else outputs.taken([target], "-o")


def _read(read: Callable[[], _Read], problems: list[str]) -> _Read | None:
    try:
        return read()
    except UserError as error:
        problems.append(str(error))
        return None
