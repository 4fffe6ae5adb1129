"""The hashes of protected files are those of the files, and a change is noticed."""

import shutil

from flowertune.rules import protected


def test_the_recorded_hashes_are_current():
    assert len(protected.expected()) >= 8
    assert protected.changed() == [], "run scripts/protect, and say in CHANGELOG.md what changed"


def test_a_changed_and_a_missing_file_are_named_and_line_endings_are_not_a_change(tmp_path):
    package = tmp_path / "flowertune"
    shutil.copytree(protected.PACKAGE, package)
    lock = package / "rules" / "lock.py"
    lock.write_bytes(lock.read_bytes().replace(b"\n", b"\r\n"))
    assert protected.changed(package) == []
    (package / "run" / "ledger.py").unlink()
    lock.write_text("def differences(*_): return []\n")
    assert protected.changed(package) == ["rules/lock.py", "run/ledger.py"]
