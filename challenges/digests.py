"""Print the digests of the locked values, or write them into `challenges/rules.yml`.

python -m challenges.digests            print rules.yml as it should be; exit 1 if it is not
python -m challenges.digests --write    write it
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import challenges

RULES_FILE = Path(__file__).with_name("rules.yml")


def expected_text() -> str:
    """`rules.yml` with the digests of the challenge files as they are; other lines stay."""
    lines: list[str] = []
    rules = ""
    for line in RULES_FILE.read_text("utf-8").splitlines():
        if re.match(r"\S+:$", line):
            rules = line[:-1]
        if line.startswith("    "):  # only a digest is indented this far
            continue
        if line.startswith("  digests:"):
            lines.append("  digests:")
            lines += [
                f"    {name}: {challenges.digest(challenges.static_table(name, rules))}"
                for name in challenges.names()
            ]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m challenges.digests",
        description="Print challenges/rules.yml as it should be; exit with 1 if it is not.",
    )
    parser.add_argument("--write", action="store_true", help="write the file instead")
    text = expected_text()
    if parser.parse_args(argv).write:
        RULES_FILE.write_text(text, "utf-8")
        return 0
    print(text, end="")
    if RULES_FILE.read_text("utf-8") != text:
        print(
            "challenges/rules.yml is out of date; if the locked values were meant to change, raise "
            "the version of the rules and run `python -m challenges.digests --write`.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
