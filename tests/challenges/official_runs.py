"""Runs of an app with the library of a wheel, in a process that does not see this checkout's.

python -P -m tests.challenges.official_runs APP CFG.json SITE OUT.json
(with SITE, the folder that the wheel is installed in, first on PYTHONPATH)
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.supercore.task_identity import TaskIdentity

from evaluation import checkpoint
from flowertune.comms import nodes
from flowertune.rules.provenance import installed_library
from tests.local_grid import run_app


def an_edited_file(site: Path) -> None:
    """Change a file as an editor would."""
    with (site / "flowertune/data/steps.py").open("a") as file:
        file.write("\n# mine\n")


def an_editable_install(site: Path) -> None:
    """Note what pip notes of `pip install -e`."""
    (note,) = site.glob("flowertune-*.dist-info/direct_url.json")
    note.write_text(json.dumps({"url": f"file://{site}", "dir_info": {"editable": True}}))


def another_client_library(site: Path) -> None:
    """Let clients say that they have another library."""
    other = replace(installed_library(), version="0.9.0", sha256="0" * 64)
    nodes.installed_library = lambda: other


def run(app: Path, cfg: dict[str, Any], number: int) -> dict[str, Any]:
    """Run the app; return what the run and the scorer say of its checkpoint."""
    installed_library.cache_clear()
    run_app(cfg, cfg["static.num-supernodes"], number, app=app)
    folder = Path(cfg["results-dir"]) / str(number)
    with checkpoint.read(folder / "peft_1", cfg["static.challenge"]) as saved:
        return {
            "run": json.loads((folder / "run.json").read_text()),
            "manifest": json.loads((folder / "peft_1/manifest.json").read_text()),
            "reasons": saved.reasons,
        }


CHANGES: tuple[Callable[[Path], None], ...] = (
    another_client_library,
    an_edited_file,
    an_editable_install,
)


def main(app: Path, cfg: dict[str, Any], site: Path) -> dict[str, Any]:
    """One run with the library as it was installed, and one after each further change of it."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    assert Path(checkpoint.__file__).is_relative_to(site)
    own = nodes.installed_library
    found = {"as installed": run(app, cfg, 1)}
    for number, change in enumerate(CHANGES, start=2):
        change(site)
        found[change.__name__] = run(app, cfg, number)
        nodes.installed_library = own
    return found


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    results = main(given[0], json.loads(given[1].read_text()), given[2])
    given[3].write_text(json.dumps(results))
