"""Find a checkpoint and its base model, before anything is loaded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_json
from flowertune.models.resolve import folder_of, resolve_model
from flowertune.rules.checkpoint import CONFIG, saved_checkpoints

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Choice:
    """What to talk to.

    Attributes
    ----------
    base
        What ``from_pretrained`` takes for the base model: a folder or a hub id.
    revision
        Of the base model on the hub.
    adapter
        The PEFT folder; None for the base model alone.
    manifest
        The content of the checkpoint's manifest.json; empty where there is none.
    """

    base: str
    revision: str = "main"
    adapter: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict)


def choose(peft_path: Path | None, model: str | None) -> Choice:
    """Return the checkpoint and the base model that ``--peft-path`` and ``--model`` name.

    Raises
    ------
    UserError
        If neither is given, if a folder is missing or is no PEFT checkpoint, or if the base model
        is not available.
    """
    if peft_path is None:
        if model is None:
            raise UserError(
                "No model is given: use --peft-path results/<run id>/peft_<round> for a checkpoint "
                "or --model for a model without one."
            )
        return Choice(_given(model))
    folder = find_checkpoint(peft_path)
    config, manifest = read_json(folder / CONFIG), read_json(folder / "manifest.json")
    if config is None:
        raise UserError(f"{folder / CONFIG} is damaged: it is no JSON object.")
    recorded = (manifest or {}).get("base-model") or {}
    revision = config.get("revision") or recorded.get("revision") or "main"
    base = _given(model) if model else _base_of(folder, config, recorded, revision)
    return Choice(base, revision, folder, manifest or {})


def find_checkpoint(given: Path) -> Path:
    """Return the PEFT folder itself, or the newest one in the folder of a run.

    Raises
    ------
    UserError
        If the folder is missing or holds no checkpoint.
    """
    folder = given.expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--peft-path is {str(given)!r}, and there is no such folder; give one like "
            "results/<run id>/peft_<round>."
        )
    if (folder / CONFIG).is_file():
        if any((folder / name).is_file() for name in WEIGHTS):
            return folder
        raise UserError(f"{folder} is an incomplete PEFT checkpoint: {WEIGHTS[0]} is missing.")
    if saved := saved_checkpoints(folder):
        return find_checkpoint(saved[-1])
    whole = [path for path in (folder, *sorted(folder.glob("model_*"))) if _is_model(path)]
    hint = f" There is a whole model: --model {whole[-1]}" if whole else ""
    raise UserError(
        f"{folder} is no PEFT checkpoint and no run with one: it holds neither {CONFIG} nor a "
        f"folder peft_<round>.{hint}"
    )


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _given(model: str) -> str:
    # A path on the command line is relative to the current folder; in the settings, to the app's.
    folder = folder_of(model)
    name = str(folder.resolve()) if folder else model
    return resolve_model(name, "main", Path(), named="--model")


def _base_of(folder: Path, config: dict[str, Any], recorded: dict[str, Any], revision: str) -> str:
    path = config.get("base_model_name_or_path")
    if isinstance(path, str) and _is_model(Path(path)):
        return path
    # A path on another machine is useless here, but the name in the manifest may be enough.
    name = recorded.get("name") or path
    if not isinstance(name, str) or not name:
        raise UserError(f"{folder} does not name its base model; give it with --model.")
    try:
        return resolve_model(name, revision, Path(), named=f"the base model of {folder}")
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('.')}; name it with --model.") from None
