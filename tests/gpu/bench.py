"""What the checks share: the model, the settings of a round, and what a round took."""

import gc
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from flwr.supercore.task_identity import TaskIdentity
from transformers import MistralForCausalLM

from flowertune.base.cache import clear_cache
from flowertune.models.known import known_models
from flowertune.models.memory import Memory, estimate, work_of
from flowertune.planning.architecture import architecture
from template.app.models import lora_config
from tests import apps, local_grid
from tests.gpu.card import GB
from tests.gpu.weights import first_layers, write_config

ROOT = Path(__file__).parent.parent.parent
Method = tuple[type, str]
MISTRAL = "mistralai/Mistral-7B-v0.3"
TINY = {
    "model_type": "mistral",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 258,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
BATCH = "train.training-arguments.per-device-train-batch-size"
CHECKPOINTING = "model.gradient-checkpointing"
NODES, ROUNDS, STEPS, ROWS, TOKENS = 2, 2, 2, 16, 160
_SHARE = 0.85  # of free memory; the rest is for CUDA itself, and for what an estimate leaves out


class Skipped(Exception):
    """A check that this machine cannot run; the text says why."""


class Failed(Exception):
    """A check that found what should not be; the text says what."""


@dataclass(frozen=True)
class Bench:
    """Where the checks work, and with what.

    Attributes
    ----------
    folder
        For models and results.
    device
        "cuda", or "cpu" in a rehearsal.
    free
        GB of GPU memory that a model may take; 0 in a rehearsal.
    whole
        The layers of the model that lies in ``folder``.
    """

    folder: Path
    device: str
    free: float
    whole: int

    @property
    def rehearsal(self) -> bool:
        """Whether there is no GPU."""
        return self.device == "cpu"

    @property
    def config(self) -> dict[str, Any]:
        """The values of the model's config."""
        return TINY if self.rehearsal else known_models()[MISTRAL]

    @property
    def cards(self) -> int:
        """How many GPUs there are."""
        return 0 if self.rehearsal else torch.cuda.device_count()

    @property
    def model(self) -> Path:
        """The folder of the whole model."""
        return self.folder / "model"

    def layers(self, bits: int, share: float = 1.0, dtype: str = "bfloat16") -> int:
        """Return how many layers train on a share of the card."""
        if self.rehearsal:
            return self.whole
        return fitting(self, bits, self.free * share, self.whole, dtype)

    def settings(self, name: str, bits: int, layers: int, **changes: Any) -> dict[str, Any]:
        """Return the settings of a run of two clients, whose results go to a folder of its name."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return apps.tiny_settings(
            folder,
            first_layers(self.model, layers),
            4 * ROWS,
            {
                "model.quantization": bits,
                "model.dtype": "bfloat16",
                CHECKPOINTING: True,
                "strategy.fraction-train": 1.0,
                "num-server-rounds": ROUNDS,
                "train.training-arguments.max-steps": STEPS,
                BATCH: 2 if self.rehearsal else ROWS,
                **changes,
            },
        )

    def planned(self, cfg: dict[str, Any]) -> Memory:
        """Return what ``flowertune plan`` says of a run's memory."""
        return _planned(cfg)

    def save(self, file: Path) -> None:
        """Write it down for another process."""
        file.write_text(json.dumps({**asdict(self), "folder": str(self.folder)}), "utf-8")

    @staticmethod
    def load(file: Path) -> "Bench":
        """Read what ``save`` wrote."""
        values = json.loads(file.read_text("utf-8"))
        return Bench(**{**values, "folder": Path(values["folder"])})


def fitting(bench: Bench, bits: int, gb: float, most: int, dtype: str) -> int:
    """Return how many layers of the model train in so much memory, at least 2."""
    folder = bench.folder / "sizes"
    folder.mkdir(parents=True, exist_ok=True)
    for layers in range(most, 2, -2):
        write_config(folder / "model", {**bench.config, "num_hidden_layers": layers})
        changes = {"model.quantization": bits, "model.dtype": dtype, CHECKPOINTING: True}
        cfg = apps.tiny_settings(folder, folder / "model", 1, {**changes, BATCH: ROWS})
        if _planned(cfg).total < _SHARE * gb:
            return layers
    return 2


def _planned(cfg: dict[str, Any]) -> Memory:
    typed = apps.settings(cfg)
    return estimate(architecture(typed, lora_config(typed)).shapes, work_of(typed, TOKENS))


@dataclass(frozen=True)
class Run:
    """A run that ended: its folder, the digest of its last adapter, and the lines of its log."""

    folder: Path
    sha256: str
    losses: tuple[float, ...]
    seconds: float
    log: tuple[str, ...]


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def train(cfg: dict[str, Any], run_id: int = 1) -> Run:
    """Run the Finance app in this process, server and clients.

    Raises
    ------
    UserError
        If the run fails.
    """
    # Their results go where a run's settings say, and nothing into the user's Flower.
    home = Path(cfg["results-dir"]).with_name("flwr-home")
    handler, begin = _Lines(), time.monotonic()
    logging.getLogger().addHandler(handler)
    logging.getLogger("flwr").addHandler(handler)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    try:
        with patch.dict(os.environ, FLWR_HOME=str(home)):
            local_grid.run_app(cfg, NODES, run_id)
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger("flwr").removeHandler(handler)
    folder = local_grid.folder(cfg, run_id)
    return Run(
        folder,
        local_grid.adapter_sha(folder, int(cfg["num-server-rounds"])),
        tuple(float(line["train-loss"]) for line in local_grid.lines(folder)),
        time.monotonic() - begin,
        tuple(handler.lines),
    )


def smaller(bench: Bench) -> Bench:
    """Return the bench with four layers at most: for what does not depend on how many there are."""
    return replace(bench, whole=min(4, bench.whole))


def peak() -> float | None:
    """Return the most memory that tensors took since the last ``forget``, in GB."""
    if not torch.cuda.is_initialized():
        return None
    return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) / GB


def forget() -> None:
    """Drop the models of the runs before, and count memory anew."""
    clear_cache()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def little_memory(bench: Bench, gb: float, begins: Method, ends: Method) -> Iterator[None]:
    """Within this context tensors may take only so many GB more than they do once ``ends`` returns.

    The limit is lifted whenever ``begins`` is called, so that a model is loaded without it. On a
    CPU it is made up: a pass of more than two rows runs out of memory.
    """
    if bench.rehearsal:
        forward = MistralForCausalLM.forward

        def full(model: Any, input_ids: Any = None, *arguments: Any, **options: Any) -> Any:
            if input_ids is not None and len(input_ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(model, input_ids, *arguments, **options)

        with patch.object(MistralForCausalLM, "forward", full):
            yield
        return

    def lifted(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            torch.cuda.set_per_process_memory_fraction(1.0, 0)
            return method(*arguments, **options)

        return call

    def limited(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            torch.cuda.empty_cache()
            most = torch.cuda.memory_allocated(0) + gb * GB
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), 0)
            return result

        return call

    with ExitStack() as stack:
        stack.callback(torch.cuda.set_per_process_memory_fraction, 1.0, 0)
        for (owner, name), around in ((ends, limited), (begins, lifted)):
            stack.enter_context(patch.object(owner, name, around(getattr(owner, name))))
        yield
