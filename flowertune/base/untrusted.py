"""Files that somebody else wrote: read whole, within limits, and never through a link."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flowertune.base.files import open_regular
from flowertune.base.text import is_utf8, one_line

JSON_BYTES = 8 * 2**20
JSON_DEPTH = 32
JSON_VALUES = 100_000
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


HALF_A_PAIR = "holds half a surrogate pair, which is no text"


class UnusableFile(ValueError):
    """A file is not what it should be; the text continues a sentence that begins with its name."""


@contextmanager
def open_untrusted(path: Path, most: int) -> Iterator[BinaryIO]:
    """Yield a regular file of at most ``most`` bytes, open for reading.

    Its last component is not followed where it is a link, and a named pipe does not block.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnusableFile
        It is something else than a regular file, is larger, or cannot be opened.
    """
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise UnusableFile(f"is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, not a regular file")
        # The file may have been exchanged since: the open file is what counts.
        opened = open_regular(path, os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableFile(f"cannot be opened ({error.strerror})") from None
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UnusableFile(f"has {size:,} bytes, and at most {most:,} are read")
        yield file


def copy_regular(source: Path, target: Path, most: int) -> str:
    """Copy a regular file of at most ``most`` bytes to a new file; return its sha256, in hex.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnusableFile
        It cannot be used, as with ``open_untrusted``, or it grew while it was copied.
    OSError
        ``target`` cannot be written, or exists.
    """
    digest, left = hashlib.sha256(), most
    with open_untrusted(source, most) as file, target.open("xb") as copy:
        while piece := file.read(2**20):
            left -= len(piece)
            if left < 0:
                raise UnusableFile(f"grew beyond {most:,} bytes while it was read")
            digest.update(piece)
            copy.write(piece)
    return digest.hexdigest()


def read_strict_json(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object that a regular file of at most ``most`` bytes holds.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnusableFile
        It cannot be read, or ``strict_json`` refuses what it holds.
    """
    with open_untrusted(path, most) as file:
        body = strict_json(file.read(most + 1))
    if not isinstance(body, dict):
        raise UnusableFile("is not a JSON object")
    return body


def strict_json(data: bytes) -> Any:
    """Return a JSON value as RFC 8259 has it, nested at most ``JSON_DEPTH`` deep.

    It holds at most ``JSON_VALUES`` values.

    Raises
    ------
    UnusableFile
        It is no UTF-8 or no JSON, names a key twice, is nested deeper, or holds more values, NaN,
        an infinite number or half a surrogate pair.
    """
    # Each value but the first follows one of these. Some may be part of a text: a bound, found
    # before objects are made.
    if sum(map(data.count, (b",", b"[", b"{"))) > JSON_VALUES:
        raise UnusableFile(f"holds more than {JSON_VALUES:,} values")
    try:
        body = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise UnusableFile(f"is nested more than {JSON_DEPTH} deep") from None
    except UnusableFile:
        raise
    except UnicodeDecodeError as error:
        raise UnusableFile(f"is no UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UnusableFile(f"is no JSON ({one_line(error)})") from None
    _check(body)
    return body


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object from its pairs: an ``object_pairs_hook`` for ``json.loads``.

    Raises
    ------
    UnusableFile
        It names a key twice.
    """
    body = dict(pairs)
    if len(body) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise UnusableFile(f"names {one_line(ascii(twice), 60)} twice")
    return body


def _no_constant(name: str) -> Any:
    raise UnusableFile(f"holds {name}, which is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise UnusableFile(f"holds {one_line(text, 40)}, which no float can hold")
    return number


def _check(body: Any) -> None:
    waiting = [(body, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > JSON_DEPTH:
            raise UnusableFile(f"is nested more than {JSON_DEPTH} deep")
        if isinstance(value, str) and not is_utf8(value):
            raise UnusableFile(HALF_A_PAIR)
        if isinstance(value, dict):
            waiting += [(key, depth) for key in value]
            waiting += [(item, depth + 1) for item in value.values()]
        if isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
