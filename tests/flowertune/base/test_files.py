"""flowertune.connection.files and .apps: whole files, and where apps lie."""

import os
import stat
from pathlib import Path

import pytest

from flowertune.base.files import flower_home, write_atomically
from flowertune.config.apps import app_id, record_app, recorded_folder


# typer imports a name that click is about to drop
@pytest.mark.filterwarnings("ignore:'click.utils")
def test_flower_home_is_flowers_own(monkeypatch):
    from flwr.supercore.utils import get_flwr_home

    for value in ("/somewhere", ""):
        monkeypatch.setenv("FLWR_HOME", value)
        assert flower_home(os.environ) == get_flwr_home()


def test_symlink_and_mode_stay(tmp_path):
    real = tmp_path / "dotfiles" / "config.toml"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    write_atomically(link, "new\r\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"new\r\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [path.name for path in real.parent.iterdir()] == ["config.toml"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_apps_are_recorded_beside_each_other(tmp_path):
    assert record_app(tmp_path, "me/a", Path("/a"))
    assert record_app(tmp_path, "me/b", Path("/b"))
    assert not record_app(tmp_path, "me/a", Path("/a"))
    assert recorded_folder(tmp_path, "me/a") == Path("/a")
    assert recorded_folder(tmp_path, "me/b") == Path("/b")
    assert recorded_folder(tmp_path, "me/c") is None


def test_a_broken_record_is_started_anew(tmp_path):
    record_app(tmp_path, "me/a", Path("/a"))
    (tmp_path / "flowertune" / "apps.json").write_text("{")
    assert recorded_folder(tmp_path, "me/a") is None
    assert record_app(tmp_path, "me/a", Path("/a"))


@pytest.mark.parametrize("text", [None, "x", "[project]\nname='a'\n", "\xff"])
def test_no_app_has_no_id(tmp_path, text):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")
    assert app_id(tmp_path) is None
