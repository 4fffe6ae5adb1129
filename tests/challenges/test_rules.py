"""Rules are versions: what was published stays, and apps and checkpoints know theirs."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import copier
import pytest
from flwr.common.config import flatten_dict

import challenges
from challenges import digests, record
from evaluation import checkpoint
from flowertune.base.hashing import json_sha256
from tests.evaluation.checkpoints import RELEASES, submission_of
from tests.templates import (
    GIT_ENVIRONMENT,
    ROOT,
    clone,
    commit,
    git,
    raise_budget,
    render,
    run_in,
)

DIGESTS = (sys.executable, "-m", "challenges.digests")


def test_rules_and_record_are_in_order() -> None:
    assert digests.problems() == []


@pytest.mark.parametrize("rules", challenges.rule_sets())
def test_the_published_values_are_the_current_ones(rules: str) -> None:
    version = challenges.versions(rules)[0]
    tables = record.published(rules, version)
    assert sorted(tables) == challenges.names()
    for name, static in tables.items():
        assert (
            static
            == challenges.static_table(name, rules)
            == challenges.static_table(name, rules, version)
        )
        assert json_sha256(static) == challenges.expected_digest(name, rules)


def test_no_release_ever_published_other_values() -> None:
    """Every record in a tag of this repository is still there, and unchanged."""
    for tag in git(ROOT, "tag", "--list", "v*").split():
        listed = git(ROOT, "ls-tree", "-r", "--name-only", tag, "--", "challenges/published")
        for path in listed.split():
            was = json.loads(git(ROOT, "show", f"{tag}:{path}"))
            now = json.loads((ROOT / path).read_text("utf-8"))
            # Hashes of evaluation data may be added to a version, set by set.
            for name, sets in was.get(record.EVALUATION_DATA, {}).items():
                assert sets.items() <= now[record.EVALUATION_DATA][name].items()
            was.pop(record.EVALUATION_DATA, None)
            assert {name: now.get(name) for name in was} == was, f"{path} is not as in {tag}"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"finance": {"fpb": "0" * 64}}, None),
        ({"finance": {"fqb": "0" * 64}}, "set fqb; the sets of finance are fpb, fiqa, tfns."),
        ({"sports": {"a": "0" * 64}}, "for sports, set a; the sets of sports are none."),
        ({"finance": {"fpb": "0X"}}, "'0X' for finance, set fpb; a sha256 has 64 digits"),
    ],
)
def test_a_version_can_record_the_rows_that_it_is_scored_on(
    data: dict[str, dict[str, str]], part: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = record._read
    monkeypatch.setattr(record, "_read", lambda name: {**read(name), "evaluation-data": data})
    assert record.evaluation_data("flower.ai", "1.0.0") == data
    assert sorted(record.published("flower.ai", "1.0.0")) == challenges.names()
    if part is None:
        assert digests.problems() == []
        assert json.loads(digests.expected_record("flower.ai")[1])["evaluation-data"] == data
    else:
        assert all(part in sentence for sentence in digests.problems())
        assert len(digests.problems()) == 2  # one for each rule set


def test_a_version_that_records_no_rows_has_none() -> None:
    assert record.evaluation_data("50-supernodes", "9.9.9") == {}


@pytest.mark.parametrize("command", [(), ("--write",)])
def test_who_changes_a_locked_value_is_told_what_to_do(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    repository = clone(tmp_path / "repository")
    facts = repository / "challenges/code.yml"
    facts.write_text(facts.read_text("utf-8").replace("code-alpaca-20k", "code-alpaca-30k"))
    done = run_in(repository, *DIGESTS, *command)
    assert done.returncode == 1
    for rules in ("50-supernodes 1.0.0", "flower.ai 1.0.0"):
        assert f"code under {rules} are published" in done.stderr
    for part in ("dataset.name", "raise `version`", "`changes`", "CHANGELOG.md", "--write"):
        assert part in done.stderr
    assert "challenges/published" not in git(repository, "status", "--short")


def test_a_lost_record_is_missed(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    raise_budget(repository, "1.1.0", "A larger budget.")
    (repository / "challenges/published/50-supernodes-1.0.0.json").unlink()
    done = run_in(repository, *DIGESTS)
    assert done.returncode == 1
    assert "50-supernodes-1.0.0.json is not there" in done.stderr


def test_a_version_without_a_word_on_it_is_an_error(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    rules = repository / "challenges/rules.yml"
    text = rules.read_text("utf-8")
    rules.write_text(text.replace('  version: "1.0.0"', '  version: "2.0.0"', 1))
    done = run_in(repository, *DIGESTS)
    assert done.returncode == 1
    assert "say in `changes` of challenges/rules.yml what 2.0.0 brings" in done.stderr


def rendered_static(app: Path) -> dict[str, Any]:
    """The locked values in a rendered app's settings."""
    text = (app / "pyproject.toml").read_text("utf-8")
    return dict(flatten_dict(tomllib.loads(text)["tool"]["flwr"]["app"]["config"]["static"]))


def leave_the_rules(template: Path) -> None:
    """Take out of a clone's template all but what has to do with rules: it renders in no time."""
    for path in template.rglob("*"):
        kept = ("RULES", "pyproject.toml", "answers_file", "__init__.py")
        if path.is_file() and not any(name in path.name for name in kept):
            path.unlink()


def test_an_update_tells_what_changed_in_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in GIT_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    repository = clone(tmp_path / "repository", "v0.9.0")
    leave_the_rules(repository / "template")
    commit(repository, "v1.0.0")
    app = render(tmp_path / "app", repository, ref=None)
    git(app, "init", "--quiet")
    commit(app)

    raise_budget(repository, "1.1.0", "The budget is 250,000 MiB.")
    commit(repository, "v1.1.0")
    copier.run_update(app, defaults=True, overwrite=True)
    told = capsys.readouterr().err
    assert "The rules 50-supernodes change from 1.0.0 to 1.1.0:" in told
    assert "1.1.0: The budget is 250,000 MiB." in told
    assert "IID" not in told  # what 1.0.0 brought is no news
    assert [path.name for path in app.glob("RULES-*")] == ["RULES-50-supernodes-1.1.0.md"]
    static = rendered_static(app)
    assert (static["rules-version"], static["budget-mib"]) == ("1.1.0", 250000)

    commit(app)
    (repository / "template/NEW.md").write_text("new\n")
    commit(repository, "v1.2.0")
    copier.run_update(app, defaults=True, overwrite=True)
    told = capsys.readouterr().err
    assert "template version 1.2.0" in told
    assert "The rules" not in told


@pytest.fixture
def newer_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 50-supernodes had gone on to 1.1.0 with another budget."""
    sets = challenges.rule_sets()
    current = sets["50-supernodes"]
    current["version"] = "1.1.0"
    current["budget-mib"] = 5
    current["changes"].insert(0, {"version": "1.1.0", "text": "A smaller budget."})
    monkeypatch.setattr(challenges, "rule_sets", lambda: sets)
    newest = {name: challenges.static_table(name, "50-supernodes") for name in challenges.names()}
    published = record.published
    monkeypatch.setattr(
        record,
        "published",
        lambda rules, version: newest if version == "1.1.0" else published(rules, version),
    )
    monkeypatch.setattr(record, "library", lambda: RELEASES)


@pytest.mark.usefixtures("newer_rules")
def test_a_checkpoint_of_older_rules_is_checked_against_those() -> None:
    old = challenges.static_table("finance", "50-supernodes", "1.0.0")
    assert old["budget-mib"] == 200000
    found = checkpoint.describe(submission_of(old), "finance")
    assert found.reasons == []
    sentence = found.older_rules
    assert sentence is not None
    assert "scored under 50-supernodes 1.0.0" in sentence
    assert "current version is 1.1.0" in sentence


@pytest.mark.usefixtures("newer_rules")
def test_a_checkpoint_of_the_current_rules_is_checked_against_these() -> None:
    new = challenges.static_table("finance", "50-supernodes")
    found = checkpoint.describe(submission_of(new), "finance")
    assert found.reasons == ["MiB communicated is 12.5 (locked: 5)"]
    assert found.older_rules is None


@pytest.mark.usefixtures("newer_rules")
def test_versions_there_never_were_are_named() -> None:
    with pytest.raises(ValueError, match=r"no version '0.9.0' of the rules 50-supernodes; there a"):
        challenges.static_table("finance", "50-supernodes", "0.9.0")
