"""The command ``python -m evaluation.submit``."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from flowertune.base.errors import UserError
from flowertune.base.text import MIB, counted
from flowertune.run.state import complete_states
from submissions import push
from submissions.bundle import make, sources, statement, states
from submissions.bundle.contents import Extras
from submissions.bundle.make import Bundle
from submissions.bundle.sources import Sources, Unfit
from submissions.findings import Finding
from submissions.formats.benchmarks import OWNER
from submissions.signing import keys

DONE, REFUSED = 0, 1
_DESCRIPTION = """\
Make a bundle of a scored run: one zip with everything that an organizer checks, and check it here
as the organizer will. What is missing or wrong is listed, all of it, and then nothing is written.

The division is found out: closed on the challenge's default base model, else open. The states of
the rounds stay with you; once rounds were drawn, --states packs those that are asked for.
"""
_EPILOG = """\
examples:
  # after scoring, in the folder where the scorer was run
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org
  # what would be in it
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org --dry-run
  # the states that a replay of rounds 1, 50 and the last asks for
  python -m evaluation.submit results/RUN --states 1,50,last -o states.zip
  # a key of your own, and a bundle that is signed by it
  python -m evaluation.submit --new-key ~/.flowertune/key
  python -m evaluation.submit results/RUN --team "My team" --contact me@example.org \\
    --sign ~/.flowertune/key

exit status: 0 where it was written, 1 where it was refused, 2 where the command line is wrong.
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
    add("--dry-run", action="store_true", help="check everything and show the tree; write nothing")
    _add_said(options)
    _add_places(options)
    _add_more(options)
    return options


def _add_said(options: argparse.ArgumentParser) -> None:
    add = options.add_argument_group("what you say").add_argument
    add("--team", metavar="NAME", help="who submits, as it stands on the board")
    add("--contact", metavar="TEXT", help="how the organizer reaches you")
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
    add("--new-key", type=Path, metavar="FILE", help="make an Ed25519 key, and end")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    options = parser()
    arguments = options.parse_args(argv)
    if arguments.run is None and arguments.new_key is None:
        options.error("RUN is missing: give the folder of a run, such as results/RUN")
    try:
        return _run(arguments)
    except Unfit as error:
        print(_refusal(error.problems), file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return REFUSED


def _run(arguments: argparse.Namespace) -> int:
    if arguments.new_key is not None:
        signer = keys.new_key(arguments.new_key)
        print(f"{arguments.new_key} and {arguments.new_key}.pub, fingerprint {signer.fingerprint}")
        return DONE
    if arguments.states is not None:
        target = arguments.output or Path("states.zip")
        print(states.write_states(arguments.run, arguments.states, target, arguments.clients))
        return DONE
    if arguments.push is not None:
        push.check_id(arguments.push)
    key = None if arguments.sign is None else keys.private_key(arguments.sign)
    found = sources.look(arguments.run, arguments.scores, arguments.app)
    said = _said(arguments)
    unsaid = statement.unsaid(said)
    lacks = [*found.missing, *found.wrong, *unsaid.values()]
    if found.sources is None:
        raise Unfit([*lacks, *found.unofficial])
    # With placeholders, so that what the organizer's check has to say of the rest is known, too.
    blank = {name: "unsaid" if name in ("team", "contact") else None for name in unsaid}
    bundle = _assembled(found.sources, replace(said, **blank), _extras(arguments), lacks)
    if not lacks:
        bundle = bundle if key is None else make.signed(bundle, key)
        if arguments.model_sign is not None:
            bundle = make.model_signed(bundle, arguments.model_sign)
    target = arguments.output or Path(bundle.name)
    try:
        findings = _written(bundle, None if arguments.dry_run else target, lacks)
    except OSError as error:
        raise UserError(
            f"{error.filename or target} cannot be written ({error.strerror}): make room there, or "
            "name another file with -o."
        ) from None
    _tell(arguments, found.sources, bundle, target, findings)
    return DONE


def _written(bundle: Bundle, target: Path | None, lacks: list[str]) -> list[Finding]:
    """Write a bundle if it is valid; return what the check found.

    Raises
    ------
    Unfit
        It is not valid, or something is lacking.
    OSError
        It cannot be written.
    """
    # Beside its place, so that gigabytes are written once.
    beside = target.parent if target is not None and target.parent.is_dir() else None
    with TemporaryDirectory(dir=beside, prefix=".flowertune-submit-") as folder:
        made = Path(folder) / "bundle.zip"
        make.write(bundle, made)
        findings = check(made)
        errors = [one.line() for one in findings if one.level == "error"]
        if lacks or errors:
            raise Unfit([*lacks, *errors])
        if target is not None and beside is not None:
            os.replace(made, target)
        elif target is not None:
            make.write(bundle, target)
        return findings


def check(bundle: Path) -> list[Finding]:
    """Return what the organizer's check finds in a bundle."""
    # Late: it imports what a refused command line does without.
    from submissions.verify.check import verify

    return list(verify(bundle).findings)


def _assembled(found: Sources, said: statement.Said, extras: Extras, lacks: list[str]) -> Bundle:
    """Return the bundle.

    Raises
    ------
    Unfit
        It cannot be made; with what else is lacking.
    """
    try:
        return make.assemble(found, said, extras)
    except Unfit as error:
        raise Unfit([*lacks, *error.problems]) from error


def _tell(
    arguments: argparse.Namespace,
    found: Sources,
    bundle: Bundle,
    target: Path,
    findings: Sequence[Finding],
) -> None:
    """Say what was made and what the check found, and upload where that was asked for."""
    if arguments.dry_run:
        print(make.tree(bundle.files))
    for finding in findings:
        print(finding.line())
    if arguments.dry_run:
        print(f"VALID; {target} is not written (--dry-run).")
        return
    size = target.stat().st_size / MIB
    print(f"VALID. {target}, {size:,.1f} MiB, {counted(len(bundle.files), 'file')}")
    if arguments.push is not None:
        where = push.push(push.files_of(bundle.files), arguments.push, arguments.private)
        print(f"Uploaded: {where}")
    print("\n".join(["Next:", *next_steps(arguments.run, found, bundle, target)]))


def next_steps(given: Path, found: Sources, bundle: Bundle, target: Path) -> list[str]:
    """Return what is left to do once a bundle is there, one line each."""
    run = shlex.quote(str(given.parent if given.name.startswith("peft_") else given))
    rounds = found.rounds
    kept = len([n for n in complete_states(found.run.folder) if n <= rounds])
    steps = [f"  hand {target} to the organizer"]
    if bundle.statement["weights"]["link"] is not None:
        steps.append("  keep the weights where --link says: their hash is in the bundle")
    if kept == rounds + 1:
        steps.append(
            f"  keep {run}/state: python -m evaluation.submit {run} --states 1,N,last  # once "
            "rounds were drawn"
        )
    else:
        steps.append(
            f"  {run}/state has {counted(kept, 'state')} of {rounds + 1}, so that not every round "
            "can be replayed (train.keep-states=0 keeps all)"
        )
    return steps


def _said(arguments: argparse.Namespace) -> statement.Said:
    return statement.Said(
        team=arguments.team,
        contact=arguments.contact,
        division=arguments.division,
        note=arguments.note,
        hardware=arguments.hardware,
        hours=arguments.hours,
        link=arguments.link,
        states_link=arguments.states_link,
    )


def _extras(arguments: argparse.Namespace) -> Extras:
    method = None if arguments.method is None else push.read_method(arguments.method)
    return Extras(method, arguments.push, arguments.benchmarks)


def _refusal(problems: Sequence[str]) -> str:
    lines = [f"Not submitted, {counted(len(problems), 'thing')} to mend:"]
    return "\n".join([*lines, *(f"- {problem}" for problem in problems)])
