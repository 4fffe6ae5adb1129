"""One architecture through the library's own code: trained, stopped, resumed, loaded, scored."""

# The grid in one process stands in for Flower's own.
# pyright: reportArgumentType=false

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.torch import load_file
from torch.utils import collect_env

from evaluation import cli, evaluate, score
from evaluation.decoding.batch import can_decode
from flowertune.base.errors import UserError
from tests.architectures.result import ROUNDS, Result
from tests.architectures.tiny import save_tiny_model
from tests.local_grid import LocalGrid, adapter_sha, folder, lines, load

NODES = 2
RUN, KILLED = 1, 2
SUITES = ("official", "standard")
ROWS, ANSWER = 3, 6  # of each set, and the tokens of an answer
TOLERANCE = 2e-3  # of a log-likelihood, a sum over about ten tokens in float32


class _Grid(LocalGrid):
    """Remembers what a client raised, so that no stack trace hides in an error message."""

    faults: list[BaseException]

    def handle(self, message: Message, partition: int) -> Message:
        client = self.client

        def watched(message: Message, context: Context) -> Message:
            try:
                return client(message, context)
            except Exception as error:
                if not isinstance(error, UserError):
                    self.faults.append(error)
                raise

        self.client = watched  # type: ignore[assignment]
        try:
            return super().handle(message, partition)
        finally:
            self.client = client


def check(architecture: str, cfg: dict[str, Any], app: Path, place: Path) -> Result:
    """Put an architecture through every stage; never raises.

    Parameters
    ----------
    cfg : dict
        The settings of the run; its model is made here, where ``model.name`` says.
    app : Path
        The rendered app.
    place : Path
        An empty folder.
    """
    result = Result(architecture)
    model = Path(cfg["model.name"])
    stages: list[tuple[str, Callable[[], None]]] = [
        ("made", lambda: _make(architecture, model, result)),
        ("stopped", lambda: _kill_after_round_one(cfg, app)),
        ("trains", lambda: _train(cfg, app, result)),
        ("adapter", lambda: _look_at_product(folder(cfg, RUN) / f"peft_{ROUNDS}", result)),
        ("resumes", lambda: _resume(cfg, app)),
        ("PEFT", lambda: _load_with_peft(model, folder(cfg, RUN) / f"peft_{ROUNDS}", result)),
        *((suite, lambda s=suite: _score(s, model, cfg, place)) for suite in SUITES),
    ]
    for result.stage, stage in stages:
        try:
            stage()
        except UserError as error:
            result.outcome, result.text = "refused", str(error)
            return result
        except BaseException as error:
            result.outcome = "fault"
            result.text = "".join(traceback.format_exception(error))
            return result
    result.stage = ""
    return result


def _make(architecture: str, model: Path, result: Result) -> None:
    result.model = save_tiny_model(architecture, model)


def _run(
    cfg: dict[str, Any],
    app: Path,
    run_id: int,
    tamper: Callable[[int, int, Message], Message | None] | None = None,
) -> None:
    server, client = load(app)
    grid = _Grid(cfg, NODES, tamper, client)
    grid.faults = []
    context = Context(run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    try:
        server(grid=grid, context=context)
    except UserError:
        if grid.faults:
            raise grid.faults[0] from None
        raise


def _kill_after_round_one(cfg: dict[str, Any], app: Path) -> None:
    """Run in a process of its own that is killed while it waits for replies of round 2."""

    def kill(server_round: int, partition: int, reply: Message) -> Message:
        if server_round == ROUNDS:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    # Before this process computes anything: threads of a computation are not forked.
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _run(cfg, app, KILLED, kill)
        os._exit(0)
    os.waitpid(child, 0)


def _train(cfg: dict[str, Any], app: Path, result: Result) -> None:
    _run(cfg, app, RUN)
    run = folder(cfg, RUN)
    losses = [line["train-loss"] for line in lines(run)]
    assert len(losses) == ROUNDS and all(map(math.isfinite, losses)), losses
    named = json.loads((run / f"peft_{ROUNDS}" / "adapter_config.json").read_text())
    targets = named["target_modules"]
    result.targets = [targets] if isinstance(targets, str) else sorted(targets)


def _look_at_product(checkpoint: Path, result: Result) -> None:
    """Count the modules whose B·A is not zero."""
    tensors = load_file(checkpoint / "adapter_model.safetensors")
    for name, first in tensors.items():
        if "lora_A" not in name:
            continue
        second = tensors[name.replace("lora_A", "lora_B")]
        result.adapted += 1
        result.changed += bool((second.flatten(1) @ first.flatten(1)).any())
    assert result.changed, "no module's product B·A differs from zero"


def _resume(cfg: dict[str, Any], app: Path) -> None:
    killed = folder(cfg, KILLED)
    assert len(lines(killed)) == 1, "the run was not killed in round 2"
    _run({**cfg, "resume-from": str(killed)}, app, KILLED + 1)
    last = [adapter_sha(folder(cfg, run), ROUNDS) for run in (RUN, KILLED)]
    assert last[0] == last[1], "the resumed run ends with other bits"


def _plain(model: Path, checkpoint: Path) -> Any:
    """The base model and its adapter as transformers and PEFT load them, without this library."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(checkpoint)).eval()


@torch.inference_mode()
def _load_with_peft(model: Path, checkpoint: Path, result: Result) -> None:
    adapted = _plain(model, checkpoint)
    ids = torch.tensor([[*range(2, 42)]])
    scores = adapted(input_ids=ids, use_cache=False).logits
    with adapted.disable_adapter():
        before = adapted(input_ids=ids, use_cache=False).logits
    assert scores.isfinite().all()
    assert not torch.equal(scores, before), "the adapter that PEFT loaded changes nothing"
    later = ids.clone()
    later[0, -1] = 100
    others = adapted(input_ids=later, use_cache=False).logits
    assert torch.allclose(scores[:, :-1], others[:, :-1], atol=1e-3), (
        "what the model says depends on tokens that come later"
    )
    result.batched = can_decode(adapted, 512)


def _score(suite: str, model: Path, cfg: dict[str, Any], place: Path) -> None:
    """Score in batches, and compare each row with a plain computation of that row alone."""
    checkpoint = folder(cfg, RUN) / f"peft_{ROUNDS}"
    output = place / suite
    words = (
        f"{checkpoint} --suite {suite} --sample --unofficial --quantization 0 --limit {ROWS} "
        f"--answer-tokens {ANSWER} --batch-size 4 --screen off --device cpu --output {output}"
    )
    arguments = cli.parser("finance").parse_args(words.split())
    arguments.words = words.split()
    evaluate.evaluate("finance", arguments)
    adapted = _plain(model, checkpoint)
    alone = _answer_alone if suite == "official" else _likelihoods_alone
    compared = 0
    for file in sorted((output / "rows").glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            alone(adapted, model, row["context"], row["checkpoint"])
            compared += 1
    assert compared == 3 * ROWS


def _tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


@torch.inference_mode()
def _answer_alone(adapted: Any, model: Path, context: str, found: dict[str, Any]) -> None:
    tokenizer = _tokenizer(model)
    ids = torch.tensor([tokenizer(context)["input_ids"]])
    new = adapted.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=ANSWER,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = tokenizer.decode(new[0], skip_special_tokens=True)
    (response,) = found["responses"]
    assert text.startswith(response), f"batched: {response[-40:]!r}, alone: {text[-40:]!r}"
    assert score.sentiment_answer(text) == found["answer"]


@torch.inference_mode()
def _likelihoods_alone(adapted: Any, model: Path, context: str, found: dict[str, Any]) -> None:
    tokenizer = _tokenizer(model)
    before = tokenizer(context)["input_ids"]
    values = []
    for choice, (likelihood, _) in zip(score.SENTIMENTS, found["responses"], strict=True):
        whole = tokenizer(f"{context} {choice}")["input_ids"]
        scores = adapted(input_ids=torch.tensor([whole]), use_cache=False).logits[0].float()
        told = scores.log_softmax(-1)[range(len(before) - 1, len(whole) - 1), whole[len(before) :]]
        values.append(told.sum().item())
        difference = abs(values[-1] - likelihood)
        assert difference < TOLERANCE, f"batched: {likelihood}, alone: {values[-1]}"
    best = max(range(len(values)), key=values.__getitem__)
    assert score.SENTIMENTS[best] == found["answer"]


def checked(architecture: str, cfg: dict[str, Any], app: Path, place: Path, answer: Path) -> None:
    """Write the result of ``check`` to ``answer``; for a process of its own."""
    log = (place / "log.txt").open("w")
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ |= {"FLWR_HOME": str(place / "flwr-home"), "XDG_CACHE_HOME": str(place / "cache")}
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    torch.set_num_threads(1)
    # lm-eval notes what is installed with every score, and runs pip and others to find out.
    collect_env.get_env_info = lambda *given: "not asked for"
    result = check(architecture, cfg, app, place)
    shutil.rmtree(cfg["model.name"], ignore_errors=True)
    answer.write_text(json.dumps(asdict(result)), "utf-8")
