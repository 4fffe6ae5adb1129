"""The guide "Add a challenge" in CONTRIBUTING.md, followed to the letter."""

import json
import re
import sys
import tomllib
from pathlib import Path

from flwr.common.config import flatten_dict

from flowertune.base.hashing import json_sha256
from tests.templates import ROOT, clone, commit, git, render, run_in


def guide() -> str:
    """The commands of the guide."""
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("\n## Add a challenge\n")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block.group(1)


def test_the_guide_adds_a_challenge_without_python(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    done = run_in(repository, "bash", "-e", "-u", "-o", "pipefail", "-c", guide())
    assert done.returncode == 0, done.stderr
    commit(repository)
    touched = git(repository, "diff", "--name-only", "v1.0.0", "HEAD").split()
    assert sorted(touched) == [
        "challenges/law.yml",
        "challenges/published/50-supernodes-1.0.0.json",
        "challenges/published/flower.ai-1.0.0.json",
        "challenges/rules.yml",
        "challenges/samples/law.jsonl",
        "copier.yml",
    ]

    app = render(tmp_path / "app", repository, challenge="law")
    config = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    assert config["project"]["description"].startswith("FlowerTune Law: ")
    assert "# FlowerTune: Law" in (app / "README.md").read_text("utf-8")
    assert [path.name for path in (app / "samples").iterdir()] == ["law.jsonl"]

    code = (
        "import challenges, json; "
        "print(json.dumps([challenges.names(), challenges.static_table('law', '50-supernodes'), "
        "challenges.expected_digest('law', '50-supernodes')]))"
    )
    names, static, digest = json.loads(run_in(repository, sys.executable, "-c", code).stdout)
    assert "law" in names
    locked = flatten_dict(config["tool"]["flwr"]["app"]["config"]["static"])
    assert locked == static
    assert json_sha256(locked) == digest
