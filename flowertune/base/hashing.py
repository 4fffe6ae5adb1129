"""Digests of files and of JSON values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.files import open_regular


def file_sha256(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, in hex.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the sha256 of a JSON object, whatever the order of its keys, or array, in hex."""
    body = dict(value) if isinstance(value, Mapping) else value
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
