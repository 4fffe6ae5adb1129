"""The shapes of the configured model, from what ships, a folder or the hub; weights stay unread."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flowertune.aggregation.dtypes import FLOATS, OF_SETTING
from flowertune.aggregation.plan import Tensor
from flowertune.aggregation.sources import has_weights, read_header, weight_files
from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.config.paths import is_path, local_path
from flowertune.config.settings import Settings
from flowertune.models import smollm2
from flowertune.models.resolve import resolve_model

# Small files beside the weights, which a folder needs to be loaded.
BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")


@cache
def known_shapes() -> dict[str, Any]:
    """Return the shapes that ship with the library, by model name."""
    text = Path(__file__).with_name("known_shapes.json").read_text("utf-8")
    known = json.loads(text)
    return {name: known[entry["as"]] if "as" in entry else entry for name, entry in known.items()}


def tensors_of(entry: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of an entry of ``known_shapes``, whose layers are written once."""
    layers = [
        (name.format(layer), shape)
        for layer in range(entry["layers"])
        for name, shape in entry["layer"].items()
    ]
    shapes = [*entry["ends"].items(), *layers]
    return [Tensor(name, tuple(shape), entry["dtype"]) for name, shape in shapes]


def wire_dtype(cfg: Settings) -> str | None:
    """Return the kind of values that whole models travel in; None is that of the checkpoint."""
    return OF_SETTING.get(cfg.model.dtype)


def as_sent(tensors: Iterable[Tensor], cfg: Settings) -> list[Tensor]:
    """Return tensors with the kind of values that they travel in."""
    wanted = wire_dtype(cfg)
    return [
        Tensor(t.name, t.shape, wanted if wanted and t.dtype in FLOATS else t.dtype)
        for t in tensors
    ]


def model_tensors(cfg: Settings) -> list[Tensor]:
    """Return the tensors of ``model.name`` as they travel.

    Raises
    ------
    UserError
        If the shapes cannot be had.
    """
    name = cfg.model.name
    if cfg.model.weights == "synthetic" and name in known_shapes():
        return as_sent(tensors_of(known_shapes()[name]), cfg)
    if is_path(name) or name == smollm2.NAME:
        return as_sent(folder_tensors(folder_of(cfg)), cfg)
    return as_sent(_of_hub(cfg), cfg)


def folder_tensors(folder: Path) -> list[Tensor]:
    """Return the tensors in a folder's safetensors files, from their headers."""
    headers = [read_header(path)[0] for path in weight_files(folder)]
    return [
        Tensor(name, tuple(entry["shape"]), entry["dtype"])
        for header in headers
        for name, entry in header.items()
    ]


def folder_of(cfg: Settings) -> Path:
    """Return the folder of a model that is a path or built in.

    Raises
    ------
    UserError
        If it is not there.
    """
    if is_path(cfg.model.name):
        folder = local_path(cfg.model.name, cfg.app_dir)
        if not folder.is_dir():
            raise UserError(
                f"model.name is {cfg.model.name!r}, but there is no folder {folder}; give a "
                "folder written by save_pretrained, or a hub id."
            )
        return folder
    return Path(resolve_model(cfg.model.name, cfg.model.revision, cfg.app_dir))


def fetched_folder(cfg: Settings) -> Path:
    """Return the folder with the model's weights; those of a hub id are fetched on first use.

    Raises
    ------
    UserError
        If they cannot be had; says what works without the hub.
    """
    name = cfg.model.name
    if is_path(name) or name == smollm2.NAME:
        return folder_of(cfg)
    return Path(_hub_files(cfg, ("*.safetensors", *BESIDE)))


def files_beside(cfg: Settings) -> dict[str, str]:
    """Return the small text files that belong beside the averaged weights, by name."""
    name = cfg.model.name
    if cfg.model.weights == "synthetic" and name in known_shapes():
        return {"config.json": json.dumps(known_shapes()[name]["config"], indent=2) + "\n"}
    local = is_path(name) or name == smollm2.NAME
    folder = folder_of(cfg) if local else Path(_hub_files(cfg, BESIDE))
    beside = sorted({path for pattern in BESIDE for path in folder.glob(pattern)})
    texts = {
        path.name: path.read_text("utf-8")
        for path in beside
        if path.is_file() and not path.name.endswith(".index.json") and _is_text(path)
    }
    if wire_dtype(cfg) and "config.json" in texts:
        # from_pretrained loads what config.json says, whatever the files hold.
        config = json.loads(texts["config.json"])
        config.pop("torch_dtype", None)
        config["dtype"] = cfg.model.dtype
        texts["config.json"] = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return texts


def _is_text(path: Path) -> bool:
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _refusal(cfg: Settings, reason: str) -> UserError:
    known = ", ".join(known_shapes())
    return hub.refusal(
        "model.name",
        cfg.model.name,
        cfg.model.revision,
        reason,
        "a local folder works, and model.weights='synthetic' tries out the sizes of "
        f"{known} with made-up weights",
    )


def _of_hub(cfg: Settings) -> list[Tensor]:
    # Late: a client's process starts for every message, and few of them ask the hub.
    from huggingface_hub import get_safetensors_metadata

    name = cfg.model.name
    if not hub.is_hub_id(name):
        raise _refusal(cfg, hub.NO_HUB_ID)
    if not hub.reachable():
        folder = _cached_folder(cfg)
        if folder is None or not has_weights(folder):
            raise _refusal(cfg, hub.NO_ANSWER)
        return folder_tensors(folder)
    try:
        metadata = get_safetensors_metadata(name, revision=cfg.model.revision)
    except Exception as error:  # the HTTP library raises many kinds
        raise _refusal(cfg, hub.why_not(error)) from error
    return [
        Tensor(key, tuple(info.shape), str(info.dtype))
        for file in metadata.files_metadata.values()
        for key, info in file.tensors.items()
    ]


def _cached_folder(cfg: Settings) -> Path | None:
    """Return what the hub's cache has of the model; None where it has nothing."""
    # Late, as above.
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(_fetched(cfg.model.name, cfg.model.revision, ("*.safetensors", *BESIDE)))
    except LocalEntryNotFoundError:
        return None


def _hub_files(cfg: Settings, patterns: Iterable[str]) -> str:
    try:
        return _fetched(cfg.model.name, cfg.model.revision, tuple(patterns))
    except Exception as error:  # the HTTP library raises many kinds
        raise _refusal(cfg, hub.why_not(error)) from error


@cache
def _fetched(name: str, revision: str, patterns: tuple[str, ...]) -> str:
    # Once in a process: a branch that moves during a round would change the client's content.
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name,
        revision=revision,
        allow_patterns=list(patterns),
        local_files_only=not hub.reachable(),
        etag_timeout=10,
    )
