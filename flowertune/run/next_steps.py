"""What to type after a run: complete commands that work from any folder."""

import importlib.util
import shlex
from pathlib import Path

from flowertune.config.paths import is_path
from flowertune.config.settings import Settings


def next_steps(cfg: Settings, folder: Path, server_round: int, official: bool) -> list[str]:
    """Return the lines under "Next:": score the checkpoint, ask it, see the run on a page.

    Parameters
    ----------
    folder : Path
        The run's folder.
    server_round : int
        The last one that finished, or the one that the run chose.
    """
    steps = []
    checkpoint = folder / f"peft_{server_round}"
    if checkpoint.is_dir():
        module = f"evaluation.{cfg.static.challenge.replace('-', '_')}"
        path = shlex.quote(str(checkpoint))
        if _is_there(module):
            steps.append((f"python -m {module} {path}{_flags(cfg, official)}", "score it"))
        steps.append((f"flowertune chat --peft-path={path} --template trained", "ask it"))
    steps.append((f"flowertune report {shlex.quote(str(folder))}", "one page about the run"))
    return [f"{command}  # {what}" for command, what in steps]


def _flags(cfg: Settings, official: bool) -> str:
    """Return the options without which the score would be refused, or ask for more than is here."""
    flags = {
        # Rows of one's own were trained on: the hub, which has the test rows, may be out of reach.
        " --sample": is_path(cfg.static.dataset.name),
        " --unofficial": not official,
        " --quantization 0": cfg.model.quantization == 0,
    }
    return "".join(flag for flag, needed in flags.items() if needed)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
