"""Say what a release of the library is, or put it on record.

python -m challenges.release            print version and digest; exit 1 if they are not on record
python -m challenges.release --write    put them on record, in challenges/published/library.json

To be run in a checkout, whose files are those that a wheel will hold. A run is official only with a
library whose digest is on record, so this is a step of every release.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from challenges import record
from flowertune.base.files import write_json
from flowertune.rules import provenance

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).parent / "published" / record.LIBRARY


def version() -> str:
    """Return the version that pyproject.toml gives the library."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def problems() -> list[str]:
    """Return what keeps these files from being put on record, one sentence each."""
    files = provenance.library_files()
    if not (ROOT / "pyproject.toml").is_file() or files[f"{provenance.NAME}/__init__.py"] != (
        ROOT / provenance.NAME / "__init__.py"
    ):
        return [f"{ROOT} is no checkout of the library: run this command in one."]
    sentences = []
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *provenance.PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    if others := sorted(files.keys() - set(listed)):
        sentences.append(
            f"{', '.join(others)} would count, but git does not track them, so that a release "
            "would not have them: remove them, or add them to git."
        )
    known = record.library_digest(version())
    if known is not None and known != provenance.digest_of(files):
        sentences.append(
            f"The digest of {version()} is on record and never changes, but these files have "
            "another: raise `version` in pyproject.toml and `template_version` in copier.yml. "
            f"(Was {version()} never released? Then delete its line in "
            f"challenges/published/{record.LIBRARY} and run this command.)"
        )
    return sentences


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m challenges.release",
        description="Print version and digest of the library in this checkout; exit with 1 if "
        "they are not on record.",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"put them into challenges/published/{record.LIBRARY}"
    )
    write = parser.parse_args(argv).write
    if wrong := problems():
        print("\n".join(wrong), file=sys.stderr)
        return 1
    digest = provenance.digest_of(provenance.library_files())
    print(f"{version()} {digest}")
    if write:
        write_json(FILE, {**record.library(), version(): digest})
    elif record.library_digest(version()) is None:
        print(
            f"{version()} is not on record; a release is: run `python -m challenges.release "
            "--write`.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
