"""Trace whole models on a GPU that need not be there: ``python -m tests.trace``.

It takes a CUDA build of PyTorch (``tests.trace.environment`` makes one) and prints a table;
``--json`` prints one object a line instead.
"""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowertune.models.memory import GB
from tests.trace.card import has_cuda_build
from tests.trace.cases import MODELS, Case, Result, results
from tests.trace.checkpoints import write
from tests.trace.workload import decoding

CASES = [
    Case(model, bits, checkpointing, tokens)
    for model, bits, checkpointing, tokens in product(MODELS, (4, 8, 0), (True, False), (128, 512))
    if model == "Mistral-7B" or bits == 4
]
# Rows, and the tokens of their prompts and answers.
ROWS, PROMPT, NEW = 32, 400, 8


def main() -> None:
    """Print the traces."""
    if not has_cuda_build():
        sys.exit("this PyTorch has no CUDA: it makes no fake tensors on a GPU")
    as_json = "--json" in sys.argv
    if not as_json:
        print("| training | trace, GB | plan, GB | off by | loading, GB | TFLOP a step |")
        print("| :-- | --: | --: | --: | --: | --: |")
    for result in results(CASES, "cuda"):
        values = of_training(result)
        print(json.dumps(values) if as_json else _line(values), flush=True)
    if not as_json:
        print("\n| answers | trace, GB | weights, GB | keys and values, GB | a layer, GB |")
        print("| :-- | --: | --: | --: | --: |")
    for values in of_decoding():
        print(json.dumps(values) if as_json else _answers(values), flush=True)


def of_training(result: Result) -> dict[str, Any]:
    """What is said of a traced round."""
    case, training = result.case, result.traced.training
    return {
        "training": case.model,
        "bits": case.bits,
        "checkpointing": case.checkpointing,
        "tokens": case.tokens,
        "peak": result.peak,
        "planned": result.planned.tensors,
        "loading": result.loading,
        "weights": result.planned.weights,
        "adapter": result.planned.adapter,
        "tflop": training.flops / 2e12,
        "flops": result.flops,
        "elsewhere": training.elsewhere / GB,
        "float32": result.moved(torch.float32),
        "bfloat16": result.moved(torch.bfloat16),
    }


def of_decoding() -> Iterator[dict[str, Any]]:
    """What is said of the scorer's answers."""
    with TemporaryDirectory(prefix="trace-") as folder:
        config = MODELS["Mistral-7B"]
        model = write(Path(folder), config)
        heads = config["num_key_value_heads"] * config["hidden_size"]
        heads = heads // config["num_attention_heads"] * config["num_hidden_layers"]
        # What a layer makes of the prompts: its MLP's three tensors, and a few of its own width.
        wide = 3 * config["intermediate_size"] + 4 * config["hidden_size"]
        for bits, dtype in ((4, "float32"), (8, "float32"), (0, "bfloat16")):
            loading, trace = decoding(model, "cuda", ROWS, PROMPT, NEW, bits, dtype)
            value = getattr(torch, dtype).itemsize
            yield {
                "decoding": "Mistral-7B",
                "bits": bits,
                "dtype": dtype,
                "loading": loading.peak / GB,
                "weights": loading.live / GB,
                "peak": trace.peak / GB,
                "cache": 2 * heads * ROWS * (PROMPT + NEW) * value / GB,
                "layer": ROWS * PROMPT * wide * value / GB,
                "elsewhere": trace.elsewhere / GB,
                "types": sorted({d for _, where, types in trace.operations if where == "cuda"
                                 for d in types}),
            }  # fmt: skip


def _line(values: dict[str, Any]) -> str:
    bits = f"{values['bits']} bit" if values["bits"] else "bfloat16"
    how = f"{'with' if values['checkpointing'] else 'without'} checkpointing"
    return (
        f"| {values['training']}, {bits}, {how}, 16 rows of {values['tokens']} "
        f"| {values['peak']:.2f} | {values['planned']:.2f} "
        f"| {values['planned'] / values['peak'] - 1:+.1%} | {values['loading']:.2f} "
        f"| {values['tflop']:,.0f} |"
    )


def _answers(values: dict[str, Any]) -> str:
    bits = f"{values['bits']} bit, " if values["bits"] else ""
    return (
        f"| {values['decoding']}, {bits}{values['dtype']}, {ROWS} rows of {PROMPT} tokens "
        f"| {values['peak']:.2f} | {values['weights']:.2f} | {values['cache']:.2f} "
        f"| {values['layer']:.2f} |"
    )


if __name__ == "__main__":
    main()
