"""Class rules: the locked values, the rules version, nodes and partitions, the division."""

import challenges
from challenges import record
from flowertune.base.hashing import json_sha256
from flowertune.base.text import MIB, one_line
from flowertune.rules import adapter_config
from flowertune.rules.lock import check_lock, locked_values
from flowertune.rules.manifest import is_sealed
from flowertune.rules.values import same, shown
from submissions import layout
from submissions.bundle import statement
from submissions.verify.case import Case

CLOSED = "closed"


def check(case: Case) -> None:
    """Compare what the run says with the published record of its rules, and with itself."""
    if case.manifest is None:
        return
    _seal(case)
    _locked(case)
    _claims(case)
    _budget(case)
    _same_run(case)
    _partitions(case)
    if case.submission is not None:
        _submission(case)
    facts = ("challenge", "rules", "rules-version")
    case.facts |= {key: case.manifest[key] for key in facts}
    case.facts["model"] = case.manifest["base-model"]["name"]


def _seal(case: Case) -> None:
    manifest = case.manifest
    assert manifest is not None
    if not is_sealed(manifest):
        case.error(
            "rules", "seal", layout.MANIFEST,
            "The manifest was edited after the run: the checksum in it does not fit.",
        )  # fmt: skip
    for key, name in (
        ("adapter-sha256", layout.WEIGHTS),
        ("adapter-config-sha256", layout.ADAPTER_CONFIG),
    ):
        found = case.bundle.sums.get(name)
        if found is not None and found != manifest[key]:
            case.error(
                "rules", "adapter", name,
                f"The file's sha256 is {found[:12]}, and the manifest was written for "
                f"{manifest[key][:12]}.",
            )  # fmt: skip
    if case.config is not None:
        for found in adapter_config.differences(manifest["adapter-config"], case.config):
            case.error("rules", "adapter-config", layout.ADAPTER_CONFIG, f"{one_line(found)}.")


def _locked(case: Case) -> None:
    manifest = case.manifest
    assert manifest is not None
    static = manifest["static"]
    if not record.published(static["rules"], static["rules-version"]).get(static["challenge"]):
        case.error(
            "rules", "rules-version", layout.MANIFEST,
            f"{shown(static['challenge'])} under the rules {shown(static['rules'])} "
            f"{shown(static['rules-version'])} is not on record.",
        )  # fmt: skip
        return
    own = {json_sha256(static)}
    checks = {"SuperNodes": "supernodes", "partitions": "partitions"}
    for found in check_lock(static, manifest["supernodes"], {manifest["partitions"]}, own):
        case.error(
            "rules", checks.get(found.key, "locked-value"), layout.MANIFEST,
            f"{one_line(str(found), 300)}.",
        )  # fmt: skip
    current = challenges.versions(static["rules"])[0]
    if static["rules-version"] != current:
        case.warn(
            "rules", "older-rules", layout.MANIFEST,
            f"The run was made under version {shown(static['rules-version'])} of the rules, and "
            f"the current one is {current}: results of the two are not compared.",
        )  # fmt: skip


def _claims(case: Case) -> None:
    """What the run itself says of its being official; only it could see some of that."""
    for name, body in ((layout.MANIFEST, case.manifest), (layout.RUN_INFO, case.run)):
        if body is None:
            continue
        if body["official"] is not True:
            case.error("rules", "official", name, "The run says that it is not official.")
        for found in body["differences"]:
            said = f"{found['key']}: {shown(found.get('given'))}"
            case.error(
                "rules", "official", name,
                f"The run says what differs from the locked values: {one_line(said, 300)}.",
            )  # fmt: skip


def _budget(case: Case) -> None:
    manifest = case.manifest
    assert manifest is not None
    spent = manifest["communication"]
    budget = locked_values(manifest["static"]).get("budget-mib")
    used = (spent["sent-bytes"] + spent["received-bytes"]) / MIB
    if budget and used > float(budget):
        case.error(
            "rules", "budget", layout.MANIFEST,
            f"{used:,.1f} MiB were communicated, and the budget is {budget:,} MiB.",
        )  # fmt: skip
    case.facts["mib"] = spent["total-mib"]


def _same_run(case: Case) -> None:
    """Whether run.json and the manifest are of one run."""
    manifest, run = case.manifest, case.run
    if manifest is None or run is None:
        return
    for key in (
        "run-id", "challenge", "rules", "rounds", "supernodes", "adapter-config", "app",
        "environment", "library",
    ):  # fmt: skip
        if not same(run.get(key), manifest.get(key)):
            case.error(
                "rules", "one-run", layout.RUN_INFO,
                f"{key} is {shown(run.get(key))}, and the manifest says "
                f"{shown(manifest.get(key))}: they are not of one run.",
            )  # fmt: skip
    for key in sorted(run["settings"].keys() | manifest["settings"].keys()):
        one, other = run["settings"].get(key), manifest["settings"].get(key)
        if not same(one, other):
            case.error(
                "rules", "one-run", f"{layout.RUN_INFO}: settings",
                f"{shown(key)} is {shown(one)}, and the manifest says {shown(other)}.",
            )  # fmt: skip
    if run["budget-mib"] != manifest["communication"]["budget-mib"]:
        case.error(
            "rules", "one-run", layout.RUN_INFO,
            f"budget-mib is {run['budget-mib']}, and the manifest says "
            f"{manifest['communication']['budget-mib']}.",
        )  # fmt: skip


def _partitions(case: Case) -> None:
    """IID partitions are of equal size, and hold different rows."""
    manifest = case.manifest
    assert manifest is not None
    rows = manifest["rows"]
    sizes = {name: of["rows"] for name, of in rows.items()}
    if manifest["static"].get("partitioner.name") == "iid" and sizes:
        low, high = min(sizes.values()), max(sizes.values())
        if high - low > 1:
            case.error(
                "rules", "partition-sizes", f"{layout.MANIFEST}: rows",
                f"Partitions have from {low:,} to {high:,} rows, and IID partitions differ by one "
                "row at most.",
            )  # fmt: skip
    first: dict[str, str] = {}
    for name, of in sorted(rows.items(), key=lambda item: int(item[0])):
        if of["unique-rows"] > of["rows"] or (of["rows"] and not of["unique-rows"]):
            case.error(
                "rules", "partition-rows", f"{layout.MANIFEST}: rows",
                f"Partition {name} has {of['unique-rows']:,} unique of {of['rows']:,} rows.",
            )  # fmt: skip
        if of["sha256"] in first:
            case.error(
                "rules", "partition-rows", f"{layout.MANIFEST}: rows",
                f"Partitions {first[of['sha256']]} and {name} hold the same rows, and the "
                "challenge deals each row once.",
            )  # fmt: skip
        first.setdefault(of["sha256"], name)


def _submission(case: Case) -> None:
    """Compare what submission.json says with the run, and the division with the base model."""
    manifest, said = case.manifest, case.submission
    assert manifest is not None and said is not None
    place = layout.SUBMISSION
    pairs = {
        "challenge": manifest["challenge"],
        "rules": manifest["rules"],
        "rules-version": manifest["rules-version"],
        "template-version": manifest.get("template-version"),
    }
    for key, wanted in pairs.items():
        case.differ("rules", "submission", place, key, said[key], wanted, "what the run says")
    for key in ("version", "sha256"):
        case.differ(
            "rules", "submission", f"{place}: library", key, said["library"][key],
            manifest["library"][key], "what the run says",
        )  # fmt: skip
    if said["division"] != CLOSED or said["challenge"] not in challenges.names():
        return
    default, base = challenges.load(said["challenge"])["model"], manifest["base-model"]
    if base["name"] != default:
        case.error(
            "rules", "division", place,
            f"The division is closed, which is for the base model {default}, and the run trained "
            f"{shown(base['name'])}: the division is open.",
        )  # fmt: skip
    elif base["revision"] not in statement.default_revisions(manifest):
        # Whoever may propose a change to a repository of the hub has a revision of it.
        case.error(
            "rules", "division", place,
            f"The division is closed, which is for {default} as it is published, and the run "
            f"trained its revision {shown(base['revision'])}: the division is open.",
        )  # fmt: skip
