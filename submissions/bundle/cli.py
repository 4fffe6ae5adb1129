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
from submissions.bundle import make, options, refusal, sources, statement, states
from submissions.bundle.make import Bundle
from submissions.bundle.options import Given, parser
from submissions.bundle.sources import COMMAND, Found, Problem, Sources, Unfit
from submissions.findings import Report
from submissions.signing import keys

DONE, REFUSED, MISTYPED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    known = parser()
    arguments = known.parse_args(argv)
    if arguments.run is None and arguments.new_key is None:
        known.error("RUN is missing: give the folder of a run, such as results/RUN")
    if arguments.run is not None and arguments.new_key is not None:
        known.error("--new-key makes a key and ends: give RUN in a command of its own")
    try:
        if arguments.new_key is not None:
            return _new_key(arguments.new_key)
        if arguments.states is not None:
            return _states(arguments)
        return _submit(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return REFUSED


def _new_key(path: Path) -> int:
    try:
        signer = keys.new_key(path)
    except UserError as error:
        return _mistyped([str(error)])
    locked = keys.passphrase() is not None
    name = shlex.quote(str(path))
    print(f"{path}, the private key{', encrypted with your passphrase' if locked else ''}")
    print(f"{path}.pub, the public key")
    print(f"fingerprint {signer.fingerprint}")
    steps = [f"  sign a bundle: python -m evaluation.submit RUN … --sign {name}"]
    if locked:
        steps.append(f"  {keys.PASSPHRASE} has to hold the passphrase then, too")
    else:
        steps.append(
            f"  whoever has {path} can sign as you: keep it private (with {keys.PASSPHRASE} set, "
            "--new-key encrypts it)"
        )
    steps += [
        "  keep a copy of it elsewhere: nobody can make the same one again",
        f"  publish {path}.pub or its fingerprint where the organizer knows you: only that says "
        "whose key it is",
    ]
    print("\n".join(["Next:", *steps]))
    return DONE


def _states(arguments: argparse.Namespace) -> int:
    target = arguments.output or Path("states.zip")
    wrong = options.output_problems(target, arguments.force)
    try:
        states.rounds_named(arguments.states, states.last_round(arguments.run))
    except UserError as error:
        wrong.append(str(error))
    if wrong:
        return _mistyped(wrong)
    print(states.write_states(arguments.run, arguments.states, target, arguments.clients))
    print(f"Next:\n  hand {target} to the organizer, with the bundle's name")
    return DONE


def _mistyped(sentences: Sequence[str]) -> int:
    print("\n".join(f"error: {sentence}" for sentence in sentences), file=sys.stderr)
    return MISTYPED


def _submit(arguments: argparse.Namespace) -> int:
    given = options.given(arguments)
    lacks = [Problem(COMMAND, sentence) for sentence in given.problems]
    found = None
    try:
        found = _look(arguments, lacks)
        bundle, target, report = _made(arguments, given, found, lacks)
    except Unfit as error:
        print(refusal.text(error.problems, found), file=sys.stderr)
        return MISTYPED if refusal.typed(error.problems) else REFUSED
    assert found.sources is not None
    _tell(arguments, found.sources, bundle, target, report)
    return REFUSED if arguments.push is not None and not _pushed(arguments, bundle) else DONE


def _look(arguments: argparse.Namespace, lacks: list[Problem]) -> Found:
    """Find what a bundle is made of.

    Raises
    ------
    Unfit
        The command line names no run, or folders that are not there; with what else is lacking.
    """
    wrong = [
        Problem(COMMAND, f"--{name} is {path}, and there is no such folder.")
        for name, path in (("scores", arguments.scores), ("app", arguments.app))
        if path is not None and not path.is_dir()
    ]
    try:
        found = sources.look(arguments.run, arguments.scores, arguments.app)
    except UserError as error:
        raise Unfit([*lacks, *wrong, Problem(COMMAND, str(error))]) from None
    if wrong:
        raise Unfit([*lacks, *wrong, *found.wrong])
    return found


def _made(
    arguments: argparse.Namespace, given: Given, found: Found, lacks: list[Problem]
) -> tuple[Bundle, Path, Report]:
    """Make the bundle, and write it if it is valid.

    Raises
    ------
    Unfit
        It is not valid, or something is lacking; with every problem.
    UserError
        It cannot be written.
    """
    if found.sources is None:
        raise Unfit([*lacks, *found.missing, *found.wrong, *refusal.causes(found, ())])
    lacks = [*lacks, *found.wrong]
    # With placeholders, so that what the organizer's check has to say of the rest is known, too.
    blank = {
        name: "unsaid" if name in ("team", "contact") else None
        for name in statement.unsaid(given.said)
    }
    try:
        bundle = make.assemble(found.sources, replace(given.said, **blank), given.extras)
    except Unfit as error:
        raise Unfit([*lacks, *refusal.causes(found, ()), *error.problems]) from error
    target = arguments.output or Path(bundle.name)
    if arguments.output is None and not arguments.dry_run and "team" not in blank:
        wrong = options.output_problems(target, arguments.force)
        lacks += [Problem(COMMAND, sentence) for sentence in wrong]
    if not lacks:
        bundle = bundle if given.key is None else make.signed(bundle, given.key)
        if arguments.model_sign is not None:
            bundle = make.model_signed(bundle, arguments.model_sign)
    try:
        report = _written(bundle, None if arguments.dry_run else target, found, lacks)
    except OSError as error:
        raise UserError(
            f"{error.filename or target} cannot be written ({error.strerror}): make room there, or "
            "name another file with -o."
        ) from None
    return bundle, target, report


def _written(bundle: Bundle, target: Path | None, found: Found, lacks: list[Problem]) -> Report:
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
        report = check(made)
        errors = [one for one in report.findings if one.level == "error"]
        if lacks or errors:
            raise Unfit([*lacks, *refusal.causes(found, errors)])
        if target is not None and beside is not None:
            os.replace(made, target)
        elif target is not None:
            make.write(bundle, target)
        return report


def check(bundle: Path) -> Report:
    """Return what the organizer's check finds in a bundle."""
    # Late: it imports what a refused command line does without.
    from submissions.verify.check import verify

    return verify(bundle)


def _tell(
    arguments: argparse.Namespace, found: Sources, bundle: Bundle, target: Path, report: Report
) -> None:
    """Say what was made, what the check found, and what is left to do."""
    if arguments.dry_run:
        print(make.tree(bundle.files))
    for finding in report.findings:
        print(finding.line())
    if arguments.dry_run:
        print(f"VALID; {target} is not written (--dry-run).")
        return
    size = target.stat().st_size / MIB
    print(f"VALID. {target}, {size:,.1f} MiB, {counted(len(bundle.files), 'file')}, "
          f"digest {(report.digest or '')[:16]}")  # fmt: skip
    if signed := report.signed():
        print(signed)
    print("\n".join(["Next:", *next_steps(arguments.run, found, bundle, target)]))


def _pushed(arguments: argparse.Namespace, bundle: Bundle) -> bool:
    """Upload what belongs on the hub, and say where it is or why not; the bundle stays."""
    if arguments.dry_run:
        return True
    try:
        where = push.push(push.files_of(bundle.files), arguments.push, arguments.private)
    except UserError as error:
        print(f"error: {error} (The bundle is written; with --force the same command tries "
              "again.)", file=sys.stderr)  # fmt: skip
        return False
    print(f"Uploaded: {where}")
    return True


def next_steps(given: Path, found: Sources, bundle: Bundle, target: Path) -> list[str]:
    """Return what is left to do once a bundle is there, one line each."""
    run = shlex.quote(str(given.parent if given.name.startswith("peft_") else given))
    rounds = found.rounds
    kept = len([n for n in complete_states(found.run.folder) if n <= rounds])
    steps = [f"  hand {target} to the organizer"]
    if bundle.statement["weights"]["link"] is not None:
        steps.append("  keep the weights where --link says: their hash is in the bundle")
    if kept == rounds + 1:
        steps += [
            f"  keep {run}/state; once the organizer has drawn rounds, such as 1 and {rounds}:",
            f"    python -m evaluation.submit {run} --states 1,{rounds} -o states.zip",
        ]
    else:
        steps.append(
            f"  {run}/state has {counted(kept, 'state')} of {rounds + 1}, so that not every round "
            "can be replayed (train.keep-states=0 keeps all)"
        )
    return steps
