"""`python -m evaluation.contamination`: the report by itself, without a model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import challenges
from evaluation import contamination, data, job, report, sets
from evaluation.cli import ending_in_a_sentence
from evaluation.contamination.training import NoRows, TrainingRows
from flowertune.base.errors import UserError
from flowertune.base.files import write_json
from flowertune.base.text import counted, one_line

_DESCRIPTION = """\
Say which rows of a challenge's evaluation sets are also among its training rows: exactly, where the
question is a text of a training row, whatever its case, signs and white space; and by a 13-gram,
where 13 words in a row are those of a training row. No model is loaded. A score has the same
report in its results.json, and the scores without these rows.
"""
_EPILOG = """\
examples:
  # the training set and the evaluation sets (hub)
  python -m evaluation.contamination finance --training-data hub
  # rows of your own, and what they share with the sets
  python -m evaluation.contamination medical --training-data rows.jsonl --data-dir sets/ --show 5
  # the small samples of the quickstart
  python -m evaluation.contamination finance --sample
"""
_SHOWN = 300  # characters of a text


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.contamination",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add("challenge", choices=sets.scored_challenges(), help="whose sets")
    add("--sets", metavar="A,B", help="only these sets (default: all of the challenge)")
    add(
        "--training-data",
        metavar="FILE",
        help="training rows: a .jsonl file, a folder of JSONL, Parquet or CSV files, or hub to "
        "fetch the challenge's own (default: its own, from the hub's cache)",
    )
    group = options.add_mutually_exclusive_group()
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="read the sets from DIR, one file <set>.jsonl each, instead of from the hub",
    )
    group.add_argument(
        "--sample", action="store_true", help="the small samples in this package, both of them"
    )
    add(
        "--show",
        type=int,
        default=0,
        metavar="N",
        help="print N rows of each set beside the training rows that have them",
    )
    add("-o", "--output", type=Path, metavar="FILE", help="write the report there, as JSON")
    return options


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the report, print and write it.

    Raises:
        UserError: there are no rows to compare, or they cannot be read.
    """
    challenge = arguments.challenge
    chosen = job.choose_sets(sets.of_challenge(challenge), arguments.sets)
    facts = {entry["set"]: entry for entry in challenges.load(challenge)["evaluation"]["sets"]}
    training = contamination.find(challenge, arguments.training_data, arguments.sample)
    if isinstance(training, NoRows):
        raise UserError(training.reason)
    source, known = job.source_of(challenge, arguments), data.on_record(challenge, None)
    texts = {
        item.name: data.load(
            item, source, facts[item.name]["rows"], known_sha256=known.get(item.name)
        ).texts
        for item in chosen
    }
    found = contamination.compare(training, texts)
    print(report.aligned(_table(found, facts)))
    made = found["training"]
    print(
        f"{counted(made['rows'], 'training row')} ({made['unique-rows']:,} different ones), sha256 "
        f"{made['sha256'][:12]}"
    )
    if arguments.show > 0:
        _show(found, texts, training, arguments.show)
    if arguments.output is not None:
        try:
            write_json(arguments.output, found)
        except OSError as error:
            raise UserError(
                f"{arguments.output} cannot be written ({error.strerror}): name another file "
                "with --output"
            ) from None
    return found


def _table(found: dict[str, Any], facts: dict[str, Any]) -> list[list[str]]:
    header = [
        "set",
        "rows",
        "exact",
        f"{found['n-gram']}-gram",
        "overlapping",
        "clean",
        "too short",
    ]
    keys = ("rows", "exact", "n-gram", "overlapping", "clean", "short")
    body = [
        [facts[name]["title"], *(f"{one[key]:,}" for key in keys)]
        for name, one in found["sets"].items()
    ]
    sums = [f"{sum(one[key] for one in found['sets'].values()):,}" for key in keys]
    return [header, *body, ["all", *sums]]


def _show(
    found: dict[str, Any], texts: dict[str, list[Any]], training: TrainingRows, most: int
) -> None:
    for name, one in found["sets"].items():
        for match in one["overlapping-rows"][:most]:
            row = training.rows[match["training-row"]]
            kind = "exact" if match["exact"] else f"{match['share']:.0%} of its 13-grams"
            print(f"\n{name} row {match['row']}, training row {match['training-row']} ({kind})")
            print(f"  evaluation: {one_line(' | '.join(texts[name][match['row']]), _SHOWN)}")
            said = " | ".join(value for value in row.values() if isinstance(value, str))
            print(f"  training:   {one_line(said, _SHOWN)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with 1 and one sentence on stderr if it cannot be done."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    with ending_in_a_sentence():
        run(arguments)
