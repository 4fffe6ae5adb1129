"""A run as plain lines, for where there is no terminal."""

from typing import Any

from flowertune.base.text import duration
from flowertune.run.files import RunFiles, tokens_per_second


def head(run: RunFiles) -> str:
    """Return the line that says which run this is."""
    about = run.about
    verdict = "official" if about.get("official") else "unofficial"
    return (
        f"run {about.get('run-id', run.folder.name)}: {about.get('challenge')}, "
        f"{about.get('model')}, {run.planned} rounds, {verdict}, {run.status}"
    )


def round_line(run: RunFiles, line: dict[str, Any]) -> str:
    """Return the line of one finished round."""
    people = f"{line['clients']} client" + ("" if line["clients"] == 1 else "s")
    if line.get("failed"):
        people += f" ({line['failed']} failed)"
    loss = line.get("train-loss")
    parts = [
        f"round {line['round']:>{len(str(run.planned))}}/{run.planned}",
        people,
        "loss -" if loss is None else f"loss {loss:.4f}",
        f"{line.get('total-mib', 0):,.1f} of {run.about.get('budget-mib', 0):,} MiB",
    ]
    if speed := tokens_per_second(line):
        parts.append(f"{speed:,.0f} tokens/s")
    return " | ".join(parts)


def state(run: RunFiles) -> str:
    """Return the line that says where the run stands."""
    if run.status == "running":
        left = run.seconds_left
        return "waiting for the first round" if left is None else f"about {duration(left)} left"
    done = run.last.get("round", 0)
    if run.status == "interrupted":
        stopped = f"interrupted after round {done} of {run.planned}: its process has ended"
        if not done:
            return f"{stopped}, and there is nothing to go on from; start it again"
        return (
            f"{stopped}; to go on, start it again with the same settings and "
            f"resume-from='{run.folder.resolve()}' (beside them in --run-config, or as a line of "
            "the .toml file given there)"
        )
    reason = f": {run.about['reason']}" if run.about.get("reason") else ""
    return f"{run.status} after round {done} of {run.planned}{reason}"
