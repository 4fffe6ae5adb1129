"""Where a run's results go, whichever folder its SuperLink was started in."""

import importlib.metadata
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home
from flowertune.base.versions import read_direct_url
from flowertune.config.apps import app_id, recorded_folder
from flowertune.config.settings import Settings

APPS = "apps"  # beneath Flower's home
SETTING = "results-dir in [tool.flwr.app.config] of pyproject.toml"


def results_root(cfg: Settings, app_dir: Path, env: Mapping[str, str]) -> Path:
    """The folder that holds the results of all runs of this app.

    An absolute ``results-dir`` is used as it is. A relative one lies in the folder that
    ``own_folder`` finds. Where none is known it is
    ``$FLWR_HOME/flowertune/results/<project name>``. The working directory plays no part.

    Parameters
    ----------
    cfg
        The run-config.
    app_dir
        The app's folder, or the copy of it that Flower sent; it holds the pyproject.toml.
    env
        The environment variables.

    Raises
    ------
    UserError
        ``app_dir`` holds no app.
    """
    given = Path(cfg.results_dir).expanduser()
    if given.is_absolute():
        return given
    app = app_id(app_dir)
    if app is None:
        raise UserError(f"{app_dir} holds no pyproject.toml with a project name and a publisher.")
    own = own_folder(app_dir, env)
    if own is not None:
        return own / given
    return (flower_home(env) / "flowertune" / "results" / app.split("/")[1]).absolute()


def own_folder(app_dir: Path, env: Mapping[str, str]) -> Path | None:
    """Return the folder of the app that the participant edits; None if it is not on this machine.

    It is ``app_dir`` itself unless that is a copy that Flower sent. For a copy it is the folder
    that `flwr run` or ``flowertune connect`` wrote down last, else that of the editable install,
    each only if the same app (publisher and name) still lies there.
    """
    app = app_id(app_dir)
    if app is None:
        return None
    if not is_sent_copy(app_dir, env):
        return app_dir
    recorded = recorded_folder(flower_home(env), app)
    return choose_folder(app, (recorded, editable_folder(app.split("/")[1])))


def is_sent_copy(app_dir: Path, env: Mapping[str, str]) -> bool:
    """Whether a folder is one into which Flower unpacks the apps that are sent."""
    return app_dir.resolve().parent == (flower_home(env) / APPS).resolve()


def choose_folder(app: str, candidates: tuple[Path | None, ...]) -> Path | None:
    """The first candidate where an app of this id (``publisher/project-name``) lies."""
    for folder in candidates:
        if folder is not None and app_id(folder) == app:
            return folder
    return None


def editable_folder(project_name: str) -> Path | None:
    """The source folder of a distribution that was installed with ``pip install -e``."""
    try:
        text = importlib.metadata.distribution(project_name).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    return editable_source(text)


def editable_source(direct_url: str | None) -> Path | None:
    """The folder named by the content of a ``direct_url.json`` (PEP 610), if it is editable."""
    record = read_direct_url(direct_url)
    try:
        url = urlsplit(record["url"])
        editable = record["dir_info"]["editable"]
    except (ValueError, KeyError, TypeError):
        return None
    return Path(url2pathname(url.path)) if editable and url.scheme == "file" else None


def run_folder(root: Path, run_id: int | str) -> Path:
    """Make the folder of one run, and make sure that it can be written.

    Raises
    ------
    UserError
        It cannot be made or written, with the system's reason.
    """
    folder = root / str(run_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"Results cannot be written to {folder}: {reason}; set {SETTING} to a folder that "
            "can be written and has room."
        ) from error
    return folder
