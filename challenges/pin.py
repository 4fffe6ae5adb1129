"""Pin data and default base models: a new version of the rules that says which rows it means.

python -m challenges.pin            look everything up on the hub, and say what would be pinned
python -m challenges.pin --write    and write it: challenges/*.yml, rules.yml, the published record

To be run in a checkout, where the Hugging Face hub can be reached (`HF_ENDPOINT` names another).
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import challenges
from challenges import digests, pin_lookup, record
from challenges.pin_lookup import Pins
from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.base.files import write_atomically
from flowertune.base.text import counted

_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")
NOT_DONE = 2
# challenges/*.yml go through Jinja and YAML, where these would be something else.
_FORBIDDEN = '"\\{}'
_TEXT = "Training sets, evaluation sets and default base models are pinned: revisions are commits."


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m challenges.pin",
        description="Look up commits, file hashes, row counts and fingerprints of training sets, "
        "evaluation sets and default base models on the Hugging Face hub, for a new version of "
        "every rule set.",
        epilog="exit status: 0 it was looked up (and with --write, written), 2 the command line is "
        "wrong, or it could not be done.",
    )
    add = options.add_argument
    add(
        "--challenges",
        metavar="A,B",
        help="only these; the others stay as they are (default: all)",
    )
    add("--version", metavar="X.Y.Z", help="of the rules (default: the next minor one of each)")
    add("--text", default=_TEXT, help="what `changes` of the rules says (default: %(default)s)")
    add("--write", action="store_true", help="write it; else only say what would be pinned")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_DONE


def _run(arguments: argparse.Namespace) -> int:
    names = _names(arguments.challenges)
    versions = new_versions(challenges.rule_sets(), arguments.version)
    if any(sign in arguments.text for sign in _FORBIDDEN) or not arguments.text.isprintable():
        raise UserError("--text is one line without quotes, braces and backslashes")
    if stale := digests.problems():
        raise UserError(" ".join(stale))
    if not hub.reachable():
        # Late: only for this sentence.
        from huggingface_hub import constants

        raise UserError(
            f"the hub at {constants.ENDPOINT} cannot be reached from here: run this command where "
            "it can, without HF_HUB_OFFLINE"
        )
    pins = {}
    for name in names:
        supernodes = challenges.load(name)["supernodes"]
        print(f"Looking up {name} ...", file=sys.stderr, flush=True)
        pins[name] = pin_lookup.look_up(name, list(supernodes.values()))
    if problems := [f"{name}: {said}" for name, one in pins.items() for said in one.problems]:
        raise UserError("; ".join(problems))
    print(summary(pins))
    if not arguments.write:
        print("Nothing was written; --write does it.", file=sys.stderr)
        return 0
    return _write(pins, versions, arguments.text)


def _names(given: str | None) -> list[str]:
    there = challenges.names()
    names = there if given is None else [name.strip() for name in given.split(",")]
    if wrong := [name for name in names if name not in there]:
        raise UserError(f"--challenges names {', '.join(wrong)}; there are {', '.join(there)}")
    return list(dict.fromkeys(names))


def new_versions(rule_sets: Mapping[str, Any], given: str | None) -> dict[str, str]:
    """Return the version that each rule set gets: the one given, or its next minor one.

    Raises:
        UserError: it is no version, or not a higher one.
    """
    versions = {}
    for name, rule_set in rule_sets.items():
        major, minor, _ = (int(part) for part in rule_set["version"].split("."))
        version = given or f"{major}.{minor + 1}.0"
        known = [tuple(map(int, change["version"].split("."))) for change in rule_set["changes"]]
        if not _VERSION.fullmatch(version) or tuple(map(int, version.split("."))) <= max(known):
            raise UserError(
                f"--version is {version}; give one as 1.2.3 that is higher than those of the rules "
                f"{name} ({', '.join(change['version'] for change in rule_set['changes'])})"
            )
        versions[name] = version
    return versions


def summary(pins: Mapping[str, Pins]) -> str:
    """Return what is pinned, a line for each repository."""
    lines = []
    for name, one in pins.items():
        training, model = one.pinned["training"], one.pinned["model"]
        split = ", ".join(training["partitions"]) or "no number"
        lines.append(
            f"{name}: {training['name']} at {training['revision'][:12]}, "
            f"{counted(training['rows'], 'row')} ({training['unique-rows']:,} different ones), "
            f"partitions for {split} of SuperNodes"
        )
        lines += [
            f"  {key}: {about['name']} at {about['revision'][:12]}, {counted(about['rows'], 'row')}"
            for key, about in one.pinned["evaluation"].items()
        ]
        lines.append(
            f"  base model: {model['name']} at {model['revision'][:12]}, "
            f"{counted(len(model['files']), 'file')}"
        )
    return "\n".join(lines)


def with_revision(text: str, commit: str) -> str:
    """Return a challenge's file with another revision of its training set."""
    made, count = re.subn(r"(?m)^(dataset:\n(?:  .*\n)*?  revision: ).*$", rf"\g<1>{commit}", text)
    if count != 1:
        raise ValueError("the challenge's file names no revision of its data set")
    return made


def with_versions(text: str, versions: Mapping[str, str], said: str) -> str:
    """Return `rules.yml` with new versions, and what they bring at the top of `changes`."""
    for name, version in versions.items():
        head = rf'(?m)^({re.escape(name)}:\n  version: )"[^"]*"(\n  changes:\n)'
        line = f'    - {{version: "{version}", text: "{said}"}}\n'
        text, count = re.subn(head, lambda m, v=version, x=line: f'{m[1]}"{v}"{m[2]}{x}', text)
        if count != 1:
            raise ValueError(f"rules.yml has no version and changes of {name} in the known form")
    return text


def _write(pins: Mapping[str, Pins], versions: Mapping[str, str], said: str) -> int:
    folder = digests.RULES_FILE.parent
    changed = {
        folder / f"{name}.yml": with_revision(
            (folder / f"{name}.yml").read_text("utf-8"), one.pinned["training"]["revision"]
        )
        for name, one in pins.items()
    }
    rules = with_versions(digests.RULES_FILE.read_text("utf-8"), versions, said)
    bodies = {}
    for name, version in versions.items():
        older = record.evaluation_data(name, challenges.versions(name)[0])
        hashes = {**older, **{challenge: one.rows for challenge, one in pins.items() if one.rows}}
        pinned = {
            **record.pinned(name, challenges.versions(name)[0]),
            **{challenge: one.pinned for challenge, one in pins.items()},
        }
        body = {record.EVALUATION_DATA: hashes, record.PINNED: pinned}
        bodies[digests.PUBLISHED / f"{name}-{version}.json"] = json.dumps(body)
    for path, text in {**changed, **bodies, digests.RULES_FILE: rules}.items():
        write_atomically(path, text)
    challenges._text.cache_clear()
    record._text.cache_clear()
    status = digests.main(["--write"])
    if status == 0:
        print(
            "Written: "
            + ", ".join(f"rules {name} {version}" for name, version in versions.items())
            + '. Next: say so in CHANGELOG.md under "Locked values".'
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
