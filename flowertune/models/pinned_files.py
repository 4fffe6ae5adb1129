"""Whether a model's files on this machine are those that the rules pin."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowertune.base.hashing import file_sha256

# What transformers reads of a model beside these is of no weight.
_READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".py", ".jinja")


def other_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of files in a model's folder that are other than pinned, sorted.

    Files that are not there are none: of several forms of its weights, only one is read. A folder
    without a file that is pinned is other as a whole. Weights are read once: 14 GB take 10 to 30 s.

    Parameters
    ----------
    folder : Path
        The model's folder, or its snapshot in the hub's cache.
    files : Mapping[str, Mapping[str, Any]]
        Path in the repository -> bytes, and sha256 or git-sha1.
    """
    there = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in _READ
    ]
    wrong = [name for name in there if not _is(folder / name, files.get(name, {}))]
    if not wrong and not {*there} & {*files}:
        return ["all files"]
    return wrong


def _is(path: Path, about: Mapping[str, Any]) -> bool:
    stat = path.stat()
    if about.get("bytes") != stat.st_size:
        return False
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if "sha256" in about:
        return _sha256(*key) == about["sha256"]
    return _git_sha1(*key) == about.get("git-sha1")


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int) -> str:
    # The links of the hub's cache lead to its files.
    return file_sha256(Path(path).resolve())


@lru_cache(maxsize=256)
def _git_sha1(path: str, size: int, changed: int) -> str:
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
