"""Print the digests of the locked values, or write them and the record of published values.

python -m challenges.digests            print rules.yml as it should be; exit 1 if it is not
python -m challenges.digests --write    write it, and the record in challenges/published/
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import challenges
from challenges import record
from flowertune.base.files import write_atomically
from flowertune.base.hashing import json_sha256

RULES_FILE = Path(__file__).with_name("rules.yml")
PUBLISHED = Path(__file__).with_name("published")


def expected_text() -> str:
    """`rules.yml` with the digests of the challenge files as they are; other lines stay."""
    lines: list[str] = []
    rules, in_digests = "", False
    for line in RULES_FILE.read_text("utf-8").splitlines():
        if re.match(r"\S+:$", line):
            rules = line[:-1]
        if in_digests and line.startswith("    "):
            continue
        in_digests = line.startswith("  digests:")
        if in_digests:
            lines.append("  digests:")
            lines += [
                f"    {name}: {json_sha256(challenges.static_table(name, rules))}"
                for name in challenges.names()
            ]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def expected_record(rules: str) -> tuple[Path, str]:
    """The record of the current version of a rule set: where it lies, and its text."""
    version = challenges.rule_sets()[rules]["version"]
    tables: dict[str, Any] = {
        name: challenges.static_table(name, rules) for name in challenges.names()
    }
    if hashes := record.evaluation_data(rules, version):
        tables[record.EVALUATION_DATA] = hashes
    if pins := record.pinned(rules, version):
        tables[record.PINNED] = pins
    text = json.dumps(tables, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return PUBLISHED / f"{rules}-{version}.json", text


def problems() -> list[str]:
    """What is wrong with the versions of the rules, one sentence each; empty if nothing is."""
    sentences = []
    for rules, rule_set in challenges.rule_sets().items():
        version = rule_set["version"]
        if version != challenges.versions(rules)[0]:
            sentences.append(
                f"The rules {rules} have version {version}, but the first of their changes is for "
                f"{challenges.versions(rules)[0]}: say in `changes` of challenges/rules.yml what "
                f"{version} brings."
            )
        for name, recorded in record.published(rules, version).items():
            now = challenges.static_table(name, rules) if name in challenges.names() else {}
            keys = [key for key in sorted(recorded | now) if recorded.get(key) != now.get(key)]
            if keys:
                sentences.append(
                    f"The locked values of {name} under {rules} {version} are published and never "
                    f"change, but {', '.join(keys)} did: raise `version` of {rules} in "
                    "challenges/rules.yml, say there in `changes` and in CHANGELOG.md under "
                    '"Locked values" what changed, and run `python -m challenges.digests --write`. '
                    f"(Was {version} never released? Then delete "
                    f"challenges/published/{rules}-{version}.json and run that command.)"
                )
        sentences += wrong_hashes(rules, version)
        sentences += [
            f"challenges/published/{rules}-{older}.json is not there, but {older} is among the "
            f"`changes` of {rules}: put it back from the release it came with."
            for older in challenges.versions(rules)[1:]
            if not record.published(rules, older)
        ]
    return sentences


def wrong_hashes(rules: str, version: str) -> list[str]:
    """What is wrong with the recorded hashes of evaluation data, one sentence each."""
    sentences = []
    for name, hashes in record.evaluation_data(rules, version).items():
        sets = challenges.load(name)["evaluation"]["sets"] if name in challenges.names() else []
        known = [entry["set"] for entry in sets]
        sentences += [
            f"challenges/published/{rules}-{version}.json has {record.EVALUATION_DATA} for "
            f"{name}, set {found}; the sets of {name} are {', '.join(known) or 'none'}."
            for found in sorted(hashes.keys() - set(known))
        ]
        sentences += [
            f"challenges/published/{rules}-{version}.json has the {record.EVALUATION_DATA} "
            f"{value!r} for {name}, set {found}; a sha256 has 64 digits, 0-9 and a-f."
            for found, value in sorted(hashes.items())
            if not (isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value))
        ]
    return sentences


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m challenges.digests",
        description="Print challenges/rules.yml as it should be; exit with 1 if it is not, or if "
        "a published locked value changed.",
    )
    parser.add_argument(
        "--write", action="store_true", help="write it, and the record in challenges/published/"
    )
    write = parser.parse_args(argv).write
    if wrong := problems():
        print("\n".join(wrong), file=sys.stderr)
        return 1
    text = expected_text()
    files = dict([(RULES_FILE, text), *map(expected_record, challenges.rule_sets())])
    if write:
        for path, wanted in files.items():
            write_atomically(path, wanted)
        return 0
    print(text, end="")
    stale = [
        path.relative_to(RULES_FILE.parent.parent).as_posix()
        for path, wanted in files.items()
        if not path.is_file() or path.read_text("utf-8") != wanted
    ]
    if stale:
        print(
            f"Out of date: {', '.join(stale)}; run `python -m challenges.digests --write`.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
