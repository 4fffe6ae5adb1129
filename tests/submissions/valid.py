"""The files of a valid bundle, made once in a process."""

import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from submissions.bundle import make, sources
from submissions.bundle.statement import Said
from tests.submissions.bundles import CONTACT, TEAM, Scored, scored
from tests.submissions.on_record import on_record


@cache
def valid_files() -> dict[str, bytes]:
    """Every file of the bundle of the small run, by its name; do not change it."""
    return files_of(scored())


def files_of(one: Scored, **said: Any) -> dict[str, bytes]:
    """Return every file of the bundle of a run and its score."""
    with on_record(), TemporaryDirectory() as folder:
        found = sources.read(one.run, one.scores)
        bundle = make.assemble(found, Said(**{"team": TEAM, "contact": CONTACT, **said}))
        target = Path(folder) / "bundle.zip"
        make.write(bundle, target)
        with zipfile.ZipFile(target) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
