"""What a run says about itself: the body of every manifest, and of run.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flowertune.base.hardware import hardware
from flowertune.base.versions import installed_packages, package_versions
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry
from flowertune.config.app import App
from flowertune.config.settings import Settings
from flowertune.models.auto_targets import AUTO, auto_targets
from flowertune.models.faster import unrepeatable
from flowertune.rules import lock
from flowertune.rules.manifest import FORMAT
from flowertune.rules.provenance import Library
from flowertune.run.chain import Chain
from flowertune.run.files import now
from flowertune.run.lost import LostReplies


class RunFacts(Protocol):
    """What is known of a run."""

    cfg: Settings
    app: App
    registry: NodeRegistry
    folder: Path
    library: Library
    ledger: Ledger
    lost: LostReplies
    run_key: str
    quantization: dict[str, Any] | None
    pinned: dict[str, str]
    run_ids: list[str]
    started: str
    chain: Chain
    app_files: Mapping[str, Any]

    @property
    def chosen(self) -> Mapping[str, Any] | None:
        """The checkpoint that the run itself chose; None for its last one."""
        ...

    @property
    def adapter_config(self) -> dict[str, Any] | None:
        """The adapter's configuration, as every checkpoint has it; None where there is none."""
        ...

    @property
    def reason(self) -> str | None:
        """Why the run ended before its last round, if it did."""
        ...

    @property
    def clients_per_round(self) -> int:
        """How many clients take part in a round."""
        ...

    def violations(self) -> list[lock.Difference]:
        """The differences known so far."""
        ...


def build_manifest(run: RunFacts, server_round: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest of a round's result says, but for hashes of its own files.

    Parameters
    ----------
    more : Mapping[str, Any]
        What only this kind of run has to say.
    """
    cfg, static, violations = run.cfg, lock.static_values(run.cfg), run.violations()
    return {
        "format": FORMAT,
        **_identity(run),
        "official": not violations,
        "differences": [vars(difference) for difference in violations],
        "rules-version": static["rules-version"],
        "template-version": run.app.template_version,
        "static": static,
        "static-sha256": lock.static_digest(cfg),
        "partitions": max(run.registry.partitions),
        "round": server_round,
        "base-model": {"name": cfg.model.name, "revision": cfg.model.revision},
        "auto-targets": _auto_targets(run),
        "prompt-template": cfg.prompt.template,
        "settings": dict(cfg),
        "seed": cfg.seed,
        "repeatable": not unrepeatable(cfg),
        "replies": run.lost.record(),
        "communication": run.ledger.summary(),
        "library": run.library.record(),
        "versions": package_versions(),
        **_surroundings(run),
        **more,
    }


def run_info(run: RunFacts, status: str, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what run.json says.

    Parameters
    ----------
    status : str
        running, finished, failed or stopped.
    data : Mapping[str, Any] | None
        The data report, where there is one.
    """
    violations = run.violations()
    return {
        **_identity(run),
        "flwr-run-ids": run.run_ids,
        "name": run.app.name,
        "official": not violations,
        "differences": [vars(difference) for difference in violations],
        "clients-per-round": run.clients_per_round,
        "budget-mib": run.ledger.budget_mib,
        "model": run.cfg.model.name,
        "quantization": run.quantization,
        "started": run.started,
        "ended": None if status == "running" else now(),
        "status": status,
        "reason": run.reason,
        "settings": dict(run.cfg),
        "repeatable": not unrepeatable(run.cfg),
        "adapter-config": run.adapter_config,
        "auto-targets": _auto_targets(run),
        "library": run.library.record(),
        "replies": run.lost.record(),
        "chosen": run.chosen,
        "data": data,
        **_surroundings(run),
    }


def first_info(cfg: Settings, app: App, run_id: int) -> dict[str, Any]:
    """Return what run.json says before anyone has answered: who takes part is not known yet."""
    return {
        "run-id": str(run_id),
        "flwr-run-ids": [str(run_id)],
        "challenge": cfg.static.challenge,
        "rules": cfg.static.rules,
        "rounds": cfg.num_server_rounds,
        "name": app.name,
        "budget-mib": cfg.static.budget_mib,
        "model": cfg.model.name,
        "started": now(),
        "ended": None,
        "status": "running",
        "reason": None,
        "settings": dict(cfg),
    }


def _surroundings(run: RunFacts) -> dict[str, Any]:
    """Return the head of the chain, and what the run ran: the app's files, packages, machine."""
    return {
        "chain": run.chain.head(),
        "pinned": dict(run.pinned),
        "app": dict(run.app_files),
        "environment": {"packages": installed_packages()},
        "hardware": hardware(),
    }


def _auto_targets(run: RunFacts) -> dict[str, Any] | None:
    """Return what "auto" stood for; None where modules are named, or the app chose its own."""
    adapter = run.adapter_config
    if adapter is None or run.cfg.model.lora.target_modules != AUTO:
        return None
    chosen = auto_targets(run.cfg)
    named = adapter.get("target_modules")
    if isinstance(chosen.modules, list) and sorted(named or []) != sorted(chosen.modules):
        return None
    return {"modules": named, "chosen-as": chosen.what}


def _identity(run: RunFacts) -> dict[str, Any]:
    return {
        "run-id": run.run_key,
        "challenge": run.cfg.static.challenge,
        "rules": run.cfg.static.rules,
        "rounds": run.cfg.num_server_rounds,
        "supernodes": len(run.registry.nodes),
    }


def profile_facts(run: RunFacts) -> dict[str, Any]:
    """Return what the profile of a run says at its head."""
    kept = ("model.name", "train.transport", "aggregation.mode")
    return {
        "run": run.run_key,
        "rounds": run.cfg.num_server_rounds,
        "clients-per-round": run.clients_per_round,
        "supernodes": len(run.registry.nodes),
        **{key: run.cfg[key] for key in kept},
    }
