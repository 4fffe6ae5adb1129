"""Every command that this project prints: where it stands, and what it would need to run."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import typer

import challenges
from tests.apps import ROOT, rendered

PROGRAMS = {
    "flowertune", "flwr", "flwr-profile", "flower-superlink", "flower-supernode", "python",
    "copier", "pip", "git", "hf", "tensorboard", "docker", "openssl", "uv", "uvx", "ray",
    "lm_eval", "mkdocs", "./scripts/test", "./scripts/quickstart",
}  # fmt: skip
_FENCE = re.compile(r"^```(?:shell|bash|console|sh)\n(.*?)^```", re.M | re.S)
_ANY_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_INLINE = re.compile(r"`([^`]+)`")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")
_MARK = re.compile(r"\(((?:GPU|hub|account|machines)(?:, (?:GPU|hub|account|machines))*)\)")
# Written for the reader to fill in; a tool's own parser takes any name.
_HOLES = {
    r"<this repo(sitory)?>|<template>|<the template's address>|TEMPLATE|ADDRESS": "../template",
    r"results/RUN|results/<run( id)?>|results/<id>": "results/20261127_101112",
    r"<run id>|<run>|<id>|RUN\b": "20261127_101112",
    r"<account>": "somebody",
    r"<challenge>": "finance",
    r"<[\w ]+>": "something",
}


@dataclass(frozen=True)
class Printed:
    """A command as printed.

    Attributes:
        where: the page, or the command whose help it stands in.
        words: the command, split as a shell does; what the reader fills in is filled in.
        marks: what the text says that it needs: GPU, hub, account, machines.
        app: the rendered app in whose folder it is typed.
    """

    where: str
    words: tuple[str, ...]
    marks: frozenset[str]
    app: Path

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def commands(text: str, where: str, app: Path) -> Iterator[Printed]:
    """Yield the commands of a Markdown page: the lines of its blocks, and those inside a sentence.

    A mark counts where it stands behind the command or in its paragraph; for a block, that is the
    paragraph above it, too.
    """
    rest = _ANY_FENCE.sub("\n", text)
    for block in _FENCE.finditer(text):
        above = text[: block.start()].rstrip().rpartition("\n\n")[2]
        yield from lines(block[1], where, app, above)
    for paragraph in re.split(r"\n\n|\n(?=- |\d\. |\| )", rest):
        flat = " ".join(paragraph.split())
        for found in _INLINE.finditer(flat):
            for words in split(found[1]):
                # A name alone, such as `flwr run`, is spoken of and not to be typed.
                if words[0] in PROGRAMS and len(words) > 1 and not _is_name(words):
                    yield Printed(where, words, marks_in(flat), app)


def _is_name(words: tuple[str, ...]) -> bool:
    return words[1] == "@" or (len(words) == 2 and words[1].isalpha())


def lines(text: str, where: str, app: Path, above: str = "") -> Iterator[Printed]:
    """Yield the commands of lines typed one after the other; `\\` at a line's end joins two."""
    for line in text.replace("\\\n", " ").splitlines():
        for words in split(line):
            yield Printed(where, words, marks_in(line) | marks_in(above), app)


def split(line: str) -> list[tuple[str, ...]]:
    """Return the commands of one line, split at `&&`, without comments and assignments."""
    line = line.strip().removeprefix("$ ")
    for hole, filled in _HOLES.items():
        line = re.sub(hole, filled, line)
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []  # prose
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "|", "--") and word != "--":
            parts.append([])
        elif parts[-1] or not _ASSIGNMENT.fullmatch(word):
            parts[-1].append(word)
    return [tuple(part) for part in parts if part]


def marks_in(text: str) -> frozenset[str]:
    """Return the marks that stand in a text, such as (GPU, hub)."""
    return frozenset(mark for found in _MARK.finditer(text) for mark in found[1].split(", "))


def on_pages() -> Iterator[Printed]:
    """Yield the commands of the repository's own pages; an app's are those of finance."""
    app = rendered("finance")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))):
        yield from commands(page.read_text("utf-8"), page.relative_to(ROOT).as_posix(), app)


def in_apps() -> Iterator[Printed]:
    """Yield the commands of every app's README and quickstart.toml, under every rule set."""
    for rules in challenges.rule_sets():
        for name in challenges.names():
            app = rendered(name, rules)
            yield from commands((app / "README.md").read_text("utf-8"), f"{name} ({rules})", app)
            notes = [
                line.removeprefix("#").strip()
                for line in (app / "quickstart.toml").read_text("utf-8").splitlines()
                if line.startswith("#   ")
            ]
            yield from lines("\n".join(notes), f"quickstart.toml of {name} ({rules})", app)


def in_helps() -> Iterator[Printed]:
    """Yield the examples in the --help of every command of this project."""
    from evaluation import all as several
    from evaluation import cli, sets
    from flowertune.cli.main import commands as flowertune

    app = rendered("finance")
    group = typer.main.get_command(flowertune())
    assert isinstance(group, click.Group)
    for command in (group, *group.commands.values()):
        where = f"{command.name} --help"
        yield from _examples(f"{command.help}\n{command.epilog or ''}", where, app)
    yield from _examples(several.parser().epilog or "", "evaluation.all --help", app)
    for module, made in own_parsers().items():
        yield from _examples(made.epilog or "", f"{module} --help", app)
    for name in sets.scored_challenges():
        parser: ArgumentParser = cli.parser(name)
        where = f"{sets.module_name(name)} --help"
        yield from _examples(parser.epilog or "", where, rendered(name))


def own_parsers() -> dict[str, ArgumentParser]:
    """The parsers of modules that are commands of their own, by module."""
    from challenges import pin
    from evaluation.contamination import cli as contamination
    from submissions.bundle import cli as submit
    from submissions.convergence import cli as reference

    return {
        "challenges.pin": pin.parser(),
        "evaluation.contamination": contamination.parser(),
        "evaluation.reference": reference.parser(),
        "evaluation.submit": submit.parser(),
    }


def _examples(text: str, where: str, app: Path) -> Iterator[Printed]:
    above = ""
    for line in text.splitlines():
        # An example and what is said of it stand beside each other, apart by spaces.
        command, _, said = line.strip().partition("   ")
        if command.split(" ")[0] in PROGRAMS and not command.endswith("."):
            for words in split(command):
                yield Printed(where, words, marks_in(said) | marks_in(above), app)
        above = line
