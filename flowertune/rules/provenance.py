"""Which library runs: its version, and a digest of the files that are installed.

What a run says of its library is a claim. It finds an honest mistake, and whoever doubts it can
train the run again with the release of that digest; it cannot stop somebody who makes it up.
"""

import base64
import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowertune.base.hashing import file_sha256
from flowertune.base.versions import read_direct_url

NAME = "flowertune"
PACKAGES = ("flowertune", "evaluation", "challenges", "submissions")
# The record of releases holds the digest of each release, so it cannot be part of one.
OUTSIDE = "challenges/published/"


@dataclass(frozen=True)
class Library:
    """The installed library: version, sha256 of its files, and how it was installed.

    ``edited`` names files that are not as the installer wrote them.
    """

    version: str
    sha256: str
    editable: bool = False
    edited: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "edited": list(self.edited)}

    @classmethod
    def of(cls, body: Any) -> "Library":
        """Return what ``record`` made JSON of.

        Raises
        ------
        TypeError, KeyError
            If it is something else.
        """
        edited = body["edited"]
        if not all(isinstance(text, str) for text in (body["version"], body["sha256"], *edited)):
            raise TypeError("version, sha256 and edited files of a library are texts")
        return cls(body["version"], body["sha256"], body["editable"] is True, tuple(edited))


def library_files() -> dict[str, Path]:
    """Return every file of the library but bytecode and the record of releases, by its name."""
    files = {}
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            root = Path(place)
            for path in sorted(root.rglob("*")):
                name = f"{package}/{path.relative_to(root).as_posix()}"
                hidden = "__pycache__" in path.parts or path.suffix in (".pyc", ".pyo")
                if path.is_file() and not hidden and not name.startswith(OUTSIDE):
                    files[name] = path
    return files


def digest_of(files: dict[str, Path]) -> str:
    """Return the sha256 over names and contents of files, in the order of names."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{file_sha256(files[name])}\n".encode())
    return whole.hexdigest()


def code_digest(package: Path) -> str:
    """Return the sha256 of the Python files of an app's package, whatever folder it lies in."""
    return digest_of({p.relative_to(package).as_posix(): p for p in package.rglob("*.py")})


@cache
def installed_library() -> Library:
    """Return the library that this process runs; looked at once."""
    files = library_files()
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return Library("none", digest_of(files), editable=True)
    editable = _is_editable(installed, files)
    edited = () if editable else _edited(installed, files)
    return Library(installed.version, digest_of(files), editable, edited)


def _is_editable(installed: Distribution, files: dict[str, Path]) -> bool:
    origin = read_direct_url(installed.read_text("direct_url.json"))
    if origin.get("dir_info", {}).get("editable"):
        return True
    # A checkout that comes first on the path is as good as an editable install.
    own = f"{NAME}/__init__.py"
    return Path(str(installed.locate_file(own))).resolve() != files[own].resolve()


def _edited(installed: Distribution, files: dict[str, Path]) -> tuple[str, ...]:
    wrote = {str(path): path.hash for path in installed.files or () if path.hash is not None}
    edited = []
    for name, path in files.items():
        known = wrote.get(name)
        digest = hashlib.sha256(path.read_bytes()).digest()
        # RECORD writes digests in base64, without padding.
        value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if known is None or (known.mode, known.value) != ("sha256", value):
            edited.append(name)
    return tuple(edited)
