"""What a run says about itself: the body of a manifest, and of run.json."""

from typing import TYPE_CHECKING, Any

from flowertune.rules import lock, protected
from flowertune.run import record
from flowertune.run.data_check import rows_visited
from flowertune.run.manifest import package_versions

if TYPE_CHECKING:
    from flowertune.run.session import Session


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


def run_of(session: "Session", status: str) -> dict[str, Any]:
    """Return what run.json says; ``status`` is running, finished or failed."""
    static, found = lock.static_values(session.cfg), session.found()
    return {
        "run-id": session.run_key,
        "name": session.app.name,
        "challenge": static["challenge"],
        "rules": static["rules"],
        "official": not found,
        "differences": [vars(difference) for difference in found],
        "rounds": session.cfg["num-server-rounds"],
        "clients-per-round": session.clients_per_round,
        "supernodes": len(session.roll.nodes),
        "budget-mib": session.ledger.budget_mib,
        "model": session.cfg["model.name"],
        "started": session.started,
        "ended": None if status == "running" else record.now(),
        "status": status,
        "reason": session.reason,
        "settings": session.cfg,
        "data": session.data,
    }


def profiled(session: "Session") -> dict[str, Any]:
    """Return what the profile of a run says at its head."""
    kept = ("model.name", "train.transport", "aggregation.mode")
    return {
        "run": session.run_key,
        "rounds": session.cfg["num-server-rounds"],
        "clients-per-round": session.clients_per_round,
        "supernodes": len(session.roll.nodes),
        **{key: session.cfg[key] for key in kept if key in session.cfg},
    }
