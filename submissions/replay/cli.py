"""The command ``python -m evaluation.replay``."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.programs import cores
from flowertune.base.errors import UserError
from flowertune.base.files import write_atomically
from flowertune.base.memory import available
from flowertune.base.text import counted
from submissions.archive import opened
from submissions.findings import ordered
from submissions.inputs import all_at_once, check_bundles
from submissions.outputs import taken
from submissions.replay import draw
from submissions.replay.record import RunRecord, read_record
from submissions.replay.replay import Asked, replay, rounds_of
from submissions.replay.sandbox import Bounds
from submissions.signing.keys import PrivateKey, private_key, signer_of
from submissions.signing.signature import sign_object
from submissions.verify.check import look

VALID, INVALID, NOT_DONE = 0, 1, 2
GIB = 2**30
_DESCRIPTION = """\
Train rounds of a submission again and compare: always round 1 and the last, and some that are
drawn now. The bundle's own app does it, in a sandbox without network that shows it nothing but
your base model, your rows and the state before the round. On the same kind of machine the bits
are the same; elsewhere updates may differ by a tolerance.
"""
_EPILOG = """\
examples:
  # which rounds are drawn, and which states to ask the participant for
  python -m evaluation.replay bundle.zip --draw 3 --list
  # the replay, with the word that --list printed
  python -m evaluation.replay bundle.zip --draw 3 --nonce WORD --states states.zip --report r.json

exit status: 0 every round is what the bundle says, 1 one is not, 2 the command line is wrong, or it
could not be done.
"""


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.replay",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="the zip or folder that was handed in")
    add("--draw", type=int, default=3, metavar="K", help="rounds to draw (default: %(default)s)")
    add("--all", action="store_true", help="every round: as much work as the run itself")
    add("--nonce", metavar="WORD", help="your word for the draw (default: a new one, printed)")
    add("--list", action="store_true", help="print the rounds and the states to ask for, and end")
    add(
        "--states",
        type=Path,
        metavar="DIR|ZIP",
        help="the states, as state/round_<n>/ of the run's folder; with clients/partition_<p>/, "
        "what clients kept",
    )
    add("--model", type=Path, metavar="DIR", help="your copy of the base model (default: the hub)")
    add("--data", type=Path, metavar="PATH", help="your training rows (default: the hub)")
    add("--report", type=Path, metavar="FILE", help="write what was found, as JSON")
    add("--force", action="store_true", help="replace a report of that name")
    add("--key", type=Path, metavar="FILE", help="sign the report with this private key")
    add(
        "--memory", type=float, metavar="GIB", help="of the sandbox (default: most of what is free)"
    )
    add("--hours", type=float, default=6.0, help="for each round (default: %(default)g)")
    add("--threads", type=int, help="of torch (default: as in the run, where it says)")
    add(
        "--tolerance",
        type=float,
        metavar="X",
        help="relative difference of a round's update (default: measured, by type of computation)",
    )
    add(
        "--noise-key",
        type=Path,
        metavar="FILE",
        help="of a run with dp-fedavg: the key of its server, which only its holder has",
    )
    add("--cpu", action="store_true", help="show the sandbox no GPU")
    add(
        "--anyway",
        action="store_true",
        help="train rounds again although `python -m evaluation.verify` finds the bundle invalid",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_DONE
    except KeyboardInterrupt:
        print("stopped; nothing of the sandbox is left", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    all_at_once(lambda: check_bundles([arguments.bundle]), lambda: _check(arguments))
    # Before hours of training: a report that cannot be signed would be lost.
    key = None if arguments.key is None else private_key(arguments.key)
    nonce = arguments.nonce or draw.new_nonce()
    with opened(arguments.bundle) as bundle:
        record = read_record(bundle)
        rounds = rounds_of(record, bundle.digest, arguments.draw, nonce, arguments.all)
        _say_draw(arguments, bundle.digest, record, rounds, nonce)
        if arguments.list:
            print(_asking(record, rounds))
            return VALID
        memory = int(arguments.memory * GIB) if arguments.memory else _memory()
        bounds = Bounds(memory, arguments.hours, arguments.threads or _threads(record))
        case = look(bundle)
        if wrong := [finding for finding in case.findings if finding.level == "error"]:
            print("\n".join(finding.line() for finding in ordered(wrong)), flush=True)
            if not arguments.anyway:
                print(f"INVALID: {counted(len(wrong), 'error')}, and nothing is trained again "
                      "(--anyway does it all the same)")  # fmt: skip
                return INVALID
        print(
            f"sandbox: no network, {memory / GIB:.1f} GiB, {bounds.hours:g} h a round, "
            f"{counted(bounds.threads, 'thread')}",
            flush=True,
        )
        asked = Asked(
            arguments.draw, nonce, arguments.states, arguments.model, arguments.data, bounds,
            arguments.tolerance, not arguments.cpu, arguments.all, arguments.noise_key,
        )  # fmt: skip
        found = replay(bundle, asked, lambda text: print(text, flush=True))
    # Late: it describes this machine, which takes a part of a second.
    from submissions.replay.report import report

    made = report(arguments.bundle.name, found, case.findings, case.facts)
    print("\n".join(finding.line() for finding in made.findings))
    print(made.verdict())
    if arguments.report is not None:
        _write(arguments.report, made.body(), key)
    return VALID if made.valid else INVALID


def _check(arguments: argparse.Namespace) -> None:
    wrong = [
        f"--{name} is {value:g}; use {allowed}"
        for name, value, fits, allowed in (
            ("draw", arguments.draw, arguments.draw >= 0, "a whole number from 0"),
            ("hours", arguments.hours, 0 < arguments.hours <= 1000, "a number above 0"),
            ("memory", arguments.memory or 1, (arguments.memory or 1) > 0, "a number above 0"),
            ("threads", arguments.threads or 1, (arguments.threads or 1) > 0, "a number above 0"),
            ("tolerance", arguments.tolerance or 0, (arguments.tolerance or 0) >= 0,
             "a number from 0"),
        )
        if not fits
    ]  # fmt: skip
    if arguments.nonce is not None and not arguments.nonce.isprintable():
        wrong.append("--nonce holds control characters; use a word")
    if arguments.key is not None and arguments.report is None:
        wrong.append("--key signs a report; name it with --report")
    if arguments.report is not None and not arguments.report.absolute().parent.is_dir():
        wrong.append(f"--report is {arguments.report}, and there is no such folder to write it to")
    if arguments.report is not None and not arguments.force:
        wrong += [sentence.rstrip(".") for sentence in taken([arguments.report], "--report")]
    if wrong:
        raise UserError(f"{'; '.join(wrong)}.")


def _say_draw(
    arguments: argparse.Namespace, digest: str, record: RunRecord, rounds: list[int], nonce: str
) -> None:
    print(f"bundle {arguments.bundle.name}, digest {digest[:16]}, {record.rounds} rounds")
    again = "--all" if arguments.all else f"--draw {arguments.draw} --nonce {nonce}"
    print(f"rounds {', '.join(map(str, rounds))}; the same ones again: {again}")
    draws = len(rounds) - min(record.rounds, 2)
    if draws >= record.rounds - 2:
        few = draws < arguments.draw and not arguments.all
        why = f" (a run of {counted(record.rounds, 'round')} has no more to draw)" if few else ""
        print(f"every round is trained again{why}, so every false one is seen")
        return
    if draws == 0:
        print("of the rounds between none is drawn, so false ones there are not seen (--draw 3)")
        return
    parts = [f"{c:.0%} where f is {s:.0%}" for s, c in draw.chances(record.rounds, draws)]
    print(f"if a share f of the rounds between is false, that is seen with 1 - (1 - f)^{draws}: "
          f"{', '.join(parts)}", flush=True)  # fmt: skip


def _asking(record: RunRecord, rounds: Sequence[int]) -> str:
    """Return what to ask the participant for, with the command that packs it."""
    names = " ".join(f"state/round_{n}" for n in draw.states_of(rounds))
    # The folder of a run has the id of the first process that worked on it.
    run = record.run_ids[0] if record.run_ids else "RUN"
    return (
        f"states to ask for: {names}\nthe participant packs them, in the app's folder:\n"
        f"  python -m evaluation.submit results/{run} --states {','.join(map(str, rounds))} "
        "-o states.zip"
    )


def _memory() -> int:
    return int(0.8 * available())


def _threads(record: RunRecord) -> int:
    """Return the threads of the run, where it says so and this machine can have as many."""
    said = record.hardware.get("threads") or record.hardware.get("cores")
    return said if type(said) is int and 0 < said <= 4 * cores() else cores()


def _write(path: Path, body: dict[str, Any], key: PrivateKey | None) -> None:
    signed = "" if key is None else f", signed by the key {signer_of(key.public_key()).fingerprint}"
    body = body if key is None else sign_object(body, key)
    text = json.dumps(body, indent=2, sort_keys=True) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"--report {path} cannot be written ({error.strerror}).") from None
    print(f"report: {path}{signed}")
    print(f"Next: python -m evaluation.leaderboard BUNDLES --reports {shlex.quote(str(path))} "
          f"{'' if key is None else '--own KEY.pub '}-o site")  # fmt: skip
