"""Honest runs of every kind make bundles that are VALID."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from submissions.verify.check import verify
from tests.submissions.on_record import on_record
from tests.submissions.runs import HONEST, honest
from tests.submissions.tampered import Edit
from tests.submissions.valid import files_of

# The others take as long, and differ less from these.
_QUICK = {"another strategy", "resumed"}


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    with on_record():
        yield


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in _QUICK else pytest.mark.full) for n in HONEST],
)
def test_an_honest_run_is_valid(name: str, tmp_path: Path) -> None:
    one = HONEST[name]
    edit = Edit(files_of(honest(name), division=one.division), tmp_path)
    file = tmp_path / "bundle.zip"
    file.write_bytes(edit.zip())
    report = verify(file)
    assert report.valid, report.text()
    assert not [f for f in report.findings if f.level == "warning"], report.text()
    declared = any(f.check == "declared-clients" for f in report.findings)
    assert declared is not one.built_in


def test_there_are_kinds_enough() -> None:
    assert len(HONEST) >= 12
