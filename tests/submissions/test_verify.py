"""Verifying a bundle: an honest one is VALID, and every kind of tampering is caught by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from submissions.findings import KINDS as CLASSES
from submissions.findings import LEVELS, Report
from submissions.verify.check import verify
from tests.submissions.on_record import on_record
from tests.submissions.tampered import KINDS, Edit, Tampered
from tests.submissions.valid import valid_files


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    with on_record():
        yield


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    return Edit(valid_files(), tmp_path)


def verified(data: bytes, folder: Path) -> Report:
    file = folder / "bundle.zip"
    file.write_bytes(data)
    return verify(file)


def checks(report: Report, *levels: str) -> set[str]:
    wanted = levels or LEVELS
    return {f"{f.kind}/{f.check}" for f in report.findings if f.level in wanted}


def test_an_honest_bundle_is_valid(edit: Edit, tmp_path: Path) -> None:
    report = verified(edit.zip(), tmp_path)
    assert report.valid, report.text()
    assert report.reached == "consistent"
    assert checks(report) == {"run/unverified"}
    assert report.text().splitlines()[-1] == "VALID: consistent, 1 note"


def test_the_tampering_helper_alone_changes_no_verdict(edit: Edit, tmp_path: Path) -> None:
    edit.forge()
    report = verified(edit.zip(), tmp_path)
    assert report.valid, report.text()


def test_there_are_many_kinds() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_caught_by_name(kind: Tampered, edit: Edit, tmp_path: Path) -> None:
    report = verified(kind.change(edit) or edit.zip(), tmp_path)
    assert not report.valid
    assert kind.check in checks(report, "error"), report.text()
    assert "structure/unforeseen" not in checks(report), report.text()
    for finding in report.findings:
        assert finding.kind in CLASSES
        assert finding.sentence.endswith("."), finding
        assert finding.line().isprintable()
    assert report.text().splitlines()[-1].startswith("INVALID: ")
