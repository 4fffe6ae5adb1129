"""Each architecture in a process of its own, so that one that crashes or hangs ends alone."""

import json
import multiprocessing
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.apps import rendered, tiny_settings
from tests.architectures.result import CHANGES, Result, judged

SECONDS = 240
# What every process would import otherwise, in seconds each time.
_LOADED = (
    "peft", "datasets", "matplotlib.pyplot", "transformers.modeling_utils", "lm_eval.evaluator",
    "evaluation.lm", "evaluation.run", "flowertune.client.task", "flowertune.run.training",
    "tests.architectures.check",
)  # fmt: skip


def run(architecture: str, seconds: float = SECONDS) -> Result:
    """Check an architecture in a process that has ``seconds``; the process's end is a result."""
    place = Path(mkdtemp(prefix=f"architecture-{architecture}-"))
    try:
        cfg = tiny_settings(place, place / "model", 8, CHANGES)
        answer = place / "result.json"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*_LOADED])
        arguments = (architecture, cfg, rendered("finance"), place, answer)
        process = context.Process(target=_work, args=arguments)
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return Result(architecture, "fault", "", f"it took longer than {seconds:.0f} seconds")
        if not answer.is_file():
            return Result(architecture, "fault", "", f"it ended with status {process.exitcode}")
        # Sentences name the model by its folder, which is another one each time.
        text = answer.read_text("utf-8").replace(cfg["model.name"], "MODEL")
        return judged(Result(**json.loads(text)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _work(*arguments: Any) -> None:
    from tests.architectures.check import checked  # late: it takes seconds to import

    checked(*arguments)
