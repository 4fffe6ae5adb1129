"""Which commit of the hub a base model was read from, and whether the rules pin that."""

from flowertune.config.settings import Settings
from flowertune.models.config import read_config
from flowertune.models.loader import settings_source
from flowertune.models.pinned_files import other_files
from flowertune.rules.lock import static_values
from flowertune.rules.pinned import OTHER, VERIFIED, model_status, pins_of


def commit_of(cfg: Settings) -> str | None:
    """Return the commit that ``model.revision`` stands for; None for a folder.

    Raises
    ------
    UserError
        If the model's config.json cannot be had.
    """
    source = settings_source(cfg, weights=False)
    # transformers notes it when it reads a file of the hub, or of the hub's cache.
    return None if source.folder else getattr(read_config(source), "_commit_hash", None)


def base_model_status(cfg: Settings, commit: str | None) -> str:
    """Return "verified", "other" or, where the rules pin none, "unverified" of a run's base model.

    A model of the hub is told by its commit, one in a folder by its files, which are read for that.

    Raises
    ------
    UserError
        If the model cannot be had.
    """
    static = static_values(cfg)
    pinned, folder = pins_of(static).get("model"), settings_source(cfg, weights=False).folder
    if pinned is None or folder is None:
        return model_status(static, cfg.model.name, commit)
    return OTHER if other_files(folder, pinned["files"]) else VERIFIED
