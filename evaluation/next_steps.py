"""What to type after a score: complete commands, for the shell and folder the user is in."""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from evaluation import sets
from evaluation.checkpoint import Checkpoint


def lines(
    challenge: str, arguments: argparse.Namespace, checkpoint: Checkpoint | None
) -> list[str]:
    """Return the lines to print under a result."""
    if checkpoint is None:
        return []
    steps = []
    command = f"{_python()} -m {sets.module_name(challenge)}"
    again = f"{command} {shlex.join(arguments.words)}"
    if not (arguments.compare or arguments.base_only):
        steps.append(("what did fine-tuning change?", f"{again} --compare base"))
    if arguments.sample:
        path = shlex.quote(str(checkpoint.path))
        unofficial = " --unofficial" if arguments.unofficial else ""
        replayed = sets.of_challenge(challenge).replay_batch and arguments.suite == "official"
        batches = " --official-batching" if replayed else ""
        steps.append(("the whole sets (GPU, hub)", f"{command} {path}{unofficial}{batches}"))
    run = checkpoint.path.parent
    if (run / "run.json").is_file():
        if _is_whole(challenge, arguments) and checkpoint.official:
            steps.append(("hand it in", _submit(run, arguments)))
        tool = "flowertune" if _is_own(shutil.which("flowertune")) else f"{_python()} -m flowertune"
        steps.append(("one page with these scores", f"{tool} report {shlex.quote(str(run))}"))
    return ["Next:", *(f"  {command}  # {what}" for what, command in steps)] if steps else []


def _is_whole(challenge: str, arguments: argparse.Namespace) -> bool:
    """Whether this was the official score of all sets, as far as the command line says."""
    partial = (arguments.sample, arguments.limit, arguments.sets, arguments.base_only)
    batched = sets.of_challenge(challenge).replay_batch is not None
    return (
        arguments.suite == "official"
        and not any(partial)
        and (not batched or arguments.official_batching)
    )


def _submit(run: Path, arguments: argparse.Namespace) -> str:
    scores = f" --scores {shlex.quote(str(arguments.output))}" if arguments.output else ""
    who = "--team NAME --contact ADDRESS"
    return f"{_python()} -m evaluation.submit {shlex.quote(str(run))} {who}{scores}"


def _python() -> str:
    """What starts this Python, where the user is."""
    return "python" if _is_own(shutil.which("python")) else shlex.quote(sys.executable)


def _is_own(program: str | None) -> bool:
    return program is not None and Path(program).absolute().is_relative_to(sys.prefix)
