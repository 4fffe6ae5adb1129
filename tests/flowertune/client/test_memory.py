"""flowertune.client.memory: a client that runs out of memory, and what its worker does next."""

import gc
import weakref

import pytest
import torch

from flowertune.base import cache
from flowertune.base.errors import UserError
from flowertune.client import memory
from tests.apps import two_small_rounds
from tests.local_grid import LocalGrid, adapter_sha, folder, run_app
from tests.small_runs import NODES
from tests.tiny import save_tiny_llama

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB of "
    "which 1.21 GiB is free. Including non-PyTorch memory, this process has 13.35 GiB memory in "
    "use. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    for part in ("run", "node", "task"):
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
    cache.clear_cache()
    return two_small_rounds(tmp_path, save_tiny_llama(tmp_path / "model"))


@pytest.fixture
def failing(monkeypatch):
    """Let the steps of one round fail in the middle, with tensors alive; returns what was alive."""
    held = []

    def make(error, at=1):
        from flowertune.client.task import ClientTask

        steps = ClientTask.steps

        def few(task, tokenizer, device):
            if task.round != at:
                return steps(task, tokenizer, device)
            activation = torch.ones(8)
            held.append(weakref.ref(activation))
            raise type(error)(*error.args)  # anew: an error holds on to where it was raised

        monkeypatch.setattr(ClientTask, "steps", few)
        return held

    return make


def reasons(cfg):
    """What the server writes down of the first round."""
    with pytest.raises(UserError) as caught:
        run_app(cfg, NODES)
    return str(caught.value)


def test_the_sentence_names_what_takes_less_with_the_values_of_the_run(cfg, failing):
    failing(torch.OutOfMemoryError(CUDA))
    assert (
        "this client ran out of GPU memory (2.00 GiB more were asked for of a GPU of 14.56 GiB, of "
        "which 1.21 GiB were free): lower train.training-arguments.per-device-train-batch-size "
        "(it is 2; gradient-accumulation-steps, 1, makes up for it) or train.seq-length (512); set "
        "model.gradient-checkpointing to true (it is false); set model.quantization to 4 (it is "
        "0); let fewer clients share a GPU (flowertune connect --num-gpus 1) (in "
        "[tool.flwr.app.config] of pyproject.toml or with --run-config)."
    ) in reasons(cfg)


def test_on_a_cpu_it_is_the_machines_memory(cfg, failing):
    failing(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b."))
    said = reasons({**cfg, "model.gradient-checkpointing": True})
    assert "this client ran out of memory (DefaultCPUAllocator: " in said
    assert "--num-cpus" in said and "--num-gpus" not in said
    assert "gradient-checkpointing" not in said


def test_a_model_that_does_not_fit_is_told_from_a_step(cfg, monkeypatch):
    from transformers import AutoModelForCausalLM

    def full(*arguments, **options):
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    said = reasons(cfg)
    assert "ran out of GPU memory while its model was loaded (2.00 GiB more" in said
    assert "set model.quantization to 4 (it is 0)" in said
    assert "batch-size" not in said


def test_other_errors_pass_as_they_are(cfg, failing):
    failing(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert "illegal memory access" in reasons(cfg)


def test_the_memory_is_given_back_and_the_worker_goes_on(cfg, failing, monkeypatch):
    freed = []
    monkeypatch.setattr(memory, "free_memory", lambda: freed.append(len(cache._cache)))
    held = failing(torch.OutOfMemoryError(CUDA), at=2)
    with pytest.raises(UserError, match="ran out of GPU memory"):
        run_app(cfg, NODES)
    gc.collect()
    assert held and all(ref() is None for ref in held)
    assert freed and set(freed) == {0}


def test_the_next_client_of_the_worker_trains_as_if_nothing_had_been(cfg, monkeypatch, tmp_path):
    from flowertune.client.task import ClientTask

    whole = {**cfg, "results-dir": str(tmp_path / "whole")}
    run_app(whole, NODES)
    steps, failed = ClientTask.steps, []

    def once(task, tokenizer, device):
        if not failed:
            failed.append(task.partition)
            raise torch.OutOfMemoryError(CUDA)
        return steps(task, tokenizer, device)

    monkeypatch.setattr(ClientTask, "steps", once)
    handle = LocalGrid.handle

    def again(grid, message, partition):
        reply = handle(grid, message, partition)
        return handle(grid, message, partition) if reply.has_error() else reply

    monkeypatch.setattr(LocalGrid, "handle", again)
    run_app(cfg, NODES)
    assert failed
    assert adapter_sha(folder(whole), 2) == adapter_sha(folder(cfg), 2)
