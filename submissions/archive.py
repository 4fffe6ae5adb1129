"""A bundle as somebody handed it in, a zip or a folder: read through a private copy of its files.

Nothing in it is executed, imported or unpickled. Every file is bounded before it is unpacked, and
everything that is wrong with the whole is said at once.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.hashing import json_sha256
from flowertune.base.text import is_utf8, one_line
from flowertune.base.untrusted import (
    JSON_BYTES,
    UnusableFile,
    copy_regular,
    open_untrusted,
    read_strict_json,
    strict_json,
)
from submissions import layout, names, zip_members
from submissions.zip_members import Member, UnusableZip

MOST_FILES = 4000
MOST_BYTES = 20 * 2**30  # of all files together
WEIGHTS_BYTES = 16 * 2**30
FILE_BYTES = 256 * 2**20  # of any other file
LINE_BYTES = 4 * 2**20
LINES = 2_000_000
RATIO = 200  # times that a member may unpack to, beyond its first megabyte
_SMALL = 2**20
_HEAD = 512
_SHOWN = 20  # sentences about one bundle


class UnusableBundle(UserError):
    """A bundle that cannot be read; ``problems`` holds a sentence for each thing wrong with it."""

    def __init__(self, given: Path, problems: list[str]) -> None:
        self.given, self.problems = given, problems
        super().__init__(f"{_shown(given)}: {' '.join(problems)}")


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle's files, in a private folder that is there until the block ends.

    Attributes
    ----------
    given
        The zip or folder, as the user named it.
    folder
        The private copy, laid out as ``layout`` says.
    sums
        sha256 of each file, by its name with slashes.
    sizes
        Bytes of each file.
    """

    given: Path
    folder: Path
    sums: Mapping[str, str]
    sizes: Mapping[str, int]
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __contains__(self, name: object) -> bool:
        return name in self.sums

    @property
    def digest(self) -> str:
        """sha256 over the names and contents of all files: equal for a zip and for its folder."""
        return json_sha256(dict(self.sums))

    def path(self, name: str) -> Path:
        """Return where a file's private copy lies."""
        return self.folder / name

    def below(self, folder: str) -> list[str]:
        """Return the names of the files in a folder and those below it, in order."""
        return sorted(name for name in self.sums if name.startswith(f"{folder}/"))

    def text(self, name: str, most: int = JSON_BYTES) -> str:
        """Return a text file.

        Raises
        ------
        UnusableFile
            It is missing, larger than ``most`` bytes, or no UTF-8.
        """
        self._there(name)
        with open_untrusted(self.path(name), most) as file:
            try:
                return file.read(most + 1).decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnusableFile(f"is no UTF-8 text (byte {error.start})") from None

    def json(self, name: str, most: int = JSON_BYTES) -> dict[str, Any]:
        """Return the JSON object in a file; read once.

        Raises
        ------
        UnusableFile
            It is missing, too large, too deep, or no JSON object as RFC 8259 has it.
        """
        if name not in self._read:
            self._there(name)
            self._read[name] = read_strict_json(self.path(name), most)
        return self._read[name]

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON object of each line of a file, one at a time.

        Raises
        ------
        UnusableFile
            It is missing, or a line is too long, blank, or no JSON object; gives its number.
        """
        for number, raw in enumerate(self.raw_lines(name), 1):
            try:
                body = strict_json(raw)
            except UnusableFile as error:
                raise UnusableFile(f"{error} in line {number:,}") from None
            if not isinstance(body, dict):
                raise UnusableFile(f"has no JSON object in line {number:,}")
            yield body

    def raw_lines(self, name: str) -> Iterator[bytes]:
        """Yield each line of a file as bytes, without its line feed.

        Raises
        ------
        UnusableFile
            It is missing, has too many lines, or a line is too long or not ended.
        """
        self._there(name)
        with open_untrusted(self.path(name), FILE_BYTES) as file:
            for number in range(1, LINES + 2):
                line = file.readline(LINE_BYTES + 1)
                if not line:
                    return
                if number > LINES:
                    break
                if not line.endswith(b"\n"):
                    what = f"is longer than {LINE_BYTES:,} bytes or" * (len(line) > LINE_BYTES)
                    raise UnusableFile(f"has a line {number:,} that {what} has no line feed")
                yield line[:-1]
        raise UnusableFile(f"has more than {LINES:,} lines")

    def _there(self, name: str) -> None:
        if name not in self.sums:
            raise UnusableFile("is missing")


@contextmanager
def opened(given: Path, weights: bool = True) -> Iterator[OpenedBundle]:
    """Copy a bundle to a private folder, which is removed at the end of the block.

    Parameters
    ----------
    given
        A zip, or the folder of an unpacked one.
    weights
        Whether the adapter's weights are copied as well; a reader of scores and curves does
        without, and then the bundle's digest is not that of the whole.

    Raises
    ------
    UnusableBundle
        It cannot be read, or holds what a bundle must not hold; has every sentence.
    """
    skip = frozenset() if weights else frozenset({layout.WEIGHTS})
    with TemporaryDirectory(prefix="flowertune-bundle-") as name:
        folder = Path(name) / "bundle"
        folder.mkdir()
        try:
            if not is_utf8(str(given)):
                raise UnusableBundle(given, ["Its name is no UTF-8 text: rename it."])
            mode = given.lstat().st_mode
            if stat.S_ISDIR(mode):
                sums, sizes = _copied_folder(given, folder, skip)
            else:
                sums, sizes = _unpacked(given, folder, skip)
        except FileNotFoundError:
            raise UnusableBundle(
                given, ["There is no such file or folder: give a bundle's zip, or its folder."]
            ) from None
        except UnusableFile as error:
            raise UnusableBundle(given, [f"It {error}."]) from None
        except UnusableZip as error:
            raise UnusableBundle(given, [_sentence(str(error))]) from None
        except OSError as error:
            raise UnusableBundle(
                given, [f"It cannot be copied to {folder.parent.parent} ({error.strerror})."]
            ) from None
        yield OpenedBundle(given, folder, sums, sizes)


Copied = tuple[dict[str, str], dict[str, int]]


def _unpacked(given: Path, folder: Path, skip: frozenset[str]) -> Copied:
    sums: dict[str, str] = {}
    sizes: dict[str, int] = {}
    with open_untrusted(given, MOST_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        found = zip_members.members(file, size, MOST_FILES)
        bounds = _bounded({m.name: m.size for m in found})
        _refuse(given, [*_named([m.name for m in found]), *bounds, *_bombs(found)])
        problems = []
        for member in found:
            if member.name in skip:
                continue
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                sums[member.name] = _write(target, zip_members.content(file, member))
            except UnusableZip as error:
                problems.append(_sentence(str(error)))
                continue
            sizes[member.name] = member.size
            problems += _contents(member.name, target)
    _refuse(given, problems)
    return sums, sizes


def _write(target: Path, pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _copied_folder(given: Path, folder: Path, skip: frozenset[str]) -> Copied:
    found: dict[str, Path] = {}
    problems = []
    waiting = [(given, "")]
    while waiting and len(found) <= MOST_FILES:
        place, above = waiting.pop()
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = f"{above}{entry.name}"
                if entry.is_symlink():
                    problems.append(
                        f"{_name(name)} is a symbolic link, and a bundle holds regular files."
                    )
                elif entry.is_dir():
                    # Its name is judged here, so that nothing too deep is walked.
                    if reason := names.problem(name):
                        problems.append(f"The name {_name(name)} {reason}.")
                    else:
                        waiting.append((Path(entry.path), f"{name}/"))
                elif not entry.is_file():
                    problems.append(f"{_name(name)} is no regular file.")
                else:
                    found[name] = Path(entry.path)
    if len(found) > MOST_FILES:
        problems.append(f"It has more than {MOST_FILES:,} files.")
    sizes = {name: path.lstat().st_size for name, path in found.items()}
    _refuse(given, [*problems, *_named(list(found)), *_bounded(sizes)])
    sums: dict[str, str] = {}
    for name, path in sorted(found.items()):
        if name in skip:
            del sizes[name]
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            sums[name] = copy_regular(path, target, _limit(name))
        except UnusableFile as error:
            problems.append(f"{_name(name)} {error}.")
            continue
        sizes[name] = target.stat().st_size
        problems += _contents(name, target)
    _refuse(given, problems)
    return sums, sizes


def _named(given: list[str]) -> list[str]:
    sentences = [
        f"The name {_name(name)} {reason}." for name in given if (reason := names.problem(name))
    ]
    sentences += [
        f"{_name(name)} {reason}." for name in given if (reason := names.kind_problem(name))
    ]
    return sentences + [f"{sentence}." for sentence in names.clashes(given)]


def _bounded(sizes: Mapping[str, int]) -> list[str]:
    sentences = [
        f"{_name(name)} has {size:,} bytes, and at most {_limit(name):,} are read."
        for name, size in sizes.items()
        if size > _limit(name)
    ]
    total = sum(sizes.values())
    if total > MOST_BYTES:
        sentences.append(
            f"Its files have {total:,} bytes together, and at most {MOST_BYTES:,} are read."
        )
    return sentences


def _limit(name: str) -> int:
    return WEIGHTS_BYTES if name == layout.WEIGHTS else FILE_BYTES


def _bombs(found: Iterable[Member]) -> list[str]:
    return [
        f"{_name(m.name)} unpacks {m.packed:,} bytes to {m.size:,}, and at most {RATIO} times as "
        "much is read."
        for m in found
        if m.size > _SMALL + RATIO * m.packed
    ]


def _contents(name: str, copy: Path) -> list[str]:
    with copy.open("rb") as file:
        reason = names.content_problem(file.read(_HEAD))
    return [f"{_name(name)} {reason}."] if reason else []


def _refuse(given: Path, problems: list[str]) -> None:
    if not problems:
        return
    once = list(dict.fromkeys(problems))
    more = len(once) - _SHOWN
    if more > 0:
        once = [*once[:_SHOWN], f"And {more:,} more sentences of this kind."]
    raise UnusableBundle(given, once)


def _name(name: str) -> str:
    return names.shown(name)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _shown(path: Path) -> str:
    return one_line(str(path), 300)
