"""`flowertune new`: an app in one line, and one sentence where there is none."""

import json
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from flowertune.cli import new as module
from flowertune.cli.main import main
from tests.templates import contents, git, render, template_only


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template with release 1.0.0."""
    return template_only(tmp_path_factory.mktemp("template") / "repository", "v1.0.0")


def test_it_makes_what_copier_makes_and_says_what_is_next(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    options = ["--rules", "flower.ai", "--publisher", "me", "--template", str(template)]
    assert main(["new", "medical", "apps/my app", "--name", "mine", *options]) == 0
    answers = {"rules": "flower.ai", "publisher": "me", "project_name": "mine"}
    same = render(tmp_path / "same", template, ref="v1.0.0", challenge="medical", **answers)
    assert contents(tmp_path / "apps/my app") == contents(same)
    said = capsys.readouterr().out
    assert "\n  cd 'apps/my app'\n" in said and "\n  flowertune connect\n" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["finanse", "a"], "Invalid choice for 'challenge': 'finanse' is not in ['general-nlp'"),
        (["finance", "a", "--rules", "x"], "Invalid choice for 'rules': 'x' is not in ['50-super"),
        (["finance", "a", "--name", "my_app"], "'project_name': at most 32 letters, digits and"),
        (["finance", "a", "--publisher", "a.b"], "'publisher': letters, digits, hyphens and un"),
        (["finance", "a", "--ref", "v9.9.9"], "Unknown revision: 'v9.9.9' (--template, --ref)"),
        (["finance", "full"], "full is there already; name a folder that does not exist yet"),
        (["finance", "full/file"], "full/file is there already"),
        (["finance", "a", "--template", "full"], "full is no template: it holds no copier.yml"),
        (["finance", "a", "--template", "nowhere"], "Local template must be a directory. (--tem"),
        (["finance", "a", "--template", "file:///nowhere"], "fatal: '/nowhere' does not appear"),
        (["finance", "a", "--template", "http://me:s3cret@127.0.0.1:9/t.git"], "fatal: unable to"),
    ],
)
def test_an_error_is_one_sentence_and_makes_nothing(
    words: list[str], sentence: str, template: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    there = [] if "--template" in words else ["--template", str(template)]
    assert main(["new", *words, *there]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and sentence in error and "s3cret" not in error
    assert not (tmp_path / "a").exists()


def test_without_copier_the_way_to_get_it_is_said(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "copier", None)
    assert main(["new", "finance", str(tmp_path / "a"), "--template", str(template)]) == 1
    assert "pip install 'copier>=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {"url": "https://h/t.git", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}},
            ("https://h/t.git", "c" * 40),
        ),
        (
            {
                "url": "ssh://git@h/t",
                "vcs_info": {"vcs": "git", "commit_id": "c", "requested_revision": "v1.0.0"},
            },
            ("ssh://git@h/t", "v1.0.0"),
        ),
        ({"url": "file://TEMPLATE", "dir_info": {}}, ("TEMPLATE", None)),
        ({"url": "file:///nowhere", "dir_info": {}}, None),
        (None, None),
    ],
)
def test_the_template_is_what_the_library_was_installed_from(
    origin: dict[str, Any] | None, expected: tuple[str, str | None] | None,
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = json.dumps(origin).replace("TEMPLATE", str(template)) if origin else None
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site/flowertune/cli/new.py"))
    monkeypatch.setattr(type(distribution("flowertune")), "read_text", lambda *_: text)
    taken: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        module, "_render", lambda address, _f, _a, ref: taken.append((address, ref))
    )
    status = main(["new", "finance", str(tmp_path / "a")])
    if expected is None:
        assert status == 1 and "(--template)" in capsys.readouterr().err
        return
    address, ref = expected
    address = address.replace("TEMPLATE", str(template))
    known = address if address.endswith(".git") or "://" not in address else f"git+{address}"
    assert (status, taken) == (0, [(known, ref)])


def test_a_template_without_a_release_gives_its_newest_commit(
    template: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--no-tags", str(template), "untagged")
    untagged = tmp_path / "untagged"
    assert main(["new", "finance", str(tmp_path / "a"), "--template", str(untagged)]) == 0
    commit = git(untagged, "rev-parse", "HEAD").strip()
    text = (tmp_path / "a/pyproject.toml").read_text("utf-8")
    assert f"@{commit}" in text and f'template-commit = "{commit}"' in text
