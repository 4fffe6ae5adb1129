"""lm-eval's vLLM model for the standard suite: faster where it is installed, and not exact.

vLLM has no fp4 weights, and its sums are in another order: official scores are never its.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation import model as loading
from evaluation import score
from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.rules.checkpoint import CONFIG

NAME = "vllm"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as the largest rank


def check(arguments: argparse.Namespace) -> None:
    """Refuse what vLLM is not used for.

    Raises:
        UserError: names the option and what to do.
    """
    if arguments.backend != NAME:
        return
    if arguments.suite != "standard":
        raise UserError(
            "--backend vllm is for --suite standard: official scores are decided as the official "
            "scorer decides them, which vLLM does not"
        )
    if arguments.quantization != 0:
        raise UserError(
            f"--backend vllm runs unquantized models, and --quantization is "
            f"{arguments.quantization}: add --quantization 0"
        )
    if find_spec("vllm") is None:
        raise UserError(
            "--backend vllm needs the package vllm, which is not installed: install it "
            "(pip install vllm), or leave the option out"
        )


def check_adapter(folder: Path, named: str) -> None:
    """Refuse an adapter that vLLM cannot serve.

    Raises:
        UserError: names what is in the way.
    """
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    ranks = [config.get("r", 0), *(config.get("rank_pattern") or {}).values()]
    wrong = {
        "use_dora": config.get("use_dora"),
        "use_rslora": config.get("use_rslora"),
        "bias": config.get("bias", "none") != "none",
        "modules_to_save": config.get("modules_to_save"),
        "alpha_pattern": config.get("alpha_pattern"),
        "target_parameters": config.get("target_parameters"),
        f"a rank above {_RANKS[-1]}": max(ranks) > _RANKS[-1],
    }
    found = [name for name, there in wrong.items() if there]
    if config.get("peft_type") != "LORA" or found:
        what = ", ".join(found) or f"the type {config.get('peft_type')}"
        raise UserError(
            f"the adapter in {named} has {what}, which --backend vllm cannot serve: leave the "
            "option out"
        )


def load(choice: loading.ModelChoice, answer_tokens: int | None, seed: int) -> Any:
    """Return lm-eval's vLLM model with the adapter of a choice on it.

    Args:
        choice: what to load, unquantized.
        answer_tokens: the most new tokens of an answer; None leaves it to the task.
        seed: of vLLM.

    Raises:
        UserError: vLLM cannot load it.
    """
    options: dict[str, Any] = {}
    if choice.adapter is not None:
        config = json.loads((choice.adapter / CONFIG).read_text("utf-8"))
        most = max([config["r"], *(config.get("rank_pattern") or {}).values()])
        options["lora_local_path"] = str(choice.adapter)
        options["max_lora_rank"] = next(rank for rank in _RANKS if rank >= most)
    source = loading.source(choice)
    on_hub = source.folder is None
    try:
        made = _model_class()(
            pretrained=source.path,
            revision=choice.revision if on_hub else None,
            tokenizer_revision=choice.revision if on_hub else None,
            dtype=choice.dtype,
            trust_remote_code=choice.trust_remote_code,
            batch_size="auto",
            seed=seed,
            **options,
        )
    except Exception as error:  # whatever an engine of many devices and versions raises
        raise UserError(
            f"vLLM cannot load {choice.base} ({one_line(str(error), 200)}): leave out "
            "--backend vllm"
        ) from error
    made.answer_tokens = answer_tokens
    return made


@contextmanager
def as_model(model: Any, name: str) -> Iterator[None]:
    """Within this context a model answers as "base" or as "checkpoint"."""
    adapter = model.lora_request
    if name == "base":
        model.lora_request = None
    try:
        yield
    finally:
        model.lora_request = adapter


def _model_class() -> Any:
    # Late: it imports vLLM.
    from lm_eval.models.vllm_causallms import VLLM

    from evaluation.lm import row_limit

    base: Any = VLLM  # its registration decorator hides its type

    class VllmModel(base):
        """VLLM with the limits and the answers of this package's tasks."""

        replay_batch = None
        answer_tokens: int | None = None
        on_row: Any = None

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            until = [list(request.args[1]["until"]) for request in requests]
            plain = [_plain(request, self._limit(request)) for request in requests]
            answers = super().generate_until(plain, disable_tqdm=True)
            self._count(requests)
            return [score.cut_at(text, words) for text, words in zip(answers, until, strict=True)]

        def loglikelihood(
            self, requests: list[Any], disable_tqdm: bool = False
        ) -> list[tuple[float, bool]]:
            likelihoods = super().loglikelihood(requests, disable_tqdm=True)
            self._count(requests)
            return likelihoods

        def _count(self, requests: list[Any]) -> None:
            for _ in {(request.task_name, request.doc_id) for request in requests}:
                self.on_row()

        def _limit(self, request: Any) -> int:
            context, kwargs = request.args
            most = row_limit(len(self.tok_encode(context)), kwargs)
            return most if self.answer_tokens is None else min(most, self.answer_tokens)

    return VllmModel


def _plain(request: Any, limit: int) -> Any:
    """Return a request with nothing but what lm-eval knows."""
    kwargs = {"until": request.args[1]["until"], "do_sample": False, "max_gen_toks": limit}
    return replace(request, arguments=(request.args[0], kwargs))
