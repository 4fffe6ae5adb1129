"""Which commit of the hub a base model was read from."""

from flowertune.config.settings import Settings
from flowertune.models.config import read_config
from flowertune.models.loader import settings_source


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
