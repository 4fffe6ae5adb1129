"""Class structure: every file is there, whole, of the right types, and listed with its hash."""

import re

from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile
from flowertune.rules import adapter_config
from flowertune.rules.manifest import problems
from flowertune.rules.values import shown
from submissions import layout
from submissions.bundle import statement
from submissions.bundle.packing import UNSUMMED
from submissions.bundle.sources import RESULTS_BYTES
from submissions.names import shown as shown_name
from submissions.verify import fields
from submissions.verify.case import Case, read, typed
from submissions.verify.weights import read_weights

_REQUIRED = (
    layout.SUMS, layout.PROVENANCE, layout.CARD, layout.TABLE, layout.CROISSANT,
    layout.APP_DIFFERENCE,
)  # fmt: skip
_KNOWN = frozenset({
    *_REQUIRED, layout.SIGNATURE, layout.MODEL_SIGNATURE, layout.SUBMISSION, layout.ENVIRONMENT,
    layout.WEIGHTS, layout.ADAPTER_CONFIG, layout.MANIFEST, layout.SCORES, layout.RUN_INFO,
    layout.ROUNDS, layout.LEDGER, layout.CHAIN, layout.FINGERPRINTS, layout.CONTAMINATION,
})  # fmt: skip
_FOLDERS = (
    layout.ROWS, layout.LM_EVAL, layout.EVERY_EVAL_EVER, layout.APP_FILES, layout.HUB_RESULTS,
)  # fmt: skip
_SUM = re.compile(r"([0-9a-f]{64}) [ *]([^\r\n]{1,1024})")


def check(case: Case) -> None:
    """Read every file of a bundle into the case, and note what is missing or malformed."""
    bundle = case.bundle
    for name in _REQUIRED:
        if name not in bundle:
            case.error("structure", "missing", name, "The file is missing.")
    for name in sorted(bundle.sums):
        if name not in _KNOWN and not name.startswith(tuple(f"{f}/" for f in _FOLDERS)):
            case.error(
                "structure", "unknown-file", name,
                "The file is none of those that a bundle has.",
            )  # fmt: skip
    for folder in _FOLDERS:
        if not bundle.below(folder):
            case.error("structure", "missing", folder, "The folder is missing.")
    _sums(case)
    case.submission = read(case, layout.SUBMISSION, statement.FIELDS)
    if case.submission is not None:
        typed(case, layout.SUBMISSION, case.submission, statement.FIELDS, only=True)
    case.run = read(case, layout.RUN_INFO, fields.RUN)
    case.environment = read(case, layout.ENVIRONMENT, fields.ENVIRONMENT)
    case.fingerprints = read(case, layout.FINGERPRINTS, fields.FINGERPRINTS)
    case.results = read(case, layout.SCORES, fields.RESULTS, RESULTS_BYTES)
    case.contamination = read(case, layout.CONTAMINATION, {"checked": fields.SWITCH})
    _manifest(case)
    _config(case)
    _rounds(case)
    _weights(case)


def _sums(case: Case) -> None:
    """Compare SHA256SUMS with the files: each once, none missing, none more."""
    bundle, place = case.bundle, layout.SUMS
    if place not in bundle:
        return
    try:
        lines = bundle.text(place).splitlines()
    except UnusableFile as error:
        case.error("structure", "unreadable", place, f"The file {error}.")
        return
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _SUM.fullmatch(line)
        if match is None or match[2] in listed:
            what = "is no hash and name" if match is None else "names a file twice"
            case.error("structure", "sums", place, f"Line {number} {what}: {shown(line)}.")
            continue
        listed[match[2]] = match[1]
    for name in sorted(listed.keys() - bundle.sums.keys()):
        case.error(
            "structure", "sums", place, f"{shown_name(name)} is listed, and not there.",
        )  # fmt: skip
    for name in sorted(bundle.sums):
        if name in UNSUMMED:
            continue
        if name not in listed:
            case.error("structure", "sums", name, "The file is not listed in SHA256SUMS.")
        elif listed[name] != bundle.sums[name]:
            case.error(
                "structure", "sums", name,
                f"The file's sha256 is {bundle.sums[name][:12]}, and SHA256SUMS says "
                f"{listed[name][:12]}: it was changed after the bundle was made.",
            )  # fmt: skip


def _manifest(case: Case) -> None:
    body = read(case, layout.MANIFEST, {})
    if body is None:
        return
    if wrong := problems(body):
        for reason in wrong:
            case.error("structure", "manifest", layout.MANIFEST, f"{_sentence(reason)}.")
        return
    case.manifest = body


def _config(case: Case) -> None:
    body = read(case, layout.ADAPTER_CONFIG, {})
    if body is None:
        return
    if reason := adapter_config.problem(body):
        case.error("structure", "adapter-config", layout.ADAPTER_CONFIG, f"It {reason}.")
        return
    case.config = body


def _rounds(case: Case) -> None:
    lines = []
    try:
        for number, line in enumerate(case.bundle.lines(layout.ROUNDS), 1):
            if not typed(case, f"{layout.ROUNDS}: line {number}", line, fields.LINE):
                return
            lines.append(line)
    except UnusableFile as error:
        missing = layout.ROUNDS not in case.bundle
        check = "missing" if missing else "unreadable"
        case.error("structure", check, layout.ROUNDS, f"The file {error}.")
        return
    if not lines:
        case.error("structure", "unreadable", layout.ROUNDS, "There is no round in it.")
        return
    case.rounds = lines


def _weights(case: Case) -> None:
    if layout.WEIGHTS not in case.bundle:
        link = (case.submission or {}).get("weights", {}).get("link")
        if link is None:
            case.error(
                "structure", "missing", layout.WEIGHTS,
                "The file is missing, and submission.json has no link to it.",
            )  # fmt: skip
        else:
            case.note(
                "structure", "weights-elsewhere", layout.WEIGHTS,
                f"The weights are kept at {shown(link)}: they were not looked at.",
            )  # fmt: skip
        return
    try:
        case.weights = read_weights(case.bundle.path(layout.WEIGHTS))
    except UnusableFile as error:
        case.error("structure", "weights", layout.WEIGHTS, f"The file {error}.")


def _sentence(reason: str) -> str:
    return one_line(f"{reason[:1].upper()}{reason[1:]}", 400)
