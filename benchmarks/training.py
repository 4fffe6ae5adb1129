"""What a training step costs: the app's loop, a bare loop, and TRL's SFTTrainer, in one run.

    python -m benchmarks.training [--steps 4] [--repeats 3] [--threads 1] [--old FOLDER]

The built-in model SmolLM2-135M-Instruct in float32 with LoRA (r=32) without dropout, which would
make losses differ, batches of 16 rows of the finance sample. A second table has 160 rows whose
lengths are log-normal (median 90 tokens, 95 % at most 380, cut at 512), as long answers have them,
against the same loop with each batch in one part, or with --old against the loop of an earlier
commit: `git worktree add FOLDER 6f07a24`.
The sides alternate; CPU seconds of the process, medians. TRL is compared where it is
installed: `pip install --no-deps --target ELSEWHERE trl`, with ELSEWHERE in PYTHONPATH.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent
BATCH, SEED, MEDIAN, SPREAD, LONGEST = 16, 0, 4.5, 0.876, 512
ROWS = 160


class Task:
    """What the library gives the app's loop: a model and steps; and its reply, the mean loss."""

    learning_rate, seed = 5e-5, 0

    def __init__(self, model: Any, steps: list[Any], cfg: Any) -> None:
        self._model, self._steps, self.cfg, self.adapter = model, steps, cfg, {}

    def phase(self, name: str) -> Any:
        """Time nothing."""
        return nullcontext()

    def cached(self, make: Any) -> Any:
        """Return the model, whatever makes it."""
        return self._model

    def load_adapter(self, model: Any) -> None:
        """Leave the adapter as it is."""

    def steps(self, tokenizer: Any, device: Any) -> list[Any]:
        """Return the benchmark's steps."""
        return self._steps

    def reply(self, model: Any, loss: float) -> float:
        """Return the loss."""
        return loss


class Sides:
    """The same steps from the same adapter, each way."""

    def __init__(self, examples: list[Any], cfg: Any) -> None:
        from flowertune.data.steps import Step
        from flowertune.models.loader import load_base_model, load_tokenizer
        from template.app.models import lora_config

        self.cfg, self.examples = cfg, examples
        self.tokenizer = load_tokenizer(cfg)
        from peft import get_peft_model

        self.model = get_peft_model(load_base_model(cfg), lora_config(cfg))
        self.first = {n: p.detach().clone() for n, p in self._trained()}
        batches = [examples[n : n + BATCH] for n in range(0, len(examples), BATCH)]
        self.steps = [Step([batch], self.tokenizer.pad_token_id, "cpu") for batch in batches]

    def _trained(self) -> Iterator[tuple[str, Any]]:
        return ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)

    def begin(self) -> None:
        """Put the adapter back to where it began."""
        import torch

        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(self.first[name])

    def ours(self) -> float:
        """Return the loss of the app's own loop."""
        from template.app import client_app

        task = Task(self.model, self.steps, self.cfg)
        with mock.patch.object(client_app.app, "task", lambda message, context: task):
            return client_app.train(None, None)  # type: ignore[arg-type]

    def whole_batches(self) -> float:
        """Return the loss of the app's loop where every batch goes through the model whole."""
        with mock.patch(
            "flowertune.data.steps.parts_of", lambda lengths, most: [list(range(len(lengths)))]
        ):
            return self.ours()

    def earlier(self, folder: Path) -> float:
        """Return the loss of the loop in the template of a checkout of 6f07a24."""
        loop = earlier_loop(folder)
        steps = [step.micro_batches for step in self.steps]
        return loop.fit(self.model, steps, self.tokenizer.pad_token_id, Task.learning_rate)

    def bare(self) -> float:
        """Return the loss of the loop that a tutorial has: padding on the right, all logits."""
        import torch

        parameters = [p for _, p in self._trained()]
        optimizer = torch.optim.AdamW(parameters, lr=Task.learning_rate)
        self.model.train()
        total, tokens = 0.0, 0
        for step in self.steps:
            loss, count = self._loss(step.micro_batches[0])
            (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total, tokens = total + loss.item(), tokens + count
        return total / tokens

    def _loss(self, batch: list[Any]) -> tuple[Any, int]:
        import torch

        width = max(len(row.ids) for row in batch)
        ids = torch.full((len(batch), width), self.tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for place, row in enumerate(batch):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            mask[place, : len(row.ids)] = 1
            labels[place, row.answer_start : len(row.ids)] = ids[
                place, row.answer_start : len(row.ids)
            ]
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
        )
        return loss, int((labels != -100).sum())

    def trl(self) -> float:
        """Return the loss of TRL's SFTTrainer."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

        rows = [
            {
                "input_ids": list(row.ids),
                "completion_mask": [int(n >= row.answer_start) for n in range(len(row.ids))],
            }
            for row in self.examples
        ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = SFTConfig(
                output_dir=folder,
                max_steps=len(self.steps),
                per_device_train_batch_size=BATCH,
                learning_rate=Task.learning_rate,
                lr_scheduler_type="constant",
                gradient_checkpointing=False,
                bf16=False,
                max_length=LONGEST,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            )
            trainer = SFTTrainer(
                model=self.model,
                args=arguments,
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tokenizer,
            )
            with measuring_only_training(self):
                return float(trainer.train().training_loss)


@cache
def earlier_loop(folder: Path) -> Any:
    """Return the module ``flowertune.training.loop``, which the library has no longer."""
    modules = ["flowertune.training", "flowertune.training.tokens", "flowertune.training.loop"]
    for name in modules:
        path = folder / "template" / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        spec = spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[modules[-1]]


@contextmanager
def measuring_only_training(sides: Sides) -> Iterator[None]:
    """Take the seconds that a trainer needs to be made out of its measurement."""
    sides.skipped = time.process_time()  # type: ignore[attr-defined]
    yield


def compare(sides: Sides, ways: list[tuple[str, Callable[[], float]]], repeats: int) -> None:
    """Print CPU seconds and losses of some ways, which take turns; ratios to the first one."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for name, way in ways:
            sides.begin()
            start = time.process_time()
            sides.skipped = start  # type: ignore[attr-defined]
            losses[name] = way()
            seconds[name].append(time.process_time() - sides.skipped)  # type: ignore[attr-defined]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    first = middle[ways[0][0]]
    for name, value in middle.items():
        print(f"  {name:<28}{value:8.2f} s   ours / it {first / value:5.2f}   loss "
              f"{losses[name]:.6f}")  # fmt: skip


def padding(sides: Sides) -> str:
    """Return how much of the batches is padding, whole and in parts."""
    from flowertune.data.parts import parts_of

    tokens = whole = parted = 0
    for step in sides.steps:
        lengths = [len(row.ids) for row in step.micro_batches[0]]
        tokens += sum(lengths)
        whole += len(lengths) * max(lengths)
        parted += sum(len(p) * max(lengths[n] for n in p) for p in parts_of(lengths, BATCH))
    return f"padding {1 - tokens / whole:.1%} of whole batches, {1 - tokens / parted:.1%} of ours"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=4, help="of the first table (default 4)")
    parser.add_argument("--repeats", type=int, default=3, help="of the first table (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--old", type=Path, metavar="FOLDER", help="a checkout of 6f07a24")
    arguments = parser.parse_args()
    import json
    from importlib.util import find_spec

    import torch

    from flowertune.data.tokens import Example, cut, encode
    from flowertune.models.loader import load_tokenizer
    from template.app.dataset import prompt_and_answer
    from tests.apps import settings

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(arguments.threads)
    changes = {"model.quantization": 0, "model.lora.peft-lora-dropout": 0.0}
    cfg = settings({"model.name": "smollm2-135m-instruct", **changes})
    tokenizer = load_tokenizer(cfg)
    lines = (ROOT / "challenges" / "samples" / "finance.jsonl").read_text("utf-8").splitlines()
    pairs = [prompt_and_answer(json.loads(line), cfg, tokenizer) for line in lines]
    rng = random.Random(SEED)
    rng.shuffle(pairs)
    rows = encode(tokenizer, pairs[: arguments.steps * BATCH])
    sides = Sides([row for one in rows if (row := cut(one, LONGEST))], cfg)
    print(f"finance sample, {arguments.steps} steps of {BATCH} rows; {padding(sides)}")
    ways = [("ours", sides.ours), ("bare loop", sides.bare)]
    if find_spec("trl"):
        ways.append(("TRL SFTTrainer", sides.trl))
    if arguments.repeats:
        compare(sides, ways, arguments.repeats)

    lengths = [
        min(LONGEST, max(16, round(rng.lognormvariate(MEDIAN, SPREAD)))) for _ in range(ROWS)
    ]
    vocabulary = len(tokenizer)
    sides.examples = [
        Example(array("l", (rng.randrange(vocabulary) for _ in range(n))), max(1, n // 3))
        for n in lengths
    ]
    from flowertune.data.steps import Step

    sides.steps = [
        Step([sides.examples[n : n + BATCH]], tokenizer.pad_token_id, "cpu")
        for n in range(0, ROWS, BATCH)
    ]
    print(f"log-normal lengths, {ROWS} rows; {padding(sides)}")
    other = ("whole batches", sides.whole_batches)
    if arguments.old:
        other = ("6f07a24", lambda: sides.earlier(arguments.old))
    compare(sides, [("ours", sides.ours), other], 1)


if __name__ == "__main__":
    main()
