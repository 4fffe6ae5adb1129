"""The digests of an app's files: the same for its folder, and for the copy that Flower sends."""

import io
import zipfile

import pytest
from flwr.cli.build import build_fab_from_disk

from flowertune.base.errors import UserError
from flowertune.rules.app_files import app_files, app_record, changed_code
from tests.methods import copy_of_app


@pytest.fixture
def app(tmp_path):
    """A participant's folder: a file of their own, results, and what Python and pip leave."""
    app = copy_of_app(tmp_path)
    for name in ("own.py", "data/own.jsonl", "results/7/run.json", "build/x.py", "notes.txt",
                 "flowertune_finance/__pycache__/a.pyc", "test_own.py", ".venv/a.py"):  # fmt: skip
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("{}")
    with (app / "pyproject.toml").open("a") as file:
        file.write('\n# a note\n[tool.flwr.federations]\ndefault = "x"\n')
    return app


def test_a_folder_has_the_files_of_the_copy_that_flower_sends(app, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    copy = tmp_path / "home" / "apps" / "me.app.1.0.0.12345678"
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as archive:
        archive.extractall(copy, [name for name in archive.namelist() if name[0] != "."])
        others = [name for name in archive.namelist() if name == ".copier-answers.yml"]
        archive.extractall(copy, others)
    (copy / "flowertune_finance" / "__pycache__").mkdir()
    (copy / "flowertune_finance" / "__pycache__" / "a.pyc").write_text("")
    (copy / "uv.lock").write_text("of the environment that Flower makes for a run")
    files = app_files(app)
    assert files == app_files(copy)
    assert {"own.py", "data/own.jsonl", "flowertune_finance/strategy.py"} <= files.keys()
    assert not {"notes.txt", "test_own.py", "build/x.py", "results/7/run.json"} & files.keys()
    assert (
        b"# a note" not in files["pyproject.toml"] and b"federations" not in files["pyproject.toml"]
    )


def test_the_digest_of_all_files_changes_with_each(app):
    files = app_files(app)
    whole = app_record(files)
    assert whole["files"].keys() == files.keys()
    for name in files:
        assert app_record({**files, name: b"x"})["sha256"] != whole["sha256"]
    assert app_record(dict(reversed(files.items()))) == whole


def test_code_that_changed_is_named():
    before = {"a.py": "1", "b/c.py": "2", "README.md": "3", "gone.py": "4"}
    now = {"a.py": "1", "b/c.py": "0", "README.md": "0", "new.py": "5"}
    assert changed_code(before, now) == ["b/c.py", "gone.py", "new.py"]
    assert changed_code(before, before) == []


def test_what_is_no_app_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no pyproject\.toml, so it is no app's folder"):
        app_files(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[")
    with pytest.raises(UserError, match="holds files that Flower cannot send"):
        app_files(tmp_path)
