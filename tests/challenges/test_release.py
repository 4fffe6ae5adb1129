"""A release of the library: on record, built, installed; and what makes a run official with it."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.common.config import flatten_dict

from tests.templates import ROOT, clone, commit, git, render, run_in
from tests.tiny import save_tiny_llama

RELEASE = (sys.executable, "-m", "challenges.release")
SUPERNODES = 2


def lock_small_rules(repository: Path, rows: Path) -> None:
    """Let a clone's finance challenge be one that runs here: own rows, two SuperNodes."""
    facts = repository / "challenges/finance.yml"
    text = facts.read_text("utf-8")
    for old, new in (
        ("name: flwrlabs/fingpt-sentiment-train", f"name: {rows}"),
        ("supernodes: {50-supernodes: 50,", f"supernodes: {{50-supernodes: {SUPERNODES},"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    facts.write_text(text)
    for record in (repository / "challenges/published").glob("*.json"):
        record.unlink()
    done = run_in(repository, sys.executable, "-m", "challenges.digests", "--write")
    assert done.returncode == 0, done.stderr
    commit(repository)


def pip(*arguments: str | Path) -> None:
    """Run pip without the network."""
    quiet = ("--quiet", "--no-deps", "--disable-pip-version-check", "--no-index")
    command = [sys.executable, "-m", "pip", arguments[0], *quiet, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def settings(app: Path, folder: Path) -> dict[str, Any]:
    """An app's settings for one short round, its locked values untouched."""
    toml = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    return {
        **flatten_dict(toml["tool"]["flwr"]["app"]["config"]),
        "results-dir": str(folder / "results"),
        "model.name": str(save_tiny_llama(folder / "model")),
        "model.quantization": 0,
        "model.gradient-checkpointing": False,
        "strategy.fraction-train": 1.0,
        "num-server-rounds": 1,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 2,
    }


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A released clone, its wheel as installed, and runs of an app with it."""
    folder = tmp_path_factory.mktemp("release")
    rows = folder / "rows.jsonl"
    line = '{{"instruction": "Add one.", "input": "{0}", "output": "{1}"}}\n'
    rows.write_text("".join(line.format(i, i + 1) for i in range(8)))
    repository = clone(folder / "repository", "v0.9.0")
    lock_small_rules(repository, rows)
    before = run_in(repository, *RELEASE)
    written = run_in(repository, *RELEASE, "--write")
    assert written.returncode == 0, written.stderr
    commit(repository, "v1.0.0")

    app = render(folder / "app", repository, challenge="finance")
    site, config, out = (folder / name for name in ("site", "cfg.json", "out.json"))
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, repository)
    pip("install", "--no-compile", "--target", site, next(folder.glob("*.whl")))
    config.write_text(json.dumps(settings(app, folder)))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.challenges.official_runs", app, config, site, out],
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(
        repository=repository,
        before=before,
        digest=written.stdout.split()[1],
        log=done.stdout + done.stderr,
        runs=json.loads(out.read_text()),
    )


@pytest.mark.slow
def test_a_run_with_a_released_library_is_official(release: SimpleNamespace) -> None:
    found = release.runs["as installed"]
    for written in (found["run"], found["manifest"]):
        assert (written["official"], written["differences"]) == (True, [])
    assert found["reasons"] == []
    verdict = f"OFFICIAL run (finance, rules 50-supernodes {found['manifest']['rules-version']})"
    assert release.log.count(f" {verdict}") == 1
    assert found["manifest"]["supernodes"] == found["manifest"]["partitions"] == SUPERNODES


@pytest.mark.slow
def test_the_installed_wheel_has_the_digest_of_the_checkout(release: SimpleNamespace) -> None:
    library = release.runs["as installed"]["manifest"]["library"]
    assert library == {
        "version": "1.0.0", "sha256": release.digest, "editable": False, "edited": [],
    }  # fmt: skip
    listed = json.loads((release.repository / "challenges/published/library.json").read_text())
    assert listed == {"1.0.0": release.digest}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("another_client_library", ["library on clients", "0.9.0 (000000000000)"]),
        ("an_edited_file", ["edited in flowertune/data/steps.py"]),
        ("an_editable_install", ["an editable install"]),
    ],
)
def test_another_library_is_unofficial_by_name(
    change: str, words: list[str], release: SimpleNamespace
) -> None:
    found = release.runs[change]
    for written in (found["run"], found["manifest"]):
        assert written["official"] is False
    (verdict,) = {
        line[line.index("UNOFFICIAL") :]
        for line in release.log.splitlines()
        if "UNOFFICIAL run" in line and words[0] in line
    }
    for text in (verdict, "; ".join(found["reasons"])):
        assert all(word in text for word in words)


@pytest.mark.slow
def test_what_is_not_on_record_is_said(release: SimpleNamespace) -> None:
    assert release.before.returncode == 1
    assert release.before.stdout == f"1.0.0 {release.digest}\n"
    assert "1.0.0 is not on record" in release.before.stderr
    assert run_in(release.repository, *RELEASE).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("--write",)])
def test_the_digest_of_a_released_version_never_changes(
    command: tuple[str, ...], release: SimpleNamespace
) -> None:
    file = release.repository / "flowertune/base/text.py"
    before = file.read_text()
    file.write_text(before + "\n# new\n")
    try:
        done = run_in(release.repository, *RELEASE, *command)
    finally:
        file.write_text(before)
    assert done.returncode == 1
    assert "1.0.0 is on record and never changes" in done.stderr
    assert "raise `version`" in done.stderr
    assert git(release.repository, "status", "--short") == ""


@pytest.mark.slow
def test_files_that_a_release_would_not_have_are_named(release: SimpleNamespace) -> None:
    file = release.repository / "evaluation/notes.txt"
    file.write_text("mine")
    try:
        done = run_in(release.repository, *RELEASE, "--write")
    finally:
        file.unlink()
    assert done.returncode == 1
    assert "evaluation/notes.txt would count" in done.stderr
