"""What `copier copy` makes of the template: files, values, one sentence for a bad answer."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

import challenges
from tests.apps import rendered
from tests.templates import ROOT, commit, contents, git, render, template_only

TEMPLATE = ROOT / "template"
QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
RULES = list(challenges.rule_sets())


@pytest.fixture(scope="module")
def apps() -> Mapping[str, Path]:
    """Challenge -> its app, rendered with the default answers. Read-only: the tests share them."""
    return {name: rendered(name) for name in challenges.names()}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TOML table -> dotted key -> value, as flwr flattens it."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def pyproject(app: Path) -> dict[str, Any]:
    return tomllib.loads((app / "pyproject.toml").read_text("utf-8"))


def copier(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "copier", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_challenges_offered_are_the_challenges_there_are() -> None:
    assert sorted(QUESTIONS["challenge"]["choices"]) == challenges.names()
    assert QUESTIONS["rules"]["choices"] == RULES


def test_copier_needs_no_trust() -> None:
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & set(QUESTIONS)


def test_template_version_is_the_version_of_the_repository() -> None:
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert QUESTIONS["template_version"]["default"] == repository["project"]["version"]


def package_of(name: str) -> str:
    """The app's Python package, named as in Flower's documents."""
    return (
        name.replace("-", "_")
        if name == "flowertune-llm"
        else f"flowertune_{name}".replace("-", "_")
    )


def alike(name: str, app: Path) -> dict[str, bytes]:
    """An app's files, with the names that differ between challenges made the same."""
    return {
        path.replace(f"{package_of(name)}/", "package/").replace(f"/{name}.", "/sample."): data
        for path, data in contents(app).items()
    }


def test_renders_differ_only_in_configuration_readme_and_sample(apps: Mapping[str, Path]) -> None:
    trees = {name: alike(name, app) for name, app in apps.items()}
    first = trees["finance"]
    for tree in trees.values():
        assert set(tree) == set(first)
        differ = {path for path in tree if tree[path] != first[path]}
        assert differ <= {
            "pyproject.toml",
            "quickstart.toml",
            "README.md",
            ".copier-answers.yml",
            "RULES-50-supernodes-1.0.0.md",
            "samples/sample.jsonl",
        }


def test_python_files_are_copied_as_they_are(apps: Mapping[str, Path]) -> None:
    sources = {f"package/{path.name}": path.read_bytes() for path in TEMPLATE.glob("app/*.py")}
    sources |= {path.name: path.read_bytes() for path in TEMPLATE.glob("*.py")}
    assert {"package/client_app.py", "test.py"} <= set(sources)
    for name, app in apps.items():
        tree = alike(name, app)
        assert {path: data for path, data in tree.items() if path.endswith(".py")} == sources
    for path, data in sources.items():
        # An f-string may hold doubled braces; an expression or a statement of Jinja has a blank.
        assert b"{{ " not in data, path
        assert b"{% " not in data, path


def test_an_app_has_the_files_a_flower_app_needs(apps: Mapping[str, Path]) -> None:
    for name, app in apps.items():
        for path in (
            "README.md",
            "LICENSE",
            ".gitignore",
            ".copier-answers.yml",
            "quickstart.toml",
        ):
            assert (app / path).is_file(), path
        assert not (app / "LICENSE").is_symlink()
        own = {f"{name}.jsonl"} if challenges.sample(name).is_file() else set()
        assert {path.name for path in app.glob("samples/*")} == own


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", challenges.names())
def test_the_static_table_is_the_locked_one(name: str, rules: str) -> None:
    app = rendered(name, rules)
    config = pyproject(app)
    static = flat(config["tool"]["flwr"]["app"]["config"]["static"])
    assert static == challenges.static_table(name, rules)
    assert config["tool"]["flowertune"]["supernodes"] == (static["num-supernodes"] or 20)


def test_defaults_are_the_official_ones(apps: Mapping[str, Path]) -> None:
    finance = flat(pyproject(apps["finance"])["tool"]["flwr"]["app"]["config"])
    official = {
        "num-server-rounds": 200,
        "model.name": "mistralai/Mistral-7B-v0.3",
        "model.quantization": 4,
        "model.gradient-checkpointing": "auto",
        "model.trust-remote-code": False,
        "model.lora.peft-lora-r": 32,
        "model.lora.peft-lora-alpha": 64,
        "model.lora.peft-lora-dropout": 0.075,
        "train.save-every-round": 5,
        "train.learning-rate-max": 5e-5,
        "train.learning-rate-min": 1e-6,
        "train.seq-length": 512,
        "train.training-arguments.per-device-train-batch-size": 16,
        "train.training-arguments.gradient-accumulation-steps": 1,
        "train.training-arguments.max-steps": 10,
        "strategy.fraction-train": 0.1,
    }
    assert {key: finance[key] for key in official} == official
    assert flat(pyproject(apps["code"])["tool"])["flwr.app.config.strategy.fraction-train"] == 0.2
    base = flat(pyproject(apps["flowertune-llm"])["tool"]["flwr"]["app"]["config"])
    assert (base["num-server-rounds"], base["model.name"]) == (
        100,
        "openlm-research/open_llama_3b_v2",
    )


def test_every_setting_has_a_comment(apps: Mapping[str, Path]) -> None:
    """Each line of the table stands under a comment of its paragraph, or carries one."""
    text = (apps["finance"] / "pyproject.toml").read_text("utf-8")
    table = text[
        text.index("\n[tool.flwr.app.config]") : text.index("\n[tool.flwr.app.config.static]")
    ]
    settings = 0
    for paragraph in table.split("\n\n"):
        commented = False
        for line in paragraph.splitlines():
            commented = commented or line.startswith("#")
            if " = " in line and not line.startswith("#"):
                settings += 1
                assert commented or "  # " in line, line
    assert settings > 20


def test_quickstart_sets_only_settings_there_are(apps: Mapping[str, Path]) -> None:
    for name, app in apps.items():
        config = flat(pyproject(app)["tool"]["flwr"]["app"]["config"])
        quickstart = flat(tomllib.loads((app / "quickstart.toml").read_text("utf-8")))
        assert set(quickstart) <= set(config)
        assert all(type(quickstart[key]) is type(config[key]) for key in quickstart)
        assert quickstart["static.dataset.name"] == f"./samples/{name}.jsonl"
        prompt = quickstart.get("prompt.template")
        assert prompt == challenges.load(name)["scorer-prompt"]


def test_the_readme_has_a_map_of_the_app(apps: Mapping[str, Path]) -> None:
    for name, app in apps.items():
        readme = (app / "README.md").read_text("utf-8")
        map_of_files = readme.split("## What is where")[1].split("\n## ")[0].split("```")[1]
        named = {line.split()[0] for line in map_of_files.strip().splitlines()}
        modules = {path.name for path in (app / package_of(name)).glob("[a-z]*.py")}
        assert len(modules) == 5
        assert modules | {f"{package_of(name)}/", "pyproject.toml", "test.py"} <= named


def test_the_readme_is_one_read_of_ten_minutes(apps: Mapping[str, Path]) -> None:
    for app in apps.values():
        assert len((app / "README.md").read_text("utf-8").splitlines()) <= 170


def test_the_pages_that_the_readme_names_are_there(apps: Mapping[str, Path]) -> None:
    for app in apps.values():
        named = re.findall(r"docs/[a-z/-]+\.md", (app / "README.md").read_text("utf-8"))
        assert len(named) > 5
        assert [page for page in named if not (ROOT / page).is_file()] == []


@pytest.mark.parametrize("name", challenges.names())
def test_the_readme_keeps_its_front_matter(name: str, apps: Mapping[str, Path]) -> None:
    text = (apps[name] / "README.md").read_text("utf-8")
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == challenges.load(name)["readme"]
    for heading in ("Start", "What is where", "What is locked", "Which library runs"):
        assert f"\n## {heading}\n" in text


def test_answers_reach_the_app(tmp_path: Path) -> None:
    app = render(tmp_path / "app", project_name="My-App-2", publisher="an_organizer")
    config = pyproject(app)
    assert config["project"]["name"] == "My-App-2"
    assert config["tool"]["flwr"]["app"]["publisher"] == "an_organizer"
    answers = yaml.safe_load((app / ".copier-answers.yml").read_text("utf-8"))
    assert {key for key in answers if not key.startswith("_")} == {
        "challenge",
        "project_name",
        "publisher",
        "rules",
    }


def test_an_app_is_called_like_its_folder_or_like_its_challenge(tmp_path: Path) -> None:
    """Two apps of a challenge have names of their own: results are kept apart by them."""
    for folder, challenge, name in (
        ("my-finance", "finance", "my-finance"),
        ("2026 finance", "finance", "flowertune-finance"),
        ("llm_", "flowertune-llm", "flowertune-llm"),
    ):
        app = render(tmp_path / folder, challenge=challenge)
        assert pyproject(app)["project"]["name"] == name


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("challenge=nothing", ("'challenge'", "'nothing'", "'finance'", "'flowertune-llm'")),
        ("rules=20-supernodes", ("'rules'", "'20-supernodes'", "'flower.ai'")),
        ("project_name=my_app", ('"my_app"', "32 letters, digits and inner hyphens")),
        ("project_name=9lives", ('"9lives"', "a letter first")),
        ("project_name=app-", ('"app-"', "inner hyphens")),
        ("project_name=" + "a" * 33, ('"' + "a" * 33 + '"', "at most 32")),
        ("project_name=", ('""', "a letter first")),
        ("publisher=a.b", ('"a.b"', "letters, digits, hyphens and underscores")),
    ],
)
def test_a_bad_answer_ends_in_one_sentence(
    answer: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    done = copier(
        "copy", "--defaults", "--vcs-ref", "HEAD", "--data", answer, ROOT, tmp_path / "app"
    )
    last_line = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    for part in parts:
        assert part in last_line
    assert not (tmp_path / "app").exists()


def test_what_a_prompt_says_of_a_bad_answer_fits_a_terminal() -> None:
    """Copier's prompt shows one line of it, cut at the terminal's edge."""
    environment = Environment(extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"])
    for name in ("project_name", "publisher"):
        text = environment.from_string(QUESTIONS[name]["validator"]).render({name: "my_app.5"})
        assert "my_app.5" in text and len(text.strip()) <= 80


@pytest.mark.parametrize("name", ["a", "a" * 32, "My-App-2"])
def test_names_that_flwr_takes_are_taken(name: str, tmp_path: Path) -> None:
    from flwr.supercore.utils import is_valid_name

    assert is_valid_name(name)[0]
    assert pyproject(render(tmp_path / "app", project_name=name))["project"]["name"] == name


def test_an_app_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    app = render(tmp_path / "app")
    (app / "pyproject.toml").write_text("mine")
    before = contents(app)
    done = copier("copy", "--defaults", "--vcs-ref", "HEAD", ROOT, app)
    last_line = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    for part in (str(app), "already", "copier update", "--overwrite"):
        assert part in last_line
    assert contents(app) == before

    done = copier("copy", "--defaults", "--overwrite", "--vcs-ref", "HEAD", ROOT, app)
    assert done.returncode == 0, done.stderr
    assert pyproject(app)["project"]["name"] == "app"


def test_sample_rows_never_pass_through_jinja(tmp_path: Path) -> None:
    rows = (
        b'{"instruction": "{{ 1 + 1 }}", "input": "{% if %}{# note #}", "output": "{{ nothing"}\r\n'
    )
    repository = template_only(tmp_path / "repository")
    (repository / "challenges/samples/finance.jsonl").write_bytes(rows)
    commit(repository)
    app = render(tmp_path / "app", repository)
    assert (app / "samples/finance.jsonl").read_bytes() == rows


def test_caches_of_a_tested_template_do_not_reach_the_app(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository")
    before = set(contents(render(tmp_path / "before", repository)))
    for path in ("__pycache__/dataset.cpython-311.pyc", ".ruff_cache/x", "rooms/__pycache__/y.pyc"):
        file = repository / "template/app" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        git(repository, "add", "--force", str(file))
    commit(repository)
    assert set(contents(render(tmp_path / "after", repository))) == before


def test_a_misspelt_name_in_a_template_file_fails_the_render(tmp_path: Path) -> None:
    repository = template_only(tmp_path / "repository")
    with (repository / "template/quickstart.toml.jinja").open("a") as file:
        file.write("{{ chalenge }}\n")
    commit(repository)
    done = copier("copy", "--defaults", "--vcs-ref", "HEAD", repository, tmp_path / "app")
    assert done.returncode != 0
    assert "'chalenge' is undefined" in done.stderr


@pytest.mark.parametrize("rules", RULES)
def test_the_rules_of_the_base_example_allow_any_number_of_supernodes(rules: str) -> None:
    app = rendered("flowertune-llm", rules)
    text = next(app.glob("RULES-*.md")).read_text("utf-8")
    assert "| SuperNodes | any number: this is an example, not a challenge |" in text
    for line in text.splitlines():
        if "SuperNodes" in line and re.search(r"\d", line):
            assert "any number" in line or "one for each" in line, line


@pytest.mark.parametrize("name", challenges.names())
def test_every_quickstart_averages_several_clients(name: str) -> None:
    facts = challenges.load(name)
    supernodes = facts["supernodes"]["50-supernodes"] or facts["default-supernodes"]
    assert facts["quickstart"]["strategy.fraction-train"] * supernodes >= 2


@pytest.mark.parametrize("name", challenges.names())
def test_the_readme_asks_for_an_account_only_where_the_model_is_gated(name: str) -> None:
    readme = (rendered(name) / "README.md").read_text("utf-8")
    assert ("hf auth login" in readme) is challenges.load(name)["gated"]
