"""``flowertune report``: one page about a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.cli.options import AppFolder, RunConfig, RunName
from flowertune.config.checks import check_settings
from flowertune.config.read import UnreadableApp, default_settings
from flowertune.config.settings import IID
from flowertune.run.files import read_run
from flowertune.run.find import home_of, run_named

EXAMPLES = """\b
examples:
  flowertune report                        the run that started last
  flowertune report results/123456         a run by its folder (or its id)
  flowertune report --output run.html      write the page elsewhere
  flowertune report --tensorboard events   write event files for TensorBoard as well
"""


def report(
    run: RunName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The page.", show_default="report.html in the run's folder"
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write TensorBoard event files there.")
    ] = None,
    app: AppFolder = Path(),
    run_config: RunConfig = None,
) -> None:
    """Write one HTML page about a run (its id, or its folder).

    Official or not and why, plots of loss, learning rate and communication, settings, data,
    checkpoints with their sha256 and scores, every round, package versions. The page is one file
    with no scripts that loads nothing: open it anywhere, mail it, put it online. A run that still
    goes on is shown as far as it is. Scores are found in the folder scores of this folder and of
    the app's.
    """
    files = read_run(run_named(run, app, run_config))
    # Late: templates and plots are for those who want the page.
    from flowertune.base.files import write_atomically
    from flowertune.loggers.tensorboard import write_events
    from flowertune.report.facts import collect
    from flowertune.report.page import page

    target = output or files.folder / "report.html"
    home = home_of(files.folder, app)
    places = [Path.cwd(), *([home] if home else [])]
    text = page(collect(files, _defaults(home or app), places, _split(files.about, home or app)))
    try:
        write_atomically(target, text)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}; choose another place with "
            "--output."
        ) from None
    print(target)
    if tensorboard:
        write_events(tensorboard, files.rounds)
        print(f"{tensorboard}: tensorboard --logdir {tensorboard}")


def _split(about: Mapping[str, Any], app: Path) -> Any:
    """Return how a run's rows were dealt out, or why that is not known here; None: evenly."""
    settings = about.get("settings") or {}
    if settings.get("static.partitioner.name", IID) == IID:
        return None
    # Late: datasets takes seconds.
    from flowertune.data.rows import is_cached, is_local
    from flowertune.report.split import split_of

    try:
        cfg = check_settings(settings, app.resolve())
        name, nodes = cfg.static.dataset.name, about.get("supernodes")
        if not is_local(name) and not is_cached(name):
            return f"the rows of {name} are not on this machine"
        if not isinstance(nodes, int):
            return "run.json does not say how many SuperNodes there were"
        return split_of(cfg, nodes)
    except UserError as error:
        return one_line(error).rstrip(".")


def _defaults(app: Path) -> Mapping[str, Any] | None:
    try:
        return default_settings(app)
    except UnreadableApp:
        return None
