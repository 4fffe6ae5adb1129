"""Verifying a bundle: an honest one is VALID, and every kind of tampering is caught by name."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from submissions import layout
from submissions.findings import KINDS as CLASSES
from submissions.findings import LEVELS, Report
from submissions.verify import cli
from submissions.verify.check import verify
from tests.submissions.forged import FORGED
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
    assert checks(report) == {"run/unverified", "score/unverified"}
    assert report.text().splitlines()[-1] == "VALID: consistent, 2 notes"


def test_the_tampering_helper_alone_changes_no_verdict(edit: Edit, tmp_path: Path) -> None:
    edit.forge()
    report = verified(edit.zip(), tmp_path)
    assert report.valid, report.text()


def test_there_are_many_kinds() -> None:
    names = [kind.name for kind in [*KINDS, *FORGED]]
    assert len(set(names)) == len(names) >= 60
    assert len(FORGED) >= 60


@pytest.mark.parametrize("kind", [*KINDS, *FORGED], ids=lambda kind: kind.name)
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


def test_a_folder_is_verified_like_its_zip(edit: Edit, tmp_path: Path) -> None:
    for name, content in edit.files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    one, other = verify(tmp_path / "folder"), verified(edit.zip(), tmp_path)
    assert one.valid
    assert one.digest == other.digest
    (tmp_path / "folder" / "results" / "link").symlink_to("/etc/passwd")
    assert checks(verify(tmp_path / "folder"), "error") == {"structure/archive"}


def test_the_command_says_each_verdict(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    good.write_bytes(edit.zip())
    edit.put(layout.SUBMISSION, "average", "99.99")
    edit.sum()
    bad.write_bytes(edit.zip())
    assert cli.main([str(good)]) == 0
    assert cli.main([str(good), str(bad)]) == 1
    printed = capsys.readouterr().out
    assert "2 bundles: 1 VALID, 1 INVALID" in printed
    assert "score/claimed" in printed
    (tmp_path / "none.zip").write_bytes(b"")
    assert cli.main([str(tmp_path / "none.zip"), "--format", "json"]) == 1
    (body,) = json.loads(capsys.readouterr().out)
    assert body["valid"] is False
    assert body["digest"] is None
    assert body["findings"][0]["check"] == "archive"
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_copies_are_told_of_each_other(edit: Edit, tmp_path: Path) -> None:
    paths = []
    for team in ("one", "two"):
        edit.put(layout.SUBMISSION, "team", team)
        edit.forge()
        paths.append(tmp_path / f"{team}.zip")
        paths[-1].write_bytes(edit.zip())
    first, second = cli.verify_all(paths)
    assert first.valid
    assert "run/same-adapter" in checks(second, "warning")
    assert "'one.zip' of 'one'" in second.text()


def test_values_that_no_training_gives_are_worth_a_look(edit: Edit, tmp_path: Path) -> None:
    edit.weights(lambda tensors: [np.multiply(t, 1e30, out=t) for t in tensors.values()])
    edit.own_state()
    records = edit.lines(layout.CHAIN)
    records[3]["replies"]["2"]["sha256"] = records[2]["replies"]["2"]["sha256"]
    edit.write_lines(layout.CHAIN, records)
    edit.forge()
    report = verified(edit.zip(), tmp_path)
    assert report.valid
    assert checks(report, "warning") == {"run/large-values", "run/same-replies"}


def test_a_file_that_a_check_stumbles_over_does_not_stop_the_others(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(case: object) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr("submissions.verify.check.CLASSES", (stumble,))
    assert checks(verified(edit.zip(), tmp_path)) == {"structure/unforeseen"}


def test_questions_are_held_to_the_record_where_it_has_them(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions and their hashes changed alike: only a record of them tells."""
    results = edit.json(layout.SCORES)
    known = {
        name: {"documents-sha256": one["data"]["documents-sha256"]}
        for name, one in results["sets"].items()
    }
    pins = {"finance": {"evaluation": known}}
    monkeypatch.setattr("challenges.record.pinned", lambda rules, version: pins)
    report = verified(edit.zip(), tmp_path)
    assert report.valid, report.text()
    assert "score/unverified" not in checks(report)
    known["fpb"]["documents-sha256"] = "0" * 64
    assert "score/questions" in checks(verified(edit.zip(), tmp_path), "error")


def test_a_zip_of_another_program_is_taken(edit: Edit, tmp_path: Path) -> None:
    """One that says a member's sizes behind its data, as a stream has to."""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in edit.files.items():
            archive.writestr(name, content)
    report = verified(bytes(stream.data), tmp_path)
    assert report.valid, report.text()
