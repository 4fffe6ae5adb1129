"""A rendered app: few files, the method in sight, and the library through its public names only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import challenges
import flowertune
from tests.apps import ROOT, rendered

SOURCE = ROOT / "template" / "app"
LIBRARY = ROOT / "flowertune"
CHALLENGES = challenges.names()


def files(app: Path) -> list[Path]:
    """The files of a rendered app, bytecode of other tests aside."""
    return [path for path in app.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def package(app: Path) -> Path:
    return next(app.glob("*/client_app.py")).parent


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_an_app_is_a_handful_of_files(challenge: str):
    app = rendered(challenge)
    there = files(app)
    python = [path for path in there if path.suffix == ".py"]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in python}
    assert len(there) <= 16, sorted(str(path.relative_to(app)) for path in there)
    assert len(python) <= 7
    assert sum(lines.values()) <= 500, lines
    assert not any(path.is_symlink() for path in there)


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_its_python_is_the_same_in_every_challenge(challenge: str):
    app = rendered(challenge)
    content = {path.name: path.read_bytes() for path in package(app).glob("*.py")}
    assert content == {path.name: path.read_bytes() for path in SOURCE.glob("*.py")}
    assert (app / "test.py").read_bytes() == (ROOT / "template" / "test.py").read_bytes()


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_its_package_is_named_as_in_flowers_documents(challenge: str):
    name = challenge.replace("-", "_")
    name = name if name.startswith("flowertune_") else f"flowertune_{name}"
    app = rendered(challenge)
    assert package(app).name == name
    text = (app / "pyproject.toml").read_text("utf-8")
    assert f'serverapp = "{name}.server_app:app"' in text
    assert f'clientapp = "{name}.client_app:app"' in text


def python_files() -> list[Path]:
    return [*sorted(SOURCE.glob("*.py")), ROOT / "template" / "test.py"]


def foreign_imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Each import that is not relative: the module, and the name taken from it if any."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.name)
def test_it_uses_public_names_of_the_library_only(path: Path):
    tree = ast.parse(path.read_text("utf-8"))
    of_ours = {
        (module, name)
        for module, name in foreign_imports(tree)
        if module.partition(".")[0] in ("flowertune", "evaluation", "challenges", "tests")
    }
    assert of_ours <= {("flowertune", None)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "flowertune"
    }
    assert used <= set(flowertune.__all__)


def calls(tree: ast.AST) -> set[str]:
    """Whatever a file calls, as it is written: "torch.optim.AdamW", "loss.backward" …"""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize(
    ("file", "function", "wanted"),
    [
        (
            "client_app.py",
            "train",
            {"torch.optim.AdamW", "optimizer.step", "optimizer.zero_grad", "answer_loss",
             "torch.nn.utils.clip_grads_with_norm_", "loss.backward", "p.grad.div_"},
        ),
        ("client_app.py", "answer_loss", {"cross_entropy", "model"}),
        ("strategy.py", "aggregate_train", {"weighted_mean"}),
        ("strategy.py", "configure_train", {"flowertune.sample_clients"}),
        ("models.py", "lora_config", {"LoraConfig"}),
        ("models.py", "learning_rate", {"math.cos"}),
        ("dataset.py", "prompt_and_answer", {"cfg.prompt.template.format_map"}),
        (
            "server_app.py",
            "main",
            {"strategy.configure_train", "run.exchange", "strategy.aggregate_train"},
        ),
    ],
)  # fmt: skip
def test_the_method_is_in_sight(file: str, function: str, wanted: set[str]):
    tree = ast.parse((SOURCE / file).read_text("utf-8"))
    (body,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    assert wanted <= calls(body)


def test_averaging_is_written_out():
    tree = ast.parse((SOURCE / "strategy.py").read_text("utf-8"))
    (mean,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "weighted_mean"]
    assert not any(name.startswith("flowertune") for name in calls(mean))


def test_editors_are_told_of_exactly_the_public_names():
    tree = ast.parse((LIBRARY / "__init__.pyi").read_text("utf-8"))
    told = {
        str(alias.asname): f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    places = flowertune._PUBLIC.items()  # type: ignore[attr-defined]
    assert told == {name: f"flowertune.{module}.{name}" for name, module in places}
    assert sorted(told) == sorted(flowertune.__all__) == dir(flowertune)
    assert {name for name, _ in places} == set(flowertune.__all__)
    for name in flowertune.__all__:
        assert getattr(flowertune, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        flowertune.no_such_name  # type: ignore[attr-defined]  # noqa: B018


HEAVY = ("transformers", "peft", "datasets", "flwr_datasets", "bitsandbytes", "matplotlib", "ray")
LOADED = "import sys; print(sorted(set(sys.modules) & set(sys.argv[1:])))"


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import flowertune; flowertune.client_app", ("torch", *HEAVY)),
        ("import flowertune_finance.client_app", HEAVY),
        ("import flowertune_finance.server_app", ("torch", *HEAVY)),
    ],
)
def test_a_process_starts_without_what_takes_seconds_to_import(statement, heavy):
    """In Flower's Deployment Engine every message starts a process of its own."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", f"{statement}\n{LOADED}", *heavy],
        cwd=rendered("finance"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
