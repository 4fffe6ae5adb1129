"""`copier update`: fixes of the template arrive, what the participant changed stays."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import copier
import pytest
from plumbum import local

from tests.templates import GIT_ENVIRONMENT, commit, contents, git, render, template_only


@pytest.fixture(autouse=True)
def git_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copier runs git too; it must not depend on who runs the tests."""
    for name, value in GIT_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    # Within this process it does so in plumbum's environment, a copy made at import.
    with local.env(**GIT_ENVIRONMENT):
        yield


def put_under_git(app: Path) -> None:
    git(app, "init", "--quiet")
    commit(app)


def run(folder: Path, command: str) -> str:
    """What a command prints that is typed in a folder."""
    done = subprocess.run(
        command, cwd=folder, shell=True, capture_output=True, text=True, check=True
    )
    return done.stdout


def fix_template(repository: Path) -> None:
    """What a release may bring: a new file, a fix in a participant's file and in a comment."""
    package = repository / "template/app"
    (package / "new_helper.py").write_text('"""New in this release."""\n')
    dataset = package / "dataset.py"
    dataset.write_text('"""Fixed first line."""\n' + dataset.read_text("utf-8").split("\n", 1)[1])
    settings = repository / "template/pyproject.toml.jinja"
    before = settings.read_text("utf-8")
    after = before.replace("  # optimizer steps of one client", "  # how many steps of one client")
    assert after != before
    settings.write_text(after)


def test_update_keeps_what_the_participant_changed(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    app = render(tmp_path / "app", repository, ref=None)
    put_under_git(app)
    dataset = app / "flowertune_finance/dataset.py"
    dataset.write_text(dataset.read_text("utf-8") + "\n\nMINE = True\n")
    settings = app / "pyproject.toml"
    text = settings.read_text("utf-8")
    assert "num-server-rounds = 200" in text
    settings.write_text(text.replace("num-server-rounds = 200", "num-server-rounds = 7"))
    (app / "flowertune_finance/mine.py").write_text("MINE = True\n")
    (app / "LICENSE").unlink()
    commit(app)

    fix_template(repository)
    commit(repository, "v1.1.0")
    copier.run_update(app, defaults=True, overwrite=True, quiet=True)

    assert dataset.read_text("utf-8").startswith('"""Fixed first line."""\n')
    assert dataset.read_text("utf-8").endswith("\n\nMINE = True\n")
    assert "num-server-rounds = 7" in settings.read_text("utf-8")
    assert "  # how many steps of one client" in settings.read_text("utf-8")
    assert (app / "flowertune_finance/mine.py").read_text("utf-8") == "MINE = True\n"
    assert (app / "flowertune_finance/new_helper.py").is_file()
    assert not (app / "LICENSE").exists()
    assert not [path for path, data in contents(app).items() if b"<<<<<<<" in data]
    assert "_commit: v1.1.0" in (app / ".copier-answers.yml").read_text("utf-8")


def test_update_of_an_unchanged_app_equals_a_fresh_render(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    answers = {"challenge": "medical", "project_name": "mine", "rules": "flower.ai"}
    app = render(tmp_path / "app", repository, ref=None, **answers)
    put_under_git(app)
    before = contents(app)

    fix_template(repository)
    (repository / "template/app/models.py").rename(repository / "template/app/nets.py")
    commit(repository, "v1.1.0")
    copier.run_update(app, defaults=True, overwrite=True, quiet=True)

    fresh = render(tmp_path / "fresh", repository, ref=None, **answers)
    assert contents(app) == contents(fresh)
    assert contents(app) != before


def test_a_line_that_both_changed_is_marked_and_left_to_the_participant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    app = render(tmp_path / "app", repository, ref=None)
    put_under_git(app)
    settings = app / "pyproject.toml"
    text = settings.read_text("utf-8")
    settings.write_text(text.replace("arguments.max-steps = 10", "arguments.max-steps = 33"))
    commit(app)
    (app / "results").mkdir()
    (app / "results/kept").write_text("not git's, and not the update's")
    before = contents(app)

    fix_template(repository)
    (repository / "template/samples").unlink()  # something that the update deletes
    commit(repository, "v1.1.0")
    capsys.readouterr()
    copier.run_update(app, defaults=True, overwrite=True)

    after = settings.read_text("utf-8")
    assert "<<<<<<<" in after and "max-steps = 33" in after and "how many steps" in after
    assert contents(app).keys() != before.keys()
    # What the message says, typed.
    said = capsys.readouterr().err.split("of the template. In that folder:")[1]
    listing, way_back = (line.strip() for line in re.findall(r"^  (git .*?)  +", said, re.M))
    assert run(app, listing) == "pyproject.toml\n"
    run(app, way_back)
    assert contents(app) == before
    assert git(app, "status", "--porcelain") == ""


def test_a_copy_is_made_from_the_latest_tag(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    fix_template(repository)
    commit(repository)
    tagged = render(tmp_path / "tagged", repository, ref=None)
    head = render(tmp_path / "head", repository, ref="HEAD")
    assert not (tagged / "flowertune_finance/new_helper.py").exists()
    assert (head / "flowertune_finance/new_helper.py").exists()


def test_an_app_of_a_commit_without_a_tag_can_be_updated(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    (repository / "more").write_text("more")
    commit(repository)
    app = render(tmp_path / "app", repository, ref="HEAD")
    put_under_git(app)
    before = (app / "pyproject.toml").read_text("utf-8")
    assert f"@{git(repository, 'rev-parse', 'HEAD').strip()}" in before
    fix_template(repository)
    commit(repository, "v1.1.0")
    copier.run_update(app, defaults=True, overwrite=True, quiet=True)
    after = (app / "pyproject.toml").read_text("utf-8")
    # The library comes along: the app asks for the release that it is of now.
    assert "@v1.1.0" in after and "# how many steps" in after


def test_an_app_copied_from_a_relative_path_can_be_updated(tmp_path: Path) -> None:
    template_only(tmp_path / "repository", "v1.0.0")
    command = [sys.executable, "-m", "copier"]
    copy = [*command, "copy", "--quiet", "--defaults", "repository", "apps/mine"]
    subprocess.run(copy, cwd=tmp_path, check=True)
    put_under_git(tmp_path / "apps/mine")
    fix_template(tmp_path / "repository")
    commit(tmp_path / "repository", "v1.1.0")
    update = [*command, "update", "--quiet", "--defaults"]
    subprocess.run(update, cwd=tmp_path / "apps/mine", check=True)
    assert (tmp_path / "apps/mine/flowertune_finance/new_helper.py").is_file()


def test_an_app_that_is_not_under_git_is_told_so(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository", "v1.0.0")
    app = render(tmp_path / "app", repository, ref=None)
    with pytest.raises(copier.errors.UserMessageError, match="git-tracked"):
        copier.run_update(app, defaults=True, overwrite=True, quiet=True)
