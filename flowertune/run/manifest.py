"""The manifest: how a checkpoint was made, written beside its weights."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FILE = "manifest.json"
PACKAGES = (
    "flwr", "flwr-datasets", "torch", "transformers", "peft", "bitsandbytes", "datasets", "ray",
    "numpy", "safetensors", "tokenizers",
)  # fmt: skip


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the sha256 of its own content.

    It shows an honest mistake, such as an edited file; it does not stop a forger.
    """
    body = {key: manifest[key] for key in manifest if key != "manifest-sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {**body, "manifest-sha256": hashlib.sha256(text.encode("ascii")).hexdigest()}
