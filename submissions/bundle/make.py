"""Make one bundle: files, sums, signatures, and the check that the organizer will make, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.rules.checkpoint import SHORT
from submissions.bundle import statement as statements
from submissions.bundle.contents import Extras, contents
from submissions.bundle.packing import Content, write_zip
from submissions.bundle.sources import Sources, Unfit


@dataclass(frozen=True)
class Bundle:
    """A bundle that is not written yet.

    Attributes
    ----------
    statement
        What submission.json says.
    files
        Every file, by its name.
    """

    statement: dict[str, Any]
    files: dict[str, Content]

    @property
    def name(self) -> str:
        """What its file is called by default."""
        body = self.statement
        digest = body["checkpoint"]["digest"][:SHORT]
        return f"{body['challenge']}-{statements.slug(body['team'])}-{digest}.zip"


def assemble(sources: Sources, said: statements.Said, extras: Extras | None = None) -> Bundle:
    """Return a bundle with everything that it has to hold, but for signatures.

    Raises
    ------
    Unfit
        Something that the participant has to say is missing or wrong; with every sentence.
    """
    body = statements.statement(sources, said)
    if wrong := statements.problems(body, sources.manifest):
        raise Unfit(wrong)
    return Bundle(body, contents(sources, body, extras))


def tree(files: Mapping[str, Content]) -> str:
    """Return the names of files as a tree, with their bytes."""
    lines: list[str] = []
    above: Sequence[str] = ()
    for name in sorted(files, key=lambda n: n.split("/")):
        *folders, last = name.split("/")
        for depth, folder in enumerate(folders):
            if list(above[: depth + 1]) != folders[: depth + 1]:
                lines.append(f"{'  ' * depth}{folder}/")
        above = folders
        content = files[name]
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        lines.append(f"{'  ' * len(folders)}{last}  {size:,}")
    return "\n".join(lines)


def write(bundle: Bundle, target: Path) -> None:
    """Write a bundle's zip, whole or not at all.

    Raises
    ------
    OSError
        A file cannot be read, or the zip cannot be written.
    """
    write_zip(target, bundle.files)


def unpacked(bundle: Bundle) -> TemporaryDirectory:
    """Return a folder with a copy of every file, which is removed when it is closed."""
    folder = TemporaryDirectory(prefix="flowertune-bundle-")
    for name, content in bundle.files.items():
        path = Path(folder.name) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder
