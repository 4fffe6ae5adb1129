"""Which names a file in a bundle may have: the same file on every system, inside its folder."""

import unicodedata
from collections.abc import Iterable

from flowertune.base.text import is_utf8, one_line

_PART, _WHOLE = 255, 1024  # bytes that file systems and zip programs take
_DEPTH = 16
_NOT_ON_WINDOWS = frozenset('<>:"|?*')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in "123456789")}
# What some reader would have to unpickle, import or execute.
_CODE = {
    ".pkl": "a pickle", ".pickle": "a pickle", ".joblib": "a pickle", ".dill": "a pickle",
    ".pt": "a pickle of torch", ".pth": "a pickle of torch", ".ckpt": "a pickle of torch",
    ".bin": "a pickle of torch", ".npy": "an array that may hold a pickle",
    ".npz": "an array that may hold a pickle", ".pyc": "compiled code", ".pyo": "compiled code",
    ".so": "compiled code", ".dll": "compiled code", ".dylib": "compiled code",
    ".pyd": "compiled code", ".exe": "a program",
}  # fmt: skip
_ARCHIVES = (
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lz4", ".whl", ".fab",
    ".jar",
)  # fmt: skip


def shown(name: str) -> str:
    """Return a file's name as it stands in a sentence."""
    return one_line(ascii(name), 120)


def problem(name: str) -> str | None:
    """Return what is wrong with a file's name, to stand after the name; None if nothing is."""
    if not name:
        return "is empty"
    if not is_utf8(name):
        return "is no UTF-8 text"
    if "\\" in name:
        return "holds a backslash, which some systems read as a folder"
    if name.startswith("/"):
        return "is an absolute path"
    if len(name.encode()) > _WHOLE:
        return f"has more than {_WHOLE:,} bytes"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    parts = name.split("/")
    if len(parts) > _DEPTH:
        return f"is more than {_DEPTH} folders deep"
    return next((found for part in parts if (found := _part(part)) is not None), None)


def _part(part: str) -> str | None:
    if part == "..":
        return "leads out of the bundle's folder"
    if part in ("", "."):
        return "has an empty part"
    if len(part.encode()) > _PART:
        return f"has a part of more than {_PART} bytes"
    if _NOT_ON_WINDOWS & set(part):
        return 'holds a character that not every system allows in a name (< > : " | ? *)'
    if part[-1] in " .":
        return "has a part that ends with a blank or a dot, which some systems drop"
    if part.partition(".")[0].lower() in _DEVICES:
        return "names a device on some systems"
    return None


def kind_problem(name: str) -> str | None:
    """Return why a file with such a name is not taken, judged by its ending; None if it is."""
    lower = name.lower()
    for ending, what in _CODE.items():
        if lower.endswith(ending):
            return f"is {what}, which could run code when it is read"
    if lower.endswith(_ARCHIVES):
        return "is an archive, and a bundle holds none"
    return None


def content_problem(head: bytes) -> str | None:
    """Return why a file that begins so (its first 512 bytes) is not taken; None if it is."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle, which could run code when it is read"
    if head.startswith(b"\x93NUMPY"):
        return "is an array that may hold a pickle, which could run code when it is read"
    if head.startswith((b"\x7fELF", b"MZ")):
        return "is a program"
    begins = (
        b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
        b"7z\xbc\xaf\x27\x1c", b"Rar!",
    )  # fmt: skip
    if head.startswith(begins) or head[257:262] == b"ustar":
        return "is an archive, and a bundle holds none"
    return None


def clashes(names: Iterable[str]) -> list[str]:
    """Return a sentence for each pair of names that some system takes for one, or cannot hold."""
    sentences = []
    first: dict[str, str] = {}
    for name in names:
        key = _folded(name)
        if key in first:
            other = first[key]
            sentences.append(
                f"{shown(name)} is there twice"
                if name == other
                else f"{shown(name)} and {shown(other)} are one name on some systems"
            )
        first.setdefault(key, name)
    for key, name in first.items():
        parts = key.split("/")
        above = ("/".join(parts[:n]) for n in range(1, len(parts)))
        if clash := next((first[path] for path in above if path in first), None):
            sentences.append(f"{shown(clash)} is a file, and {shown(name)} needs it as a folder")
    return sentences


def _folded(name: str) -> str:
    # Some systems compare names without case, some compose accents: both at once.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
