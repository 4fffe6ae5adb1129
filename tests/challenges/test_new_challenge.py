"""The guide "Add a challenge" in CONTRIBUTING.md, followed to the letter."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.common.config import flatten_dict

import challenges
from flowertune.base.hashing import json_sha256
from tests.templates import ROOT, clone, commit, git, render, run_in

# A challenge that is not there yet, also where somebody has followed the guide already.
NAME = next(n for n in ("law", "law-2", "law-3") if n not in challenges.names())
# Tests that look at every challenge and cost little.
LOOK_AT_EVERY_CHALLENGE = (
    "tests/challenges/test_facts.py",
    "tests/challenges/test_digests.py",
    "tests/template/test_render.py::test_the_challenges_offered_are_the_challenges_there_are",
)


def blocks() -> list[str]:
    """The commands of the guide, block by block, for a challenge that is not there yet."""
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("\n## Add a challenge\n")[1]
    found = re.findall(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    return [re.sub(r"\blaw\b", NAME, block) for block in found]


def typed(repository: Path, commands: str) -> str:
    """What commands print that are typed in a repository; they must succeed."""
    done = run_in(repository, "bash", "-e", "-u", "-o", "pipefail", "-c", commands)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout, in which the guide was followed."""
    made = clone(tmp_path_factory.mktemp("guide") / "repository")
    typed(made, blocks()[0])
    return made


def test_the_guide_adds_a_challenge_without_python(repository: Path, tmp_path: Path) -> None:
    changed = git(repository, "status", "--porcelain").split("\n")
    assert sorted(line[3:] for line in changed if line) == [
        f"challenges/{NAME}.yml",
        "challenges/published/50-supernodes-1.0.0.json",
        "challenges/published/flower.ai-1.0.0.json",
        "challenges/rules.yml",
        f"challenges/samples/{NAME}.jsonl",
        "copier.yml",
    ]

    # The guide's own way to look at a render, of a checkout that has not been committed.
    rendering = next(line for line in blocks()[1].splitlines() if line.startswith("copier copy"))
    typed(repository, rendering.replace(f"/tmp/my-{NAME}", str(tmp_path / "app")))
    app = tmp_path / "app"
    config = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    assert config["project"]["description"].startswith("FlowerTune Law: ")
    assert [path.name for path in (app / "samples").iterdir()] == [f"{NAME}.jsonl"]
    readme = (app / "README.md").read_text("utf-8")
    assert "# FlowerTune: Law" in readme
    assert "python -m evaluation" not in readme and "no scorer for the challenge yet" in readme

    code = (
        "import challenges, json; "
        f"print(json.dumps([challenges.names(), challenges.static_table('{NAME}', "
        f"'50-supernodes'), challenges.expected_digest('{NAME}', '50-supernodes')]))"
    )
    names, static, digest = json.loads(run_in(repository, sys.executable, "-c", code).stdout)
    assert NAME in names
    locked = flatten_dict(config["tool"]["flwr"]["app"]["config"]["static"])
    assert locked == static
    assert json_sha256(locked) == digest


def test_the_guide_leaves_the_tests_green_that_look_at_every_challenge(repository: Path) -> None:
    typed(repository, f"{sys.executable} -m pytest -q {' '.join(LOOK_AT_EVERY_CHALLENGE)}")


@pytest.mark.full
def test_the_guides_own_tests_are_green(repository: Path) -> None:
    commit(repository)
    command = blocks()[1].splitlines()[-1]
    assert command.startswith("./scripts/test tests/template/test_render.py tests/challenges")
    files = command.removeprefix("./scripts/test ")
    typed(repository, f"{sys.executable} -m pytest -q -m 'not full' {files}")


def test_a_challenge_with_a_scorer_has_its_command_in_the_readme(tmp_path: Path) -> None:
    readme = (render(tmp_path / "app", challenge="general-nlp") / "README.md").read_text("utf-8")
    assert "python -m evaluation.general_nlp results/" in readme
