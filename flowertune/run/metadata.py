"""What a run says about itself: the body of a manifest, and of run.json."""

from typing import TYPE_CHECKING, Any

from flowertune.rules import lock, protected
from flowertune.run import files as record
from flowertune.run.data_check import rows_visited
from flowertune.run.manifest import package_versions

if TYPE_CHECKING:
    from flowertune.run.base import Run
    from flowertune.run.training import Session


def manifest_of(session: "Session", server_round: int) -> dict[str, Any]:
    """Return what a checkpoint's manifest says, but for the hashes of its own files."""
    static, found = lock.static_values(session.cfg), session.found()
    return {
        "format": 1,
        "official": not found,
        "differences": [vars(difference) for difference in found],
        "challenge": static["challenge"],
        "rules": static["rules"],
        "rules-version": static["rules-version"],
        "template-version": session.app.template_version,
        "static": static,
        "static-sha256": lock.digest(static),
        "expected-sha256": session.app.expected_sha256,
        "supernodes": len(session.roll.nodes),
        "partitions": max(session.roll.partitions),
        "round": server_round,
        "rounds": session.cfg["num-server-rounds"],
        "base-model": {
            "name": session.cfg["model.name"],
            "revision": session.cfg["model.revision"],
            "path": session.peft_config.base_model_name_or_path,
        },
        "prompt-template": session.cfg["prompt.template"],
        "settings": session.cfg,
        "seed": session.cfg["seed"],
        "run-id": session.run_key,
        "replies-that-did-not-count": sum(line["failed"] for line in session.rounds_done),
        "rows-visited": round(rows_visited(session.lengths, session.rounds_done, session.cfg), 6),
        "communication": session.ledger.summary(),
        "versions": package_versions(),
        "protected-changed": protected.changed(),
    }


def run_of(run: "Run", status: str) -> dict[str, Any]:
    """Return what run.json says; ``status`` is running, finished or failed."""
    static, found = lock.static_values(run.cfg), run.found()
    return {
        "run-id": run.run_key,
        "name": run.app.name,
        "challenge": static["challenge"],
        "rules": static["rules"],
        "official": not found,
        "differences": [vars(difference) for difference in found],
        "rounds": run.cfg["num-server-rounds"],
        "clients-per-round": run.clients_per_round,
        "supernodes": len(run.roll.nodes),
        "budget-mib": run.ledger.budget_mib,
        "model": run.cfg["model.name"],
        "started": run.started,
        "ended": None if status == "running" else record.now(),
        "status": status,
        "reason": run.reason,
        "settings": run.cfg,
        "data": run.data,
    }


def profiled(run: "Run") -> dict[str, Any]:
    """Return what the profile of a run says at its head."""
    kept = ("model.name", "train.transport", "aggregation.mode")
    return {
        "run": run.run_key,
        "rounds": run.cfg["num-server-rounds"],
        "clients-per-round": run.clients_per_round,
        "supernodes": len(run.roll.nodes),
        **{key: run.cfg[key] for key in kept if key in run.cfg},
    }
