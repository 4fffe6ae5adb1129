"""Rendered apps changed as a participant changes them, and what runs of them leave behind."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from flowertune.models.adapter import adapter_of
from flowertune.models.loader import with_adapter
from tests.apps import ROOT, rendered
from tests.local_grid import LocalGrid, Tamper, run_app

PACKAGE = "flowertune_finance"
TUTORIAL = ROOT / "docs" / "tutorial" / "write-your-own-method.md"


def diffs(page: Path = TUTORIAL) -> dict[str, str]:
    """The diff under each heading of a page."""
    parts = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    blocks = {
        heading: re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: "".join(found) for heading, found in blocks.items() if found}


def copy_of_app(folder: Path) -> Path:
    """A finance app of one's own, as it was rendered."""
    app = folder / "app"
    shutil.copytree(rendered("finance"), app, ignore=shutil.ignore_patterns("__pycache__"))
    return app


def apply(app: Path, diff: str) -> None:
    """Apply a diff to an app; every line of context has to be there."""
    command = ["git", "apply", "--verbose", "-"]
    done = subprocess.run(command, cwd=app, input=diff, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def edit(app: Path, file: str, old: str, new: str) -> None:
    """Replace a text that is in one of the app's files once."""
    path = app / PACKAGE / file
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new), "utf-8")


def use_strategy(app: Path, code: str) -> None:
    """Give the app the strategy that code for the end of strategy.py defines."""
    (name,) = re.findall(r"^class (\w+)\(LoraFedAvg\)", code, re.MULTILINE)
    path = app / PACKAGE / "strategy.py"
    ahead = f"{path.read_text('utf-8')}\n\nfrom flwr.common import Array\n\n"
    path.write_text(f"{ahead}{code}", "utf-8")
    edit(app, "strategy.py", '"fedavg": LoraFedAvg', f'"fedavg": {name}')


@dataclass
class Traffic:
    """Bytes of all messages by who sent them, and those of the tensors in them."""

    sent: int = 0
    received: int = 0
    tensors: dict[str, int] = field(default_factory=lambda: {"sent": 0, "received": 0})


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """Count what goes through a grid of this process, apart from the ledger."""
    traffic, handle = Traffic(), LocalGrid.handle

    def nbytes(message: Message) -> int:
        if message.has_error():
            return 0
        return sum(len(name) + record.count_bytes() for name, record in message.content.items())

    def of_tensors(message: Message) -> int:
        if message.has_error():
            return 0
        records = message.content.array_records.values()
        return sum(len(array.data) for record in records for array in record.values())

    def counting(grid: LocalGrid, message: Message, partition: int) -> Message:
        reply = handle(grid, message, partition)
        traffic.sent += nbytes(message)
        traffic.received += nbytes(reply)
        traffic.tensors["sent"] += of_tensors(message)
        traffic.tensors["received"] += of_tensors(reply)
        return reply

    with patch.context() as inner:
        inner.setattr(LocalGrid, "handle", counting)
        yield traffic


@dataclass(frozen=True)
class Run:
    """The folder of a run."""

    folder: Path

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Its finished rounds."""
        return [json.loads(s) for s in (self.folder / "rounds.jsonl").read_text().splitlines()]

    @property
    def ledger(self) -> dict[str, int]:
        """Bytes in its ledger, by direction."""
        total = {"sent": 0, "received": 0}
        for line in (self.folder / "ledger.jsonl").read_text().splitlines():
            entry = json.loads(line)
            total[entry["direction"]] += entry["bytes"]
        return total

    @property
    def checkpoints(self) -> list[str]:
        """Names of its checkpoints."""
        return sorted(path.name for path in self.folder.glob("peft_*"))

    def file(self, server_round: int) -> Path:
        """The weights of a checkpoint."""
        return self.folder / f"peft_{server_round}" / "adapter_model.safetensors"

    def manifest(self, server_round: int) -> dict[str, Any]:
        """The manifest of a checkpoint."""
        return json.loads((self.folder / f"peft_{server_round}" / "manifest.json").read_text())

    def sha(self, server_round: int) -> str:
        """The digest of a checkpoint's weights."""
        return hashlib.sha256(self.file(server_round).read_bytes()).hexdigest()

    def adapter(self, server_round: int) -> dict[str, Any]:
        """The tensors of a checkpoint."""
        return load_file(self.file(server_round))


def run(
    app: Path,
    cfg: dict[str, Any],
    run_id: int,
    nodes: int,
    tamper: Tamper | None = None,
) -> Run:
    """Run an app in a worker that has served nobody before."""
    clear_cache()
    run_app(cfg, nodes, run_id, tamper, app)
    return Run(Path(cfg["results-dir"]) / str(run_id))


def lost_and_resumed(app: Path, cfg: dict[str, Any], run_id: int, nodes: int, lost: int) -> Run:
    """A run of which all replies of one round are lost, and that goes on before this round."""

    def drop(server_round: int, partition: int, reply: Message) -> Message | None:
        return None if server_round == lost else reply

    with pytest.raises(UserError, match=f"of round {lost} failed"):
        run(app, cfg, run_id, nodes, drop)
    stopped = Path(cfg["results-dir"]) / str(run_id)
    run(app, {**cfg, "resume-from": str(stopped)}, run_id + 1000, nodes)
    return Run(stopped)


def changed(one: Run, other: Run, rounds: Sequence[int]) -> list[int]:
    """The rounds after which two runs have different adapters."""
    return [n for n in rounds if one.sha(n) != other.sha(n)]


def it_is_what_peft_loads(whole: Run, model: str, server_round: int) -> None:
    """The checkpoint on the base model gives the values it holds, and changes what is said."""
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        before = base(ids).logits
        trained = with_adapter(base, str(whole.folder / f"peft_{server_round}")).eval()
        after = trained(ids).logits
    assert not torch.allclose(before, after, atol=1e-5)
    held, saved = adapter_of(trained), whole.adapter(server_round)
    assert held.keys() == saved.keys()
    assert all(torch.equal(held[n], saved[n]) for n in saved)
