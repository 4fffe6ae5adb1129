"""One plan: every number that the command shows, as plain values."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowertune.base.errors import SettingsError
from flowertune.base.text import MIB
from flowertune.config.checks import client_problems, clients_per_round
from flowertune.config.settings import SHIFTED, Settings
from flowertune.models.memory import Memory, estimate, work_of
from flowertune.planning.architecture import Architecture
from flowertune.planning.communication import (
    Communication,
    Traffic,
    adapter_bytes,
    with_evaluations,
)
from flowertune.planning.disk import VALUE_BYTES, Disk
from flowertune.planning.published import Comparison, comparisons

if TYPE_CHECKING:  # it needs torch, and a plan does not
    from flowertune.planning.probe import Probe


@dataclass(frozen=True)
class Plan:
    """What a run with these settings will take.

    Attributes
    ----------
    tokens
        Of the longest row of a batch, for the memory.
    other_memory
        The memory without gradient checkpointing where ``memory`` is with it, and the other way.
    gpu_gb
        The memory of this machine's first GPU; None where there is none.
    workers
        How many clients train at a time in a simulation on this machine.
    """

    cfg: Settings
    supernodes: int
    tokens: int
    shape: Architecture
    communication: Communication
    disk: Disk
    memory: Memory
    other_memory: Memory
    published: list[Comparison]
    probe: "Probe | None" = None
    gpu_gb: float | None = None
    workers: int | None = None

    @property
    def client_seconds(self) -> float | None:
        """Measured seconds of one client's share of a round."""
        steps = self.cfg.train.training_arguments.max_steps
        return self.probe.step_seconds * steps if self.probe else None

    @property
    def run_seconds(self) -> float | None:
        """Seconds of all training, one client after another."""
        each = self.client_seconds
        return each and each * self.communication.clients * self.communication.rounds


def check_clients(cfg: Settings, supernodes: int) -> None:
    """Refuse settings of which too few clients would train.

    Raises
    ------
    UserError
        If fewer clients would train than have to.
    """
    if problems := client_problems(cfg, supernodes):
        raise SettingsError(problems)


def make_plan(
    cfg: Settings,
    shape: Architecture,
    supernodes: int,
    tokens: int | None = None,
    traffic: Traffic | None = None,
) -> Plan:
    """Work out a plan from the settings, without weights.

    Parameters
    ----------
    shape : Architecture
        Of the configured model, with the app's adapter on it.
    supernodes : int
        How many SuperNodes the run will have.
    tokens : int, optional
        Tokens of the longest row of a batch, for memory; ``train.seq-length`` if not given.
    traffic : Traffic, optional
        What the method sends (``planning.traffic``); FedAvg's if not given.

    Raises
    ------
    UserError
        If fewer clients would train than have to.
    """
    check_clients(cfg, supernodes)
    transport = cfg.train.transport
    longest = cfg.train.seq_length if tokens is None else tokens
    work = work_of(cfg, longest)
    values, rounds = adapter_bytes(shape.adapter, transport), cfg.num_server_rounds
    clients = clients_per_round(cfg.strategy.fraction_train, supernodes)
    fedavg = Traffic.alike(values, shape.message_bytes[transport], clients, rounds)
    return Plan(
        cfg=cfg,
        supernodes=supernodes,
        tokens=longest,
        shape=shape,
        communication=Communication(
            adapter_bytes=values,
            clients=clients,
            rounds=rounds,
            budget_mib=cfg.static.budget_mib,
            traffic=with_evaluations(
                traffic or fedavg, cfg, supernodes, values, shape.message_bytes[transport]
            ),
        ),
        disk=Disk(
            # Each state has the first adapter, too, and each checkpoint twice the rank.
            VALUE_BYTES * shape.adapter_parameters * (2 if cfg.model.lora.init in SHIFTED else 1),
            cfg.num_server_rounds,
            cfg.train.save_every_round,
            cfg.train.keep_states,
            clients * rounds if transport == "int8" else 0,
            supernodes,
        ),
        memory=estimate(shape.shapes, work),
        other_memory=estimate(shape.shapes, replace(work, checkpointing=not work.checkpointing)),
        published=comparisons(cfg.model.name, shape.shapes),
    )


def warnings(plan: Plan) -> list[str]:
    """Return a sentence for everything that will not work out."""
    sentences = []
    spent = plan.communication
    if spent.rounds_that_fit < spent.rounds:
        sentences.append(
            f"The run needs {spent.counted_mib:,.0f} MiB and the budget is {spent.budget_mib:,} "
            f"MiB: {spent.rounds_that_fit:,} of {spent.rounds:,} rounds fit. Lower "
            "num-server-rounds, strategy.fraction-train or model.lora.peft-lora-r, or send fewer "
            "bytes with train.transport."
        )
    locked = plan.cfg.static.num_supernodes
    if locked not in (0, plan.supernodes):
        sentences.append(
            f"A run on {plan.supernodes} SuperNodes is unofficial: the challenge is locked to "
            f"{locked}."
        )
    if plan.gpu_gb is not None and plan.memory.total > plan.gpu_gb:
        sentences.append(
            f"One client takes about {plan.memory.total:.1f} GB and this machine's GPU has "
            f"{plan.gpu_gb:.1f} GB. Halve train.training-arguments.per-device-train-batch-size and "
            "double train.training-arguments.gradient-accumulation-steps, or lower "
            "train.seq-length."
        )
    return sentences


def as_values(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON takes it; GB are 10^9 bytes, MiB 2^20."""
    cfg, shape, spent = plan.cfg, plan.shape, plan.communication
    values: dict[str, Any] = {
        "challenge": cfg.static.challenge,
        "rules": cfg.static.rules,
        "model": {
            "name": cfg.model.name,
            "parameters": shape.parameters,
            "quantization": cfg.model.quantization,
        },
        "adapter": {
            "rank": cfg.model.lora.peft_lora_r,
            "modules": list(shape.adapted_modules),
            "tensors": len(shape.adapter),
            "parameters": shape.adapter_parameters,
            "transport": cfg.train.transport,
            "bytes": spent.adapter_bytes,
        },
        "communication": {
            "supernodes": plan.supernodes,
            "clients-per-round": spent.clients,
            "rounds": spent.rounds,
            "method": cfg.strategy.name,
            "down-mib": sum(spent.traffic.down) / MIB,
            "up-mib": sum(spent.traffic.up) / MIB,
            "round-mib": spent.round_mib,
            "total-mib": spent.total_mib,
            "counted-mib": spent.counted_mib,
            "budget-mib": spent.budget_mib,
            "rounds-that-fit": spent.rounds_that_fit,
        },
        "disk": {
            "adapter-bytes": plan.disk.adapter_bytes,
            "states": plan.disk.states,
            "checkpoints": plan.disk.checkpoints,
            "total-mib": plan.disk.total_mib,
            "clients-mib": plan.disk.kept_mib,
        },
        "memory-gb": {
            "estimate": True,
            "tokens": plan.tokens,
            **{name.replace("_", "-"): gb for name, gb in vars(plan.memory).items()},
            "total": plan.memory.total,
            "checkpointing": work_of(plan.cfg, plan.tokens).checkpointing,
            "total-otherwise": plan.other_memory.total,
            "gpu": plan.gpu_gb,
        },
        "workers": plan.workers,
        "published-gb": [
            {
                "setting": row.setting,
                "published": row.published,
                "estimated": row.estimated,
                "error": row.error,
            }
            for row in plan.published
        ],
        "time": None,
        "warnings": warnings(plan),
    }
    if plan.probe:
        values["time"] = {
            **{name.replace("_", "-"): value for name, value in vars(plan.probe).items()},
            "client-seconds": plan.client_seconds,
            "run-seconds-one-client-at-a-time": plan.run_seconds,
        }
    return values
