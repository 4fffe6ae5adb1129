"""What is traced: the app's own training, and the scorer's own decoding."""

import gc
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from evaluation.generation import Row, generate
from evaluation.model import ModelChoice, load
from flowertune.base.cache import cached, clear_cache
from flowertune.client import task as tasks
from flowertune.config.settings import Settings, keys_of_models
from flowertune.models.adapter import adapter_of
from template.app.client_app import app
from template.app.models import load_model
from tests import apps
from tests.trace.card import tracing
from tests.trace.checkpoints import holes
from tests.trace.tracer import Trace

BATCH = "train.training-arguments.per-device-train-batch-size"
ROWS = 16
STEPS = 2  # AdamW's moments are there from the second step on


@dataclass(frozen=True)
class Traced:
    """One trace: the settings, and what loading the model and training it took."""

    cfg: Settings
    loading: Trace
    training: Trace


def training(
    model: Path,
    folder: Path,
    device: str,
    tokens: int,
    rows: int = ROWS,
    answer: int | None = None,
    **changes: Any,
) -> Traced:
    """Trace two steps of one client: the app's ``train``, through the library's task.

    Parameters
    ----------
    model : Path
        A folder that ``checkpoints.write`` made.
    tokens, rows : int
        Every row has ``tokens`` tokens; a step has ``rows`` rows.
    answer : int, optional
        How many of a row's tokens are its answer; all it can be if not given.
    """
    file = folder / f"rows-{tokens}-{answer}.jsonl"
    _write_rows(file, tokens, STEPS * rows, answer)
    settings: dict[str, Any] = {
        "model.name": str(model),
        "model.device-map": "auto" if device == "cuda" else device,
        "static.dataset.name": str(file),
        "static.num-supernodes": 0,
        "prompt.template": "{question}",
        "train.seq-length": tokens,
        BATCH: rows,
        "train.training-arguments.gradient-accumulation-steps": 1,
        "train.training-arguments.max-steps": STEPS,
        "results-dir": str(folder / "results"),
        **changes,
    }
    cfg = apps.settings(settings)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    clear_cache()
    try:
        with tracing(device) as tracer, holes():
            tracer.phase = "model"
            loaded = cached(load_model, cfg, keys_of_models(cfg))
            gc.collect()
            loading = deepcopy(tracer.trace)
            tracer.trace.restart()
            tracer.phase = "training"
            _train(cfg, {name: torch.zeros(t.shape) for name, t in adapter_of(loaded).items()})
            return Traced(cfg, loading, deepcopy(tracer.trace))
    finally:
        clear_cache()


def decoding(
    model: Path,
    device: str,
    rows: int,
    prompt: int,
    new: int,
    bits: int = 4,
    dtype: str = "float32",
) -> tuple[Trace, Trace]:
    """Trace the scorer: what loading the model took, and ``rows`` answers of ``new`` tokens."""
    choice = ModelChoice(str(model), None, None, bits, dtype, device)
    with tracing(device) as tracer, holes():
        loaded = load(choice)
        gc.collect()
        loading = deepcopy(tracer.trace)
        tracer.trace.restart()
        asked = [Row(index=n, prompt=[n % 200 + 2] * prompt, limit=new) for n in range(rows)]
        generate(loaded, asked, batch_size=rows, end_ids=[1], pad_id=1, recheck_ties=False)
        assert all(len(row.new) == new for row in asked)
        return loading, deepcopy(tracer.trace)


def _train(cfg: Settings, adapter: Mapping[str, torch.Tensor]) -> Message:
    config = {"server-round": 1, "learning-rate": 1e-4, "state-key": "trace"}
    content = {"arrays": ArrayRecord(), "config": ConfigRecord(config)}
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": 0, "num-partitions": 1},
        state=RecordDict(),
        run_config=dict(cfg),
    )
    # Fake tensors have no bytes: they come and go as they are, and nothing is sampled of them.
    with (
        patch.object(tasks, "unpack", lambda record: dict(adapter)),
        patch.object(tasks, "packed_reply", lambda *_: ArrayRecord()),
        patch.object(tasks, "fingerprint", lambda model: {}),
    ):
        return app(Message(RecordDict(content), 1, "train"), context)


def _write_rows(file: Path, tokens: int, rows: int, answer: int | None) -> None:
    """Rows that have ``tokens`` tokens each, a byte being one, the end of the answer among them."""
    long = answer or tokens - 2  # one for the prompt, one for the end
    prompt = "q" * (tokens - long - 1)
    # A separating space is the answer's first token.
    row = {"instruction": prompt, "input": "", "output": "a" * (long - 1)}
    file.write_text(f"{json.dumps(row)}\n" * rows)
