"""The manifest: how a checkpoint was made, written beside its weights."""

from collections.abc import Mapping
from typing import Any

from flowertune.base.hashing import json_sha256

FILE = "manifest.json"
SEAL = "manifest-sha256"


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the sha256 of its own content.

    It shows an honest mistake, such as an edited file; it does not stop a forger.
    """
    body = {key: manifest[key] for key in manifest if key != SEAL}
    return {**body, SEAL: json_sha256(body)}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is unchanged since it was written."""
    return manifest.get(SEAL) == seal(manifest)[SEAL]
