"""Where apps lie is remembered, by publisher and name."""

from pathlib import Path

import pytest

from flowertune.config.apps import app_id, record_app, recorded_folder


def test_apps_are_recorded_beside_each_other(tmp_path):
    assert record_app(tmp_path, "me/a", Path("/a")) == (True, None)
    assert record_app(tmp_path, "me/b", Path("/b")) == (True, None)
    assert record_app(tmp_path, "me/a", Path("/a")) == (False, None)
    assert recorded_folder(tmp_path, "me/a") == Path("/a")
    assert recorded_folder(tmp_path, "me/b") == Path("/b")
    assert recorded_folder(tmp_path, "me/c") is None


def test_a_broken_record_is_started_anew(tmp_path):
    record_app(tmp_path, "me/a", Path("/a"))
    (tmp_path / "flowertune" / "apps.json").write_text("{")
    assert recorded_folder(tmp_path, "me/a") is None
    assert record_app(tmp_path, "me/a", Path("/a")) == (True, None)


def test_another_folder_with_an_app_of_the_same_id_is_told(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        text = '[project]\nname = "a"\n[tool.flwr.app]\npublisher = "me"\n'
        (folder / "pyproject.toml").write_text(text)
    assert record_app(tmp_path, "me/a", one) == (True, None)
    assert record_app(tmp_path, "me/a", other) == (True, one)
    (other / "pyproject.toml").unlink()
    assert record_app(tmp_path, "me/a", one) == (True, None)


@pytest.mark.parametrize("text", [None, "x", "[project]\nname='a'\n", "\xff"])
def test_no_app_has_no_id(tmp_path, text):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")
    assert app_id(tmp_path) is None
