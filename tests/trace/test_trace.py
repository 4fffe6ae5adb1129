"""What a trace of the training loop says of a 7B model's layers: memory, types, FLOPs.

Here on fake tensors of the CPU, with a few layers; on those of a GPU, whole models, under --all.
"""

from functools import cache

import pytest
import torch

from tests.trace.cases import Case, Result, results

BITS = (4, 8, 0)


@cache
def traced() -> dict[Case, Result]:
    # Both lengths with and without checkpointing are traced on whole models (test_cuda.py).
    cases = [
        Case("Mistral-7B", bits, checkpointing, tokens, layers=2, answer=answer)
        for bits in BITS
        for checkpointing, tokens, answer in ((True, 128, 16), (False, 512, None))
    ]
    cases.append(Case("Qwen3-8B", 4, False, 512, layers=2, answer=16))
    return {result.case: result for result in results(cases, "cpu")}


def found(**wanted: object) -> list[Result]:
    return [
        result
        for case, result in traced().items()
        if all(getattr(case, name) == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_plans_memory_is_that_of_the_trace(bits: int, checkpointing: bool):
    for result in found(bits=bits, checkpointing=checkpointing):
        assert abs(result.error) < 0.1, (result.case, result.error)


def test_quantized_weights_are_never_held_whole():
    whole = found(bits=0)[0].loading
    assert all(result.loading < 0.85 * whole for result in found(bits=4, model="Mistral-7B"))


@pytest.mark.parametrize("bits", [4, 8])
def test_quantization_computes_nothing_more_in_float32(bits: int):
    pairs = zip(found(bits=bits, model="Mistral-7B"), found(bits=0), strict=True)
    for quantized, plain in pairs:
        assert quantized.moved(torch.float32) < 1.02 * plain.moved(torch.float32)


@pytest.mark.parametrize("bits", BITS)
def test_the_logits_have_sixteen_bits_until_the_loss(bits: int):
    for result in found(bits=bits):
        names = [name for (name, *_), _ in result.traced.training.operations.items()]
        assert "aten._log_softmax.default" in names
        products = {
            types
            for name, _, types in result.traced.training.operations
            if name in ("aten.mm.default", "aten.addmm.default", "aten.bmm.default")
        }
        # float32 is the adapter's, on both sides; nothing else is computed in it.
        assert ("bfloat16", "bfloat16") in products
        assert {types for types in products if len({*types}) > 1} == set()


@pytest.mark.parametrize("bits", BITS)
def test_the_flops_are_those_of_the_weights(bits: int):
    # The first layer needs no gradient of its input; attention and the adapter take some more.
    assert all(0.85 < result.flops < 1.15 for result in found(bits=bits, model="Mistral-7B"))
