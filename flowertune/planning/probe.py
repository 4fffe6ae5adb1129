"""Measure a few steps of the app's own training on this machine."""

import time
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowertune.base.cache import cached
from flowertune.base.errors import UserError
from flowertune.client.app import ClientApp
from flowertune.comms.validation import ARRAYS, METRICS
from flowertune.config.checks import STEPS
from flowertune.config.settings import Settings, keys_of_models
from flowertune.models.adapter import adapter_of


@dataclass(frozen=True)
class Probe:
    """What was measured; seconds, tokens (padding not counted), and GB on the GPU if there is one.

    ``steps`` counts the timed ones; one step before them is not timed.
    """

    device: str
    threads: int
    setup_seconds: float
    steps: int
    step_seconds: float
    tokens_per_second: float
    peak_gb: float | None


def probe(cfg: Settings, app: ClientApp, partitions: int, steps: int = 3) -> Probe:
    """Let the app train on rows of partition 0, as a client does in round 1.

    Raises
    ------
    UserError
        If the model or the data cannot be had, or the settings train nothing.
    """
    if cfg.train.training_arguments.max_steps == 0:
        raise UserError(f"{STEPS} is 0: this run trains nothing, so there is no time to measure.")
    # Flower's messages want to know the run and the node that they belong to.
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    started = time.perf_counter()
    model = cached(app.functions.load_model, cfg, keys_of_models(cfg))
    adapter = {name: t.detach().float().cpu() for name, t in adapter_of(model).items()}
    _train(cfg, app, partitions, adapter, 1)
    setup = time.perf_counter() - started

    started = time.perf_counter()
    reply = _train(cfg, app, partitions, adapter, steps)
    seconds = time.perf_counter() - started
    on_gpu = torch.cuda.is_available()
    tokens = reply.content.metric_records[METRICS]["tokens"]
    return Probe(
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
        threads=torch.get_num_threads(),
        setup_seconds=setup,
        steps=steps,
        step_seconds=seconds / steps,
        tokens_per_second=float(tokens) / seconds,  # type: ignore[arg-type]
        peak_gb=torch.cuda.max_memory_reserved() / 1e9 if on_gpu else None,
    )


def _train(
    cfg: Settings, app: ClientApp, partitions: int, adapter: dict[str, torch.Tensor], steps: int
) -> Message:
    config = {
        "server-round": 1,
        "learning-rate": cfg.train.learning_rate_max,
        "state-key": "probe",
    }
    content = {ARRAYS: ArrayRecord(adapter), "config": ConfigRecord(config)}
    # Only what a reply would leave on disk differs from a run.
    changes = {STEPS: steps, "aggregation.mode": "all_at_once", "train.transport": "float32"}
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": 0, "num-partitions": partitions},
        state=RecordDict(),
        run_config={**cfg, **changes},
    )
    reply = app(Message(RecordDict(content), 1, "train"), context)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return reply
