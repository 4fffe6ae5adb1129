"""flowertune.config.results: where results go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowertune.base.errors import UserError
from flowertune.config import results as folders
from flowertune.config.apps import record_app
from flowertune.config.results import editable_source, results_root, run_folder
from flowertune.run import failures
from tests.apps import settings


def make_app(folder, name="my-finance", publisher="me"):
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\n[tool.flwr.app]\npublisher = "{publisher}"\n'
    )
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def installed(home):
    return make_app(home / "apps" / "me.my-finance.1.0.0.abc")


def root(installed, home, results_dir="results"):
    return results_root(settings({"results-dir": results_dir}), installed, {"FLWR_HOME": str(home)})


def test_an_absolute_folder_is_used_as_it_is(installed, home, tmp_path):
    assert root(installed, home, str(tmp_path / "far")) == tmp_path / "far"


def test_a_relative_folder_lies_in_the_app_that_connect_recorded(installed, home, tmp_path):
    own = make_app(tmp_path / "work")
    record_app(home, "me/my-finance", own)
    assert root(installed, home) == own / "results"


@pytest.mark.parametrize("other", [{"name": "my-medical"}, {"publisher": "you"}, None])
def test_a_record_of_another_app_or_of_none_is_not_used(installed, home, tmp_path, other):
    own = tmp_path / "work"
    if other is not None:
        make_app(own, **other)
    record_app(home, "me/my-finance", own)
    assert root(installed, home) == home / "flowertune" / "results" / "my-finance"


def test_an_editable_install_is_used_without_a_record(installed, home, tmp_path, monkeypatch):
    own = make_app(tmp_path / "work")
    site = tmp_path / "site"
    info = site / "my_finance-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-finance\nVersion: 1.0.0\n")
    record = {"url": own.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(record))
    monkeypatch.syspath_prepend(str(site))
    assert root(installed, home) == own / "results"
    recorded = make_app(tmp_path / "recorded")
    record_app(home, "me/my-finance", recorded)
    assert root(installed, home) == recorded / "results"


def test_the_working_directory_plays_no_part(installed, home, tmp_path, monkeypatch):
    monkeypatch.chdir(make_app(tmp_path / "elsewhere"))
    monkeypatch.setattr(folders, "editable_folder", lambda name: None)
    assert root(installed, home) == home / "flowertune" / "results" / "my-finance"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"url": "file:///a%20b/c", "dir_info": {"editable": true}}', Path("/a b/c")),
        ('{"url": "file:///a/c", "dir_info": {"editable": false}}', None),
        ('{"url": "file:///a/c", "dir_info": {}}', None),
        ('{"url": "https://x/y.whl", "archive_info": {}}', None),
        (None, None),
        ("{", None),
    ],
)
def test_editable_source(text, expected):
    assert editable_source(text) == expected


def test_a_run_folder_is_made_and_left_empty(tmp_path):
    folder = run_folder(tmp_path / "results", 17)
    assert folder == tmp_path / "results" / "17"
    assert list(folder.iterdir()) == []
    assert run_folder(tmp_path / "results", 17) == folder


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*file.*results-dir") as caught:
        run_folder(tmp_path / "file", 17)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(folders.tempfile, "TemporaryFile", lambda dir: full)
    with pytest.raises(UserError, match="No space left on device"):
        run_folder(tmp_path, 17)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to drop root")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    # root may write anywhere, so another user has to try
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from flowertune.config.results import run_folder\n"
        "from flowertune.base.errors import UserError\nfrom pathlib import Path\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: run_folder(Path(sys.argv[1]), 1)\nexcept UserError as error: print(error)"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder not in (Path("/"), Path("/tmp")):
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *sys.path], capture_output=True, text=True
    )
    assert "Permission denied" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/r/x"), "cannot write /r/x: No space left on dev"),
        (OSError("the model's config.json is no JSON"), "OSError: the model's config.json is no"),
        (FileNotFoundError(2, "No such file or directory", "/m"), "FileNotFoundError: [Errno 2]"),
        (UserError("a sentence"), "a sentence"),
    ],
)
def test_the_last_line_calls_a_failed_write_one_and_nothing_else(error, said, monkeypatch, caplog):
    handlers = []
    monkeypatch.setattr(failures, "add_exit_handler", handlers.append)
    with pytest.raises(type(error)), failures.log_error_last():
        raise error
    handlers[0]()
    assert caplog.messages[-1].startswith(said)
