"""Make one bundle: files, sums, signatures, and the check that the organizer will make, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.base.text import one_line
from flowertune.rules.checkpoint import SHORT
from submissions import layout
from submissions.bundle import statement as statements
from submissions.bundle.contents import Extras, as_json, contents
from submissions.bundle.packing import Content, write_zip
from submissions.bundle.sources import BUNDLE, COMMAND, SCORE, Problem, Sources, Unfit
from submissions.signing import model_signing, signature
from submissions.signing.keys import PrivateKey


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
        Something that the participant says is missing or wrong, or the score's files are not as the
        scorer writes them; with every sentence.
    """
    if wrong := statements.unsaid(said):
        raise Unfit(Problem(COMMAND, sentence) for sentence in wrong.values())
    try:
        body = statements.statement(sources, said)
        found = [Problem(BUNDLE, sentence) for sentence in statements.problems(body)]
        if why := statements.division_problem(body["division"], sources.manifest):
            found.append(Problem(COMMAND, why))
        if found:
            raise Unfit(found)
        return Bundle(body, contents(sources, body, extras))
    except Unfit:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise Unfit(
            [
                Problem(
                    SCORE,
                    f"The files in {sources.scores} or {sources.run.folder} are not as scorer and "
                    f"run write them ({type(error).__name__}: {one_line(error, 100)}): score the "
                    "checkpoint again.",
                )
            ]
        ) from error


def signed(bundle: Bundle, key: PrivateKey) -> Bundle:
    """Return a bundle with a signature of its sums, by a key of one's own."""
    sums = bundle.files[layout.SUMS]
    assert isinstance(sums, bytes)
    made = as_json(signature.sign(sums, key))
    return replace(bundle, files={**bundle.files, layout.SIGNATURE: made})


def model_signed(bundle: Bundle, key: Path) -> Bundle:
    """Return a bundle with an OpenSSF model signature of all its files.

    Raises
    ------
    UserError
        The extra is not installed, or the key cannot be used.
    """
    with unpacked(bundle) as folder:
        model_signing.sign_folder(Path(folder), key)
        made = (Path(folder) / layout.MODEL_SIGNATURE).read_bytes()
    return replace(bundle, files={**bundle.files, layout.MODEL_SIGNATURE: made})


def tree(files: Mapping[str, Content]) -> str:
    """Return the names of files as a tree, with their sizes."""
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
        lines.append(f"{'  ' * len(folders)}{last}  {size:,} B")
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
