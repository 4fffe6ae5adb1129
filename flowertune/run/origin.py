"""The run that another one goes on with: its folder, its state, its settings, how to ask for it."""

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.paths import local_path
from flowertune.config.settings import ANEW
from flowertune.run.files import LEDGER, PROGRESS, ROUNDS, RUN
from flowertune.run.state import FOLDER, NAME, choose_state, complete_states, read_body

KEY = "resume-from"
# These may differ between a run and its continuation: they change nothing of the result.
MAY_DIFFER = (
    "results-dir", "profile.enabled", "log.wandb",
    "aggregation.on-failure", "aggregation.window", "strategy.timeout",
)  # fmt: skip
PLAIN = re.compile(r"[\w./@+-]+")


@dataclass(frozen=True)
class Origin:
    """The run to go on with.

    ``server_round`` is that of the state that was named, or None for the newest one.
    """

    folder: Path
    server_round: int | None

    def state(self) -> Path:
        """Return the folder of the state to go on from.

        Raises
        ------
        UserError
            If there is none.
        """
        return choose_state(self.folder, self.server_round)


def origin_of(run_config: Mapping[str, Any], app_dir: Path) -> Origin | None:
    """Return the run that ``resume-from`` names, or None where it names none.

    It names the folder of a run, or one of the states in it (``results/<id>/state/round_<n>``).

    Raises
    ------
    UserError
        If there is no such folder.
    """
    given = run_config.get(KEY)
    if not isinstance(given, str) or not given.strip() or given == ANEW:
        return None
    if not given.isprintable():
        raise UserError(f"{KEY} is {given!r}; give a run's folder, without control characters.")
    folder = local_path(given, app_dir)
    named = NAME.fullmatch(folder.name) if folder.parent.name == FOLDER else None
    run_folder = folder.parent.parent if named else folder
    if not run_folder.is_dir():
        raise UserError(
            f"{KEY} is {given!r}, and there is no folder {run_folder}; give a run's folder "
            f"(results/<run id>), or {ANEW!r} to start a new run."
        )
    return Origin(run_folder, int(named.group(1)) if named else None)


def refuse_links(folder: Path) -> None:
    """Refuse to write into a run's folder that holds a link, or a folder in place of a file.

    Raises
    ------
    UserError
        Names the first one.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise UserError(
                f"{path} is a link, and a run is not resumed through links; put what it points to "
                "in its place."
            )
    for name in (RUN, ROUNDS, LEDGER, PROGRESS):
        if (path := folder / name).exists() and not path.is_file():
            raise UserError(
                f"{path} is no file, and a run that is resumed writes one there; remove what is in "
                "its place."
            )


def resumed_settings(
    saved: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a run that goes on: those it was started with.

    Parameters
    ----------
    saved : Mapping[str, Any]
        What it was started with.
    given : Mapping[str, Any]
        What Flower hands over now: the app's defaults, and over them what was given for this run.
    defaults : Mapping[str, Any]
        The app's defaults; a setting that has its default counts as not given.

    Raises
    ------
    UserError
        With every setting that was given another value, but for those that change no result.
    """
    explicit = [k for k in given if k not in defaults or not equal(given[k], defaults[k])]
    changes = [
        f"{key} was {saved.get(key)!r} and is {given[key]!r}"
        for key in sorted(explicit)
        if key not in (KEY, *MAY_DIFFER) and not (key in saved and equal(saved[key], given[key]))
    ]
    if changes:
        raise UserError(
            f"a run can be resumed only with the settings it was started with: "
            f"{'; '.join(changes)}; give {KEY} alone, which takes them all from the run."
        )
    changed = {key: given[key] for key in explicit if key in MAY_DIFFER}
    return {**given, **saved, **changed, KEY: given[KEY]}


def settings_of_run(run_config: Mapping[str, Any], app_dir: Path) -> dict[str, Any]:
    """Return the run-config, or what takes its place where a run goes on; reads the run's state.

    Raises
    ------
    UserError
        If the run to go on with is not there, damaged, or was given other settings.
    """
    # Late: flwr's reader of configurations is for runs that go on.
    from flowertune.config.read import default_settings

    if (origin := origin_of(run_config, app_dir)) is None:
        return dict(run_config)
    saved = read_body(origin.state())["settings"]
    return resumed_settings(saved, run_config, default_settings(app_dir))


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is new or other in ``now``."""
    return {k: v for k, v in now.items() if k not in before or not equal(before[k], v)}


def equal(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; NaN is NaN, and true is not 1."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def resume_command(folder: Path, app: Path | None = None) -> str | None:
    """Return the command that goes on with the run in ``folder``; None where nothing is left of it.

    Parameters
    ----------
    app : Path | None
        The app's own folder; None for the folder in which the command is typed.
    """
    if not folder.is_dir() or not complete_states(folder):
        return None
    here, run = Path.cwd().resolve(), folder.resolve()
    home = (app or here).resolve()
    given = str(run.relative_to(home)) if run.is_relative_to(home) else str(run)
    # A relative path starts at the app's folder, unless it looks like one of another kind.
    setting = f'{KEY}="{given}"' if "'" in given else f"{KEY}='{given}'"
    quoted = f'"{setting}"' if PLAIN.fullmatch(given) else shlex.quote(setting)
    where = "." if home == here else shlex.quote(str(home))
    return f"flwr run {where} --stream --run-config {quoted}"
