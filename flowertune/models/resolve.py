"""From ``model.name`` to something that ``from_pretrained`` takes."""

from functools import lru_cache
from pathlib import Path

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.config.paths import is_path, local_path
from flowertune.models import smollm2
from flowertune.models.weights import WEIGHTS, problem_of

OFFLINE = f"a local folder (/path/to/model) or the built-in {smollm2.NAME!r} work"


def resolve_model(
    name: str,
    revision: str,
    app_dir: Path,
    weights: bool = True,
    named: str = "model.name",
) -> str:
    """What ``from_pretrained`` takes for ``model.name``: an absolute path, or a hub id.

    A path is checked to hold a model; the built-in model is fetched on first use; of a hub id
    only config.json is fetched, so that a missing or gated model is known before its weights are
    asked for. Cached by its arguments.

    Parameters
    ----------
    app_dir : Path
        The app's folder, where a relative path starts.
    weights : bool
        Whether its weights must be there; else its configuration is enough.
    named : str
        What gave the name, for errors.

    Raises
    ------
    UserError
        If the model cannot be had.
    """
    return _resolve(name, revision, app_dir, weights, named)


@lru_cache(maxsize=16)
def _resolve(name: str, revision: str, app_dir: Path, weights: bool, named: str) -> str:
    if name == smollm2.NAME:
        return str(smollm2.fetch())
    if is_path(name):
        return str(check_folder(name, local_path(name, app_dir), weights, named))
    check_hub(name, revision, weights, named)
    return name


def folder_of(model: str) -> Path | None:
    """Return the folder that a model on a command line names; None for any other name.

    There a path starts where the user is, and may go without its ./ where the folder exists.
    """
    path = Path(model).expanduser()
    return path if is_path(model) or path.is_dir() else None


def check_folder(name: str, folder: Path, weights: bool = True, named: str = "model.name") -> Path:
    """Return the folder if it holds a model that ``from_pretrained`` takes, in whole files.

    Raises
    ------
    UserError
        If it does not; says what is missing.
    """
    if not folder.is_dir():
        missing = f"there is no folder {folder}"
    elif (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        missing = f"{folder} holds a PEFT adapter, not a base model"
    elif not (folder / "config.json").is_file():
        missing = f"{folder} holds no config.json"
    elif (missing := problem_of(folder, weights)) is None:
        return folder
    raise UserError(
        f"{named} is {name!r}, but {missing}; give a folder written by save_pretrained, a hub "
        f"id, or {smollm2.NAME!r}."
    )


def check_hub(name: str, revision: str, weights: bool = True, named: str = "model.name") -> None:
    """Make sure that a model of the hub can be had, or is in the hub's cache on this machine.

    Raises
    ------
    UserError
        If it cannot; says why, and what works without the hub.
    """
    # Late: local models need no hub, and it takes a part of a second to import.
    from huggingface_hub import hf_hub_download

    if not hub.is_hub_id(name):
        raise hub.refusal(named, name, revision, hub.NO_HUB_ID, OFFLINE)
    online = hub.reachable()
    try:
        config = hf_hub_download(
            name, "config.json", revision=revision, local_files_only=not online, etag_timeout=10
        )
    except Exception as error:  # the HTTP library raises many kinds
        reason = hub.why_not(error)
    else:
        if online or not weights or any((Path(config).parent / file).is_file() for file in WEIGHTS):
            return
        reason = f"{hub.NO_ANSWER} and its weights are not in the cache of this machine"
    raise hub.refusal(named, name, revision, reason, OFFLINE)
