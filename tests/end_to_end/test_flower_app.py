"""A rendered app is a valid Flower app: flwr builds it, and it may be published."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.config_utils import load_and_validate
from flwr.cli.utils import collect_files, filter_paths_for_publish
from flwr.supercore.constant import (
    APP_PUBLISH_ALLOWED_LICENSE_FILES,
    MAX_DIR_DEPTH,
    MAX_FILE_BYTES,
    MAX_FILE_COUNT,
    MAX_TOTAL_BYTES,
)

import challenges
from tests.apps import rendered
from tests.templates import contents, copy_of

LEFT_BEHIND = (
    "results/1/peft_1/manifest.json",
    ".venv/lib/x.py",
    "flowertune_finance.egg-info/x.json",
    "build/lib/flowertune_finance/x.py",
    "flowertune_finance/__pycache__/x.py",
    "old.fab",
)


@pytest.mark.parametrize("name", challenges.names())
def test_an_app_is_within_the_limits_of_publishing(name: str) -> None:
    app = rendered(name)
    files = filter_paths_for_publish(collect_files(app))
    sizes = {path: len((app / path).read_bytes()) for path in files}
    assert 10 < len(sizes) <= MAX_FILE_COUNT
    assert max(sizes.values()) <= MAX_FILE_BYTES
    assert sum(sizes.values()) <= MAX_TOTAL_BYTES
    assert max(path.count("/") for path in sizes) <= MAX_DIR_DEPTH
    for path in sizes:
        (app / path).read_text("utf-8")
    # The answers file is not among the types that flwr sends; all the rest is.
    assert set(contents(app)) - set(sizes) <= {".copier-answers.yml"}
    assert set(APP_PUBLISH_ALLOWED_LICENSE_FILES) & set(sizes) == {"LICENSE"}


@pytest.mark.parametrize("name", challenges.names())
def test_flwr_has_nothing_to_say_about_the_configuration(name: str) -> None:
    config, warnings = load_and_validate(rendered(name) / "pyproject.toml")
    assert warnings == []
    description = config["project"]["description"]
    assert 0 < len(description) <= 200
    assert "federations" not in config["tool"]["flwr"]


def test_flwr_build_makes_the_bundle(tmp_path: Path) -> None:
    app = copy_of(rendered("finance"), tmp_path / "my-finance")
    for path in LEFT_BEHIND:
        (app / path).parent.mkdir(parents=True, exist_ok=True)
        (app / path).write_text("{}")
    before = filter_paths_for_publish(collect_files(rendered("finance")))
    assert set(filter_paths_for_publish(collect_files(app))) == set(before)

    flwr = Path(sys.executable).with_name("flwr")
    done = subprocess.run(
        [flwr, "build", "--app", app], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (fab,) = tmp_path.glob("flowertune.app-finance.1-0-0.*.fab")
    with zipfile.ZipFile(fab) as bundle:
        names = set(bundle.namelist())
        config = tomllib.loads(bundle.read("pyproject.toml").decode())
    for path in (
        "flowertune_finance/client_app.py",
        "flowertune_finance/server_app.py",
        "samples/finance.jsonl",
        "LICENSE",
    ):
        assert path in names
    assert not [name for name in names if name.startswith(("results/", ".venv/"))]
    # What the app reads of its own pyproject.toml is in the bundle's copy, too.
    assert config["tool"]["flowertune"]["supernodes"] == 50


def wheel(project: Path, destination: Path) -> set[str]:
    """Build a project's wheel without the network; returns the names of its files."""
    command = "pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check"
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--wheel-dir", destination, project],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = destination.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_an_app_installs_its_package_and_nothing_else(tmp_path: Path) -> None:
    names = wheel(copy_of(rendered("medical"), tmp_path / "app"), tmp_path / "wheel")
    assert "flowertune_medical/client_app.py" in names
    assert {name.split("/")[0] for name in names} == {
        "flowertune_medical",
        "app_medical-1.0.0.dist-info",
    }
