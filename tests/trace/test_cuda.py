"""Whole models on fake tensors of a GPU, in an environment with a CUDA build of PyTorch."""

import json
import os
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.trace.environment import ROOT, NoEnvironment, python

pytestmark = pytest.mark.full


@cache
def _lines() -> list[dict[str, Any]]:
    try:
        found = python()
    except NoEnvironment as error:
        pytest.skip(f"no CUDA build of PyTorch can be had: {error}")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    words = [str(found), "-m", "tests.trace", "--json"]
    done = subprocess.run(
        words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def rounds() -> list[dict[str, Any]]:
    return [line for line in _lines() if "training" in line]


def answers() -> list[dict[str, Any]]:
    return [line for line in _lines() if "decoding" in line]


def test_the_plans_memory_is_that_of_the_trace():
    assert len(rounds()) == 16
    off = {str(line): line["planned"] / line["peak"] - 1 for line in rounds()}
    assert {line: error for line, error in off.items() if abs(error) >= 0.1} == {}


def test_loading_takes_little_more_than_the_weights():
    # One weight of 16 bits, the scales of all, and the adapter's two copies.
    assert all(line["loading"] < line["weights"] + 0.8 for line in rounds())
    assert all(line["loading"] < 1.1 * line["weights"] for line in answers())


def test_nothing_is_computed_on_the_cpu():
    # The adapter goes there to be sent; tokens, masks and their positions come from there.
    assert all(line["elsewhere"] < line["adapter"] + 0.05 for line in rounds())
    assert all(line["elsewhere"] < 0.05 for line in answers())


def test_quantization_computes_nothing_more_in_float32():
    whole = {key(line): line["float32"] for line in rounds() if line["bits"] == 0}
    for line in rounds():
        if key(line) in whole:
            assert line["float32"] < 1.02 * whole[key(line)], line


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["training"], line["checkpointing"], line["tokens"]


def test_the_flops_are_those_of_the_weights():
    assert all(0.85 < line["flops"] < 1.15 for line in rounds())


def test_scoring_computes_in_the_type_that_it_is_asked_for():
    for line in answers():
        others = {"float32", "bfloat16", "float16"} - {line["dtype"]}
        # 8-bit layers take 16 bits by themselves; positions are float32 everywhere.
        allowed = {"float32"} | ({"float16"} if line["bits"] == 8 else set())
        assert {*line["types"]} & others <= allowed, line


def test_scoring_holds_keys_and_values_once():
    # With room for some tokens more.
    for line in answers():
        assert line["peak"] < line["weights"] + 1.2 * line["cache"] + line["layer"], line
