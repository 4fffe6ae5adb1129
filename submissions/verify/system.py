"""Class system: which library, packages and machine made run and score."""

from collections.abc import Mapping
from typing import Any

from challenges import record
from flowertune.base.text import one_line
from flowertune.rules.lock import check_library
from flowertune.rules.provenance import NAME, Library
from flowertune.rules.values import shown
from submissions import layout
from submissions.verify.case import Case


def check(case: Case) -> None:
    """Compare libraries with the published record, and what is said of packages with itself."""
    if case.manifest is not None:
        _library(case, layout.MANIFEST, case.manifest["library"], "run")
    if case.results is not None:
        place = f"{layout.SCORES}: provenance"
        _library(case, place, case.results["provenance"]["library"], "score")
    if case.manifest is not None and case.results is not None:
        one, other = case.manifest["library"], case.results["provenance"]["library"]
        if one["sha256"] != other["sha256"]:
            case.note(
                "system", "two-libraries", layout.SCORES,
                f"The run was made with {one['version']} of the library, and scored with "
                f"{other['version']}.",
            )  # fmt: skip
    if case.environment is not None:
        _packages(case, case.environment)
    _machine(case)


def _library(case: Case, place: str, body: Mapping[str, Any], what: str) -> None:
    library = Library.of(body)
    for found in check_library(library, []):
        case.error("system", f"library-of-{what}", place, f"{one_line(str(found), 300)}.")
    if not record.library():
        case.note(
            "system", "no-record", place, "This library has no release on record to compare with."
        )


def _packages(case: Case, environment: Mapping[str, Any]) -> None:
    """Hold environment.json to what the run and its manifest say of packages."""
    packages, place = environment["packages"], layout.ENVIRONMENT
    manifest = case.manifest
    if manifest is None:
        return
    recorded = manifest["environment"]["packages"]
    for name in sorted(packages.keys() | recorded.keys()):
        one, other = packages.get(name), recorded.get(name)
        if one != other:
            case.error(
                "system", "environment", place,
                f"{shown(name)} is {shown(one)}, and the manifest says {shown(other)}.",
            )  # fmt: skip
    if packages.get(NAME) != manifest["library"]["version"]:
        case.error(
            "system", "environment", place,
            f"{NAME} is {shown(packages.get(NAME))}, and the run's library "
            f"{shown(manifest['library']['version'])}.",
        )  # fmt: skip
    versions = manifest.get("versions")
    for name, version in (versions if isinstance(versions, dict) else {}).items():
        said = environment["python"] if name == "python" else recorded.get(_canonical(name))
        if said != version:
            case.error(
                "system", "versions", layout.MANIFEST,
                f"versions says {shown(name)} {shown(version)}, and the packages {shown(said)}.",
            )  # fmt: skip


def _canonical(name: str) -> str:
    return name.replace("_", "-").replace(".", "-").lower()


def _machine(case: Case) -> None:
    if case.manifest is not None and case.run is not None:
        one, other = case.manifest["hardware"], case.run.get("hardware")
        if one != other:
            case.note(
                "system", "hardware", layout.RUN_INFO,
                f"The run ended on {shown(other)}, and its checkpoint was saved on {shown(one)}.",
            )  # fmt: skip
        case.facts["hardware"] = one
    if case.submission is not None:
        case.facts |= {key: case.submission[key] for key in ("team", "division", "hours")}
