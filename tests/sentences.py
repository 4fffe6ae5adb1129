"""Every sentence that a user can be told as an error, as templates read out of the source."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("flowertune", "evaluation", "challenges", "submissions")
GOLDEN = ROOT / "tests" / "flowertune" / "sentences.txt"
# How a sentence about a setting ends, also where it is made elsewhere than its error.
WHERE = "({WHERE})."
HEAD = """\
# Every sentence of a UserError, by file and in the order of the source. {…} is filled in; a line
# that begins with … is a part of a sentence. Written by ./scripts/generate: a sentence that changed
# shows here, to be read once more.
"""


def sentences() -> str:
    """Return the content of the golden file."""
    sources = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    kinds = _error_names(sources.values())
    makers = _maker_names(sources.values(), kinds)
    blocks = [HEAD]
    for name, tree in sources.items():
        lines = list(_templates(tree, kinds, makers))
        lines += [text for node in ast.walk(tree) if (text := _text(node)).endswith(WHERE)]
        if lines:
            blocks.append(f"\n{name}\n" + "".join(f"  {line}\n" for line in dict.fromkeys(lines)))
    return "".join(blocks)


def _error_names(trees: Iterable[ast.Module]) -> set[str]:
    """The names of UserError and its subclasses."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    kinds = {"UserError"}
    for _ in classes:
        kinds |= {node.name for node in classes if {_last(base) for base in node.bases} & kinds}
    return kinds


def _maker_names(trees: Iterable[ast.Module], kinds: set[str]) -> set[str]:
    """The names of functions that return such an error."""
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns and _last(node.returns) in kinds
    }


def _templates(tree: ast.Module, kinds: set[str], makers: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last(node.func) in kinds | makers:
            mark = "" if _last(node.func) in kinds else "… "
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            texts = [text for a in arguments if len((text := _text(a)).split()) > 1]
            yield from (mark + text for text in texts)
        if isinstance(node, ast.FunctionDef):
            yield from _parts(node, kinds | makers)


def _parts(function: ast.FunctionDef, kinds: set[str]) -> Iterator[str]:
    """What is assigned in a function to the names that its errors are made with."""
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and _last(n.func) in kinds]
    names = {n.id for call in calls for n in ast.walk(call) if isinstance(n, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and {_last(target) for target in node.targets} & names:
            values = [node.value]
            if isinstance(node.value, ast.IfExp):
                values = [node.value.body, node.value.orelse]
            yield from (f"… {text}" for v in values if len((text := _text(v)).split()) > 1)


def _text(node: ast.AST) -> str:
    """A text as it stands in the source, with what is filled in in braces; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    if isinstance(node, ast.JoinedStr):
        parts = [
            part.value
            if isinstance(part, ast.Constant)
            else ast.unparse(ast.JoinedStr([part]))[2:-1]
            for part in node.values
        ]
        return " ".join("".join(map(str, parts)).split())
    return ""


def _last(node: ast.AST) -> str:
    """The last name of a dotted one."""
    return ast.unparse(node).strip("'\"").rpartition(".")[2]
