"""The layers of the library: a module imports what lies below it, and nothing above.

Every import counts: at the top of a file, late inside a function, and for type checkers only.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Lowest first; a module also imports from its own room.
ROOMS = (
    "base", "config", "rules", "profiling", "data", "models", "comms", "loggers", "aggregation",
    "methods", "run", "client", "chat", "planning", "deploy", "profiler", "report", "watch",
    "compare", "cli",
)  # fmt: skip
# What evaluation and challenges may use of the library.
FOR_SCORING = {"base", "rules", "models", "data"}
# The record of what is published: data that every SuperNode reads.
RECORD = "challenges.record"
PACKAGES = ("flowertune", "evaluation", "challenges", "submissions")
# The commands of submissions have the scorer's name: nothing but a way to them.
THIN = {f"evaluation.{name}" for name in ("submit", "verify", "replay", "leaderboard", "reference")}
THIN_LINES = 12


@cache
def modules() -> dict[str, Path]:
    """Every module of the distribution, by its name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, source: str) -> Iterator[str]:
    """Every module of the distribution, and everything of the template, that a source imports."""
    package = module if modules().get(module, Path()).name == "__init__.py" else ""
    package = package or module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""]) if node.level else node.module or ""
            names = [f"{base.strip('.')}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(
            node.func, "attr", getattr(node.func, "id", "")
        ) in ("import_module", "__import__"):
            names = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
        else:
            continue
        for name in names:
            while name and name not in modules() and "." in name:
                name = name.rpartition(".")[0]
            if name.partition(".")[0] in (*PACKAGES, "template", "tests"):
                yield name


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the distribution."""
    return {
        name: set(imported(name, path.read_text("utf-8"))) - {name}
        for name, path in modules().items()
    }


def room(module: str) -> str:
    """The room of a module of the library; "" for the package itself."""
    name = module.split(".")[1] if "." in module else ""
    # python -m flowertune is another name of the command line
    return "cli" if name == "__main__" else name


def upward(pairs: Iterator[tuple[str, str]]) -> list[str]:
    """The imports of a higher room by a lower one."""
    return [f"{a} imports {b}" for a, b in pairs if ROOMS.index(room(b)) > ROOMS.index(room(a))]


def inside() -> Iterator[tuple[str, str]]:
    """Every import of one room's module by a room's module."""
    for module, names in imports().items():
        for name in sorted(names):
            if module.startswith("flowertune.") and name.startswith("flowertune."):
                yield module, name


def test_every_room_has_its_place():
    folders = {path.parent.name for path in (ROOT / "flowertune").glob("*/*.py")}
    assert folders == set(ROOMS)


def test_no_room_imports_a_higher_one():
    assert upward(inside()) == []


def test_no_module_imports_the_package_itself():
    """The public names are for apps: inside, an import says which module it needs."""
    assert [m for m, names in imports().items() if "flowertune" in names] == []


def test_modules_import_each_other_in_no_circle():
    graph = {
        module: {name for name in names if name in modules()} for module, names in imports().items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_library_imports_no_scoring():
    others = {
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in names
        if module.startswith("flowertune") and not name.startswith("flowertune")
    }
    assert {text for text in others if not text.endswith(f" imports {RECORD}")} == set()
    # Whoever imports the record imports the package around it.
    below = {name for name in imports()["challenges"] if room(name) != "base"}
    assert below <= {RECORD}


@pytest.mark.parametrize("package", ["evaluation", "challenges"])
def test_scoring_imports_the_lowest_rooms_only(package: str):
    assert [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if module.startswith(package)
        and name.startswith("flowertune")
        and room(name) not in FOR_SCORING
    ] == []


def test_nothing_below_imports_what_is_made_of_submissions():
    others = {
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in names
        if name.startswith("submissions") and not module.startswith("submissions")
    }
    assert {text for text in others if text.partition(" ")[0] not in THIN} == set()


@pytest.mark.parametrize("module", sorted(THIN))
def test_a_command_of_submissions_below_is_a_way_to_it_and_no_more(module: str):
    if module not in modules():
        pytest.skip(f"there is no {module}")
    source = modules()[module].read_text("utf-8")
    assert len(source.splitlines()) <= THIN_LINES
    assert {name.partition(".")[0] for name in imports()[module]} == {"submissions"}
    # Whoever imports the scorer imports nothing of it.
    at_once = [
        node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert at_once == []


def test_nothing_imports_an_app_or_a_test():
    assert [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if name.partition(".")[0] in ("template", "tests")
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "from flowertune.cli import chat",
        "import flowertune.cli.chat as c",
        "from ..cli.chat import main",
        "def f():\n    from flowertune.cli.chat import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flowertune.cli.chat",
        "import importlib\nimportlib.import_module('flowertune.cli.chat')",
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(source: str):
    module = "flowertune.base.files"
    assert upward((module, name) for name in imported(module, source)) == [
        f"{module} imports flowertune.cli.chat"
    ]
