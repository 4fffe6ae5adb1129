"""Find the folder of a run by its path or id, or the latest one."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, read_json
from flowertune.config.apps import app_id, recorded_apps
from flowertune.config.read import default_settings, read_settings
from flowertune.config.results import results_root
from flowertune.config.settings import Settings
from flowertune.run.files import RUN


def run_named(named: str | None, app: Path, run_config: Sequence[str] | None) -> Path:
    """Return the folder of the run that a command line names.

    Parameters
    ----------
    named
        A folder, an id, or None for the run that started last.
    app, run_config
        ``--app`` and ``--run-config``, which say where to look for an id.

    Raises
    ------
    UserError
        If there is no such run, or no app to look for its runs.
    """
    if named and Path(named).is_dir():
        return Path(named)
    return find_run(named, read_settings(app, run_config), app, os.environ)


def find_run(named: str | None, cfg: Settings, app: Path, env: Mapping[str, str]) -> Path:
    """Return the folder of the run with the id ``named``, or of the run that started last.

    It is looked for where the app puts its results.

    Raises
    ------
    UserError
        If there is no such run; says where it was looked for and what is there.
    """
    root = results_root(cfg, app.resolve(), env)
    runs = run_folders(root)
    if named is None:
        if not runs:
            raise UserError(
                f"There are no runs in {root} yet; start one with flwr run . or name the folder "
                "of a run."
            )
        return runs[-1]
    for run in reversed(runs):
        # A run that was resumed has the id of its folder, and those under which it went on.
        if named in (run.name, *ids_of(run)):
            return run
    there = ", ".join(path.name for path in runs[-5:]) or "no runs"
    raise UserError(f"There is no run {named!r} in {root}; the latest there: {there}.")


def run_anywhere(run_id: str, app: Path, env: Mapping[str, str]) -> Path:
    """Return the folder of a run by its id, of any app that was run from this machine.

    Parameters
    ----------
    app : Path
        The folder to look at first, if it is one of an app.

    Raises
    ------
    UserError
        If no app has a run with this id; says where it was looked for.
    """
    home = flower_home(env)
    apps = [app.resolve(), *(folder for _, folder in sorted(recorded_apps(home).items()))]
    roots = [root for each in apps if (root := _results_of(each, env)) is not None]
    # Where there is no folder to write to, a run's results are with Flower's files.
    roots += sorted((home / "flowertune" / "results").glob("*"))
    for root in dict.fromkeys(roots):
        for run in run_folders(root):
            if run_id in (run.name, *ids_of(run)):
                return run
    places = ", ".join(map(str, dict.fromkeys(roots))) or "no app's results"
    raise UserError(
        f"There is no run {run_id} in {places}; name its folder (results/<run id>), on the machine "
        "of the ServerApp."
    )


def _results_of(app: Path, env: Mapping[str, str]) -> Path | None:
    try:
        given = Path(str(default_settings(app)["results-dir"])).expanduser()
    except (UserError, KeyError, OSError):
        return None
    return given if given.is_absolute() else app / given


def home_of(folder: Path, app: Path) -> Path | None:
    """Return the app's own folder: the one that is given, or one above the run's; None if unknown.

    Parameters
    ----------
    folder : Path
        The run's folder.
    app : Path
        ``--app``.
    """
    places = (app.resolve(), *folder.resolve().parents)
    return next((place for place in places if app_id(place) is not None), None)


def ids_of(folder: Path) -> list[str]:
    """Return the ids that Flower gave to the processes of a run."""
    ids = (read_json(folder / RUN) or {}).get("flwr-run-ids", [])
    return [str(each) for each in ids] if isinstance(ids, list) else []


def run_folders(root: Path) -> list[Path]:
    """Return the folders of all runs in ``root``, the one that started last at the end."""
    return sorted((path.parent for path in root.glob(f"*/{RUN}")), key=_started)


def _started(folder: Path) -> tuple[str, float]:
    body = read_json(folder / RUN) or {}
    try:
        return str(body.get("started", "")), (folder / RUN).stat().st_mtime
    except OSError:  # a link to nothing
        return "", 0.0
