"""`python -m evaluation`: says which challenges can be scored, and how."""

import sys

import challenges
from evaluation import sets


def text() -> str:
    """Return what the command prints: the command of every challenge with evaluation sets."""
    lines = []
    for name in sets.scored_challenges():
        facts = challenges.load(name)
        titles = ", ".join(entry["title"] for entry in facts["evaluation"]["sets"])
        lines.append(f"  python -m {sets.module_name(name):<23} {titles}")
    return "\n".join(
        [
            "Score a checkpoint with the command of its challenge:",
            *lines,
            "Or several checkpoints, or several challenges, with one model load:",
            "  python -m evaluation.all",
            "Hand a scored run in, and for organizers, check and rank what was handed in:",
            "  python -m evaluation.submit",
            "  python -m evaluation.verify, evaluation.replay, evaluation.leaderboard, "
            "evaluation.reference",
            "Each one has --help, with examples.",
        ]
    )


def main(argv: list[str]) -> int:
    """Print the commands; 2 if anything but --help was asked for."""
    asked = argv in ([], ["-h"], ["--help"])
    if not asked:
        print(f"error: {argv[0]} is no challenge of this command.", file=sys.stderr)
    print(text(), file=sys.stdout if asked else sys.stderr)
    return 0 if argv and asked else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
