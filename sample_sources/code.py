"""The code training rows: small tasks of code.txt solved in Python, JavaScript and C++."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sample_sources import grammar

_SEED = 2024
_LANGUAGES = {"py": "Python", "js": "JavaScript", "cpp": "C++"}
_CPP_TYPES = {"int": "int", "bool": "bool", "str": "std::string", "ints": "std::vector<int>"}
# A function name cannot carry these signs.
_SPOKEN = {"-": "dash", "_": "underscore", "+": "plus", "/": "slash", "&": "ampersand"}


@dataclass(frozen=True)
class Task:
    """One task with one value of $k: its wordings, its calls and a body in each language."""

    texts: list[str]
    name: str
    arguments: list[tuple[str, str]]
    returns: str
    calls: list[list[Any]]
    bodies: dict[str, list[str]]

    def source(self, language: str) -> str:
        """The whole function in one language ("py", "js" or "cpp")."""
        body = self.bodies[language]
        if language == "py":
            return "\n".join([self.head(language) + ":", *("    " + line for line in body)])
        step = "  " if language == "js" else "    "
        return "\n".join([self.head(language) + " {", *(step + line for line in body), "}"])

    def head(self, language: str) -> str:
        """The function's signature."""
        if language == "cpp":
            arguments = ", ".join(f"{_CPP_TYPES[kind]} {name}" for name, kind in self.arguments)
            return f"{_CPP_TYPES[self.returns]} {self.name}({arguments})"
        arguments = ", ".join(name for name, _ in self.arguments)
        return f"{'def' if language == 'py' else 'function'} {self.name}({arguments})"

    def results(self) -> list[Any]:
        """What the Python solution returns for each call."""
        scope: dict[str, Any] = {}
        exec(self.source("py"), scope)  # our own text, run only where the samples are made
        return [scope[self.name](*call) for call in self.calls]


def tasks() -> list[Task]:
    """Every task of code.txt with every value of its $k."""
    sections = grammar.read(Path(__file__).with_name("code.txt"))
    return [task for lines in sections.values() for task in _tasks(lines)]


def rows() -> list[dict[str, str]]:
    """Training rows; Python rows show a test, the others the signature they are to fill."""
    rng = random.Random(_SEED)
    made = []
    for number, task in enumerate(tasks()):
        others = ["js", "cpp"] if number % 2 else ["cpp", "js"]
        for language, text in zip(["py", "py", *others], task.texts * 2, strict=True):
            instruction = f"Write a {_LANGUAGES[language]} function that {text}."
            shown = _assertion(task) if language == "py" else task.head(language)
            made.append(
                {"instruction": instruction, "input": shown, "output": task.source(language)}
            )
    rng.shuffle(made)
    return made


def _assertion(task: Task) -> str:
    arguments = ", ".join(json.dumps(value) for value in task.calls[0])
    return f"assert {task.name}({arguments}) == {task.results()[0]!r}"


def _tasks(lines: list[str]) -> list[Task]:
    parts: dict[str, list[str]] = {}
    for line in lines:
        mark, _, rest = line.partition(" ")
        parts.setdefault(mark, []).append(rest)
    taken, _, returns = parts["args"][0].partition(" -> ")
    arguments = [tuple(one.split(":")) for one in taken.split(", ")]
    calls = [json.loads(call) for call in parts["try"][0].split(" ; ")]
    made = []
    for value in parts["k"][0].split(" | "):
        words = {"k": value, "j": _SPOKEN.get(value, value)}

        def put(line: str, words: dict[str, str] = words) -> str:
            return line.replace("$k", words["k"]).replace("$j", words["j"])

        made.append(
            Task(
                texts=[put(text) for text in parts["text"]],
                name=put(parts["name"][0]),
                arguments=[(name, kind) for name, kind in arguments],
                returns=returns,
                calls=calls,
                bodies={
                    language: [put(line) for line in parts[language]] for language in _LANGUAGES
                },
            )
        )
    return made
