"""A run as plain lines, for where there is no terminal."""

import time
from pathlib import Path
from typing import Any

from flowertune.base.text import duration
from flowertune.run.files import RunFiles, tokens_per_second
from flowertune.run.origin import resume_command


def head(run: RunFiles) -> str:
    """Return the line that says which run this is."""
    about = run.about
    return (
        f"run {about.get('run-id', run.folder.name)}: {about.get('challenge')}, "
        f"{about.get('model')}, {run.planned} rounds, {run.verdict}, {run.status}"
    )


def round_line(run: RunFiles, line: dict[str, Any]) -> str:
    """Return the line of one finished round."""
    clients = line.get("clients", "-")
    people = f"{clients} client" + ("" if clients == 1 else "s")
    if line.get("failed"):
        people += f" ({line['failed']} failed)"
    loss, held_out = line.get("train-loss"), line.get("held-out-loss")
    parts = [
        f"round {line['round']:>{len(str(run.planned))}}/{run.planned}",
        people,
        "loss -" if loss is None else f"loss {loss:.4f}",
        *([] if held_out is None else [f"held out {held_out:.4f}"]),
        f"{line.get('total-mib', 0):,.1f} of {run.about.get('budget-mib', 0):,} MiB",
    ]
    if speed := tokens_per_second(line):
        parts.append(f"{speed:,.0f} tokens/s")
    return " | ".join(parts)


def state(run: RunFiles, app: Path | None = None, now: float | None = None) -> str:
    """Return the line that says where the run stands, and another one with how to go on with it.

    Parameters
    ----------
    app : Path | None
        The app's own folder, as for ``resume_command``.
    now : float | None
        Seconds since the epoch.
    """
    if run.status == "running":
        left = run.seconds_left
        end = [] if left is None else [f"about {duration(left)} left"]
        return (
            ", ".join([*filter(None, [just_now(run, now)]), *end]) or "waiting for the first round"
        )
    done = run.last.get("round", 0)
    reason = str(run.about.get("reason") or "")
    if run.status == "interrupted":
        reason = "its process has ended"
    said = f"{run.status} after round {done} of {run.planned}{reason and f': {reason}'}"
    if run.status == "finished":
        return said
    command = resume_command(run.folder, app)
    return f"{said}\n{f'to go on: {command}' if command else 'nothing is left to go on from'}"


def just_now(run: RunFiles, now: float | None = None) -> str:
    """Return what the run does at this moment; empty where that is not known."""
    progress = run.progress
    if run.resuming or "since" not in progress:
        return ""
    doing = str(progress.get("doing", ""))
    if "round" in progress:
        doing = "round {round}: {done} of {of} {what}".format(**progress)
    since = (time.time() if now is None else now) - float(progress["since"])
    return f"{doing} in {duration(max(0.0, since))}" if "round" in progress else doing
