"""The app in a bundle: the one that ran, and which of its files are the template's own."""

from flowertune.base.hashing import json_sha256
from flowertune.base.untrusted import UnusableFile
from submissions import layout
from submissions.bundle.difference import changed_files, difference, own_name, package_of
from submissions.names import shown as shown_name
from submissions.verify.case import Case

# What has to be the template's for a thing to follow from seed and settings.
_ROUNDS = frozenset({"app/strategy.py", "app/server_app.py"})
COHORT = LOSSES = _ROUNDS
RATES = frozenset({"app/models.py", "app/server_app.py"})
TRAINING = frozenset({"app/client_app.py"})
MESSAGES = _ROUNDS | TRAINING
CHOICE = _ROUNDS
ADAPTER = frozenset({"app/models.py"})
ROWS = TRAINING | ADAPTER | {"app/dataset.py"}
MOST_BYTES = 64 * 2**20
# Whoever imports these means the library, or nothing.
_SHADOWED = frozenset({
    "flowertune", "challenges", "evaluation", "submissions", "flwr", "torch", "peft",
    "transformers", "safetensors", "numpy", "sitecustomize", "usercustomize",
})  # fmt: skip


def check(case: Case) -> frozenset[str]:
    """Compare the app with the one that ran; return the template's names of unchanged files."""
    bundle, begin = case.bundle, f"{layout.APP_FILES}/"
    names = [name.removeprefix(begin) for name in bundle.below(layout.APP_FILES)]
    if not names:
        return frozenset()  # structure says so
    if case.manifest is not None:
        _ran(case, names)
    total = sum(bundle.sizes[f"{begin}{name}"] for name in names)
    if total > MOST_BYTES:
        case.error(
            "structure", "app-size", layout.APP_FILES,
            f"The app has {total:,} bytes, and at most {MOST_BYTES:,} are read: Flower sends none "
            "that is nearly as large.",
        )  # fmt: skip
        return frozenset()
    content = {name: bundle.path(f"{begin}{name}").read_bytes() for name in names}
    case.app = content
    _shadows(case, names)
    _difference(case, content)
    changed = changed_files(content)
    case.facts["app-changes"] = changed
    package = package_of(content)
    return frozenset(own_name(name, package) for name in names if name not in changed)


def _ran(case: Case, names: list[str]) -> None:
    assert case.manifest is not None
    recorded = case.manifest["app"]["files"]
    if json_sha256(recorded) != case.manifest["app"]["sha256"]:
        case.error(
            "run", "app", layout.MANIFEST, "app.sha256 is not that of the files that are listed."
        )
    for name in sorted({*names, *recorded}):
        found = case.bundle.sums.get(f"{layout.APP_FILES}/{name}")
        if found == recorded.get(name):
            continue
        what = (
            "is missing"
            if found is None
            else "was no part of the app that ran"
            if name not in recorded
            else "is not the file that ran"
        )
        case.error("run", "app", layout.APP_FILES, f"{shown_name(name)} {what}.")


def _shadows(case: Case, names: list[str]) -> None:
    """An app's module that has the name of the library, or of what Python runs at its start."""
    for name in names:
        first = name.split("/")[0]
        if name.endswith(".py") and first.removesuffix(".py") in _SHADOWED:
            case.error(
                "run", "app-shadows", f"{layout.APP_FILES}/{name}",
                f"The app's {shown_name(name)} would be imported in place of "
                f"{first.removesuffix('.py')}, which is none of the app's.",
            )  # fmt: skip


def _difference(case: Case, content: dict[str, bytes]) -> None:
    if layout.APP_DIFFERENCE not in case.bundle:
        return
    try:
        given = case.bundle.text(layout.APP_DIFFERENCE, 2**26)
    except UnusableFile as error:
        case.error("structure", "unreadable", layout.APP_DIFFERENCE, f"The file {error}.")
        return
    if given != difference(content):
        case.error(
            "run", "app-difference", layout.APP_DIFFERENCE,
            "The difference is not the one between the app in the bundle and the template.",
        )  # fmt: skip
