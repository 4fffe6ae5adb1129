"""`python -m evaluation.verify`: check bundles as far as that needs no model, or a little of it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flowertune.base.errors import UserError
from submissions.convergence import Reference, read_reference
from submissions.findings import Report, as_json, as_text, ordered
from submissions.inputs import all_at_once, check_bundles
from submissions.rescore import options as rescoring
from submissions.signing.keys import PublicKey, public_key
from submissions.verify import similarity
from submissions.verify.check import verified

_DESCRIPTION = """\
Verify bundles: everything that can be recomputed is recomputed, in seconds, without a GPU and
without a model. Nothing out of a bundle is executed or imported.

One line for each finding: error (the bundle is invalid), warning (for a person to look at) or note
(what could not be checked), the class and name of the check, the file, and a sentence. Several
bundles are also compared with each other.

exit status: 0 all bundles are VALID, 1 one is INVALID, 2 the command line is wrong (as where there
is no such bundle), or it could not be carried out
"""
_EPILOG = """\
examples:
  python -m evaluation.verify bundles/*.zip
  # for the board, and for tools
  python -m evaluation.verify bundles/*.zip --format json > reports/verified.json
  # 50 rows of each set, answered again by the real model (GPU, hub)
  python -m evaluation.verify bundle.zip --rescore 50
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.verify",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    options.add_argument(
        "bundles", nargs="+", type=Path, metavar="BUNDLE", help="a zip, or its unpacked folder"
    )
    options.add_argument(
        "--format", choices=("text", "json"), default="text", help="default: %(default)s"
    )
    options.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="hold losses against these reference runs, as python -m evaluation.reference wrote "
        "them (default: those that are published with the rules)",
    )
    options.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a public key; a bundle has to be signed by it, or by one of several",
    )
    rescoring.add_options(options)
    return options


def verify_all(
    bundles: Sequence[Path],
    reference: Reference | None = None,
    keys: Sequence[PublicKey] = (),
) -> list[Report]:
    """Return a report for each bundle, with what is alike among them."""
    reports, sketches, places = [], [], []
    for number, path in enumerate(bundles):
        one = verified(path, reference, keys)
        reports.append(one.report)
        if one.sketch is not None:
            sketches.append(one.sketch)
            places.append(number)
    for place, found in similarity.compare(sketches).items():
        report = reports[places[place]]
        reports[places[place]] = replace(report, findings=ordered([*report.findings, *found]))
    return reports


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    try:
        all_at_once(lambda: check_bundles(arguments.bundles), lambda: rescoring.check(arguments))
        reference = read_reference(arguments.reference) if arguments.reference else None
        keys = [public_key(path) for path in arguments.key]
        reports = verify_all(arguments.bundles, reference, keys)
        if arguments.rescore is not None:
            pairs = zip(reports, arguments.bundles, strict=True)
            reports = [rescoring.rescored(report, path, arguments) for report, path in pairs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_json(reports) if arguments.format == "json" else as_text(reports))
    return 0 if all(report.valid for report in reports) else 1


def run() -> None:
    """Run the command and end the process with its exit status."""
    sys.exit(main())
