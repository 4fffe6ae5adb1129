"""The files that an official run leaves as they are, and whether they are."""

import hashlib
import json
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def sha256(path: Path) -> str:
    """Return the sha256 of a text file's content, whatever its line endings."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def expected() -> dict[str, str]:
    """Return the sha256 of each protected file, by its path in the package (protected.json)."""
    return json.loads((PACKAGE / "rules" / "protected.json").read_text("utf-8"))


def changed(package: Path = PACKAGE) -> list[str]:
    """Return the protected files of ``package`` that are missing or differ, sorted."""
    return sorted(
        name
        for name, known in expected().items()
        if not (package / name).is_file() or sha256(package / name) != known
    )
