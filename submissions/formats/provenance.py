"""How an adapter came about, as an in-toto Statement with a SLSA provenance predicate.

The manifest says it all already; here it stands where tools for supply chains look for it: what was
asked for (settings), what went in (model, data, template, library, packages), what came out.
"""

import json
from collections.abc import Mapping
from typing import Any

from flowertune.base.hub import is_hub_id
from submissions import layout
from submissions.bundle.sources import Sources

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "tag:flower.ai,2026:flowertune/federated-fine-tuning/v1"
BUILDER = "tag:flower.ai,2026:flowertune/participant"  # trains where nobody else looks
_HUB = "https://huggingface.co"
_SUBJECTS = (layout.WEIGHTS, layout.ADAPTER_CONFIG, layout.MANIFEST, layout.SCORES)
_BYPRODUCTS = (layout.RUN_INFO, layout.ROUNDS, layout.LEDGER, layout.CHAIN)


def provenance(sources: Sources, sums: Mapping[str, str]) -> bytes:
    """Return provenance.json.

    Parameters
    ----------
    sources
        The run and its score.
    sums
        sha256 of the bundle's files by name; weights kept elsewhere included.
    """
    manifest, about = sources.manifest, sources.run.about
    body = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sums[name]}} for name in _SUBJECTS],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "challenge": manifest["challenge"],
                    "rules": manifest["rules"],
                    "rules-version": manifest["rules-version"],
                    "settings": manifest["settings"],
                },
                "internalParameters": {
                    "supernodes": manifest["supernodes"],
                    "partitions": manifest["partitions"],
                    "chain": manifest["chain"],
                },
                "resolvedDependencies": dependencies(manifest),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"flowertune": manifest["library"]["version"]},
                },
                "metadata": {
                    "invocationId": str(manifest["run-id"]),
                    **_times(about),
                },
                "byproducts": [
                    {"name": name, "digest": {"sha256": sums[name]}} for name in _BYPRODUCTS
                ],
            },
        },
    }
    return f"{json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def dependencies(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what went into a run, as SLSA's resource descriptors; digests where they are known."""
    base, static, app = manifest["base-model"], manifest["static"], manifest["app"]
    found: list[dict[str, Any]] = [
        _of_hub("base-model", base["name"], base["revision"], ""),
        _of_hub("training-set", static["dataset.name"], static["dataset.revision"], "datasets/"),
        {"name": "app", "digest": {"sha256": app["sha256"]}},
        {
            "name": "flowertune",
            "uri": f"pkg:pypi/flowertune@{manifest['library']['version']}",
            "digest": {"sha256": manifest["library"]["sha256"]},
        },
        {
            "name": "rules",
            "uri": f"tag:flower.ai,2026:rules/{manifest['rules']}/{manifest['rules-version']}",
            "digest": {"sha256": manifest["static-sha256"]},
        },
    ]
    found[1]["annotations"] = {"partitions": manifest["rows"]}
    packages = manifest["environment"]["packages"]
    return [
        *found,
        *(
            {"name": name, "uri": f"pkg:pypi/{name}@{version}"}
            for name, version in sorted(packages.items())
            if name != "flowertune"
        ),
    ]


def _of_hub(name: str, what: str, revision: str, kind: str) -> dict[str, Any]:
    if not is_hub_id(what):
        return {"name": name, "annotations": {"path": what}}
    entry: dict[str, Any] = {"name": name, "uri": f"{_HUB}/{kind}{what}@{revision}"}
    if len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        entry["digest"] = {"gitCommit": revision}
    return entry


def _times(about: Mapping[str, Any]) -> dict[str, Any]:
    times = {"startedOn": about.get("started"), "finishedOn": about.get("ended")}
    return {key: str(time).replace("+00:00", "Z") for key, time in times.items() if time}
