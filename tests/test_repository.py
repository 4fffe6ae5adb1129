"""The repository itself: what `pip install <repository>` brings, and what its pages promise."""

import tomllib
from pathlib import Path

import challenges
from tests.end_to_end.test_flower_app import wheel
from tests.templates import ROOT, clone


def test_the_wheel_holds_the_data(tmp_path: Path) -> None:
    names = wheel(clone(tmp_path / "repository"), tmp_path / "wheel")
    data = {f"challenges/{name}.yml" for name in challenges.names()} | {"challenges/rules.yml"}
    for pattern in ("challenges/samples/*.jsonl", "evaluation/samples/*/*.jsonl"):
        samples = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
        assert samples, pattern
        data |= samples
    data |= {"flowertune/py.typed", "flowertune/__init__.pyi", "zz_flowertune.pth"}
    data |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "flowertune").rglob("*.json")}
    for ending in ("json", "jinja", "css", "js"):
        found = (ROOT / "submissions").rglob(f"*.{ending}")
        data |= {path.relative_to(ROOT).as_posix() for path in found}
    assert data <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "flowertune", "evaluation", "challenges", "submissions", "flowertune-1.0.0.dist-info",
        "zz_flowertune.pth",
    }  # fmt: skip


def test_the_changelog_has_a_heading_for_locked_values() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "\n### Locked values\n" in text
    for rules, rule_set in challenges.rule_sets().items():
        assert f"`{rules}` {rule_set['version']}" in text


def test_constraints_fit_the_dependencies() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {entry.split(">")[0].split("[")[0].lower() for entry in wanted}
    assert names - {"flowertune"} <= pinned
    assert len(names) > 10
