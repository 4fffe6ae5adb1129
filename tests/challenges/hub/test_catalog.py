"""Versions: one is one commit, a broken one takes no other down, and the hub says so."""

from pathlib import Path

import pytest

from challenges.hub import catalog as module
from challenges.hub.catalog import Catalog, Down, Unknown
from challenges.hub.repository import TemplateRepository
from tests.challenges.hub.fakes import RULES, client_of, small_template
from tests.templates import commit, git


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A repository with releases 1.0.0, 1.9.0 and 1.10.0."""
    return small_template(tmp_path / "template")


def catalog_of(template: Path) -> tuple[Catalog, list[float]]:
    """A catalog of a template, and its clock."""
    now = [0.0]
    catalog = Catalog(TemplateRepository(template, "unused"), clock=lambda: now[0])
    catalog.refresh()
    return catalog, now


def test_a_moved_tag_leaves_a_version_as_it_was_and_is_reported(template: Path) -> None:
    catalog, _ = catalog_of(template)
    _, before = catalog.find("@flowertune/finance", "1.10.0")
    rules = template / "challenges/rules.yml"
    rules.write_text(RULES.replace("200000", "1"))
    commit(template)
    git(template, "tag", "--force", "1.10.0")
    catalog.refresh()
    for app_id in ("@flowertune/finance", "@flowertune/law"):
        assert catalog.find(app_id, "1.10.0")[1] == before
    assert catalog.served()[0][1].rule_sets["own"]["budget-mib"] == 200000
    well, report = catalog.health()
    moved_to = git(template, "rev-parse", "HEAD")[:12]
    assert well and report["status"] == "degraded" and report["commit"] == before.commit
    assert report["problems"] == [
        f"the tag 1.10.0 was moved from {before.commit[:12]} to {moved_to}; "
        f"{before.commit[:12]} is served until the hub is restarted"
    ]
    git(template, "tag", "--force", "1.10.0", before.commit)
    catalog.refresh()
    assert catalog.health()[1]["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("copier.yml", None, "its copier.yml cannot be read"),
        ("copier.yml", "challenge: [", "its copier.yml is not valid YAML"),
        ("copier.yml", "1", "its copier.yml is not a mapping"),
        ("copier.yml", "challenge: {}", "its copier.yml has no choices of challenge"),
        ("challenges/law.yml", None, "its challenges/law.yml cannot be read"),
        ("challenges/law.yml", "title: Law", "its facts cannot be shown on the page"),
        ("challenges/rules.yml", "a: 1", "its facts cannot be shown on the page"),
    ],
)
def test_a_broken_tag_takes_one_version_down(
    path: str, text: str | None, reason: str, template: Path
) -> None:
    (template / path).unlink() if text is None else (template / path).write_text(text)
    commit(template, "v2.0.0")
    hub = client_of(template)
    assert hub.get("/").status_code == 200
    question = {"app_id": "@flowertune/law", "app_version": None}
    answer = hub.post("/v1/hub/fetch-zip", json=question)
    assert answer.json()["zip_url"].endswith("/1.10.0/flowertune/law.zip")
    report = hub.get("/health").json()
    assert (report["status"], report["version"]) == ("degraded", "1.10.0")
    (problem,) = report["problems"]
    assert problem.startswith(f"version 2.0.0 cannot be served: {reason}")
    refused = hub.post("/v1/hub/fetch-zip", json={**question, "app_version": "2.0.0"})
    assert refused.status_code == 503
    assert reason in refused.json()["detail"]


def test_a_failed_version_gets_another_try(template: Path) -> None:
    catalog, now = catalog_of(template)
    _, newest = catalog.find("@flowertune/finance", None)
    catalog.failed(newest, "@flowertune/finance")
    assert catalog.find("@flowertune/finance", None)[1].version == "1.9.0"
    now[0] += module.REST_SECONDS + 1
    assert catalog.find("@flowertune/finance", None)[1] == newest
    assert catalog.health()[1]["status"] == "degraded"  # not shown to be well yet
    catalog.worked(newest, "@flowertune/law")
    assert catalog.health()[1]["status"] == "degraded"
    catalog.worked(newest, "@flowertune/finance")
    assert catalog.health()[1]["status"] == "ok"


def test_what_no_known_version_has_is_unknown_beside_a_broken_tag(template: Path) -> None:
    (template / "copier.yml").unlink()
    commit(template, "v2.0.0")
    catalog, _ = catalog_of(template)
    with pytest.raises(Unknown, match="no app @flowertune/finace here"):
        catalog.find("@flowertune/finace", None)
    assert catalog.find("@flowertune/finance", None)[1].version == "1.10.0"


def test_what_may_be_there_is_down_where_no_version_is_known(template: Path) -> None:
    for tag in git(template, "tag").split():
        git(template, "tag", "-d", tag)
    (template / "copier.yml").unlink()
    commit(template, "v2.0.0")
    catalog, _ = catalog_of(template)
    with pytest.raises(Down, match="No version of @flowertune/finance can be served just now"):
        catalog.find("@flowertune/finance", None)


def test_a_repository_that_goes_away_takes_no_version_with_it(template: Path) -> None:
    catalog, _ = catalog_of(template)
    template.rename(template.with_name("away"))
    catalog.refresh()
    assert catalog.find("@flowertune/law", None)[1].version == "1.10.0"
    well, report = catalog.health()
    assert well and report["problems"] == [
        "the template's repository cannot be read; the log says why"
    ]
    template.with_name("away").rename(template)
    catalog.refresh()
    assert catalog.health()[1]["status"] == "ok"
