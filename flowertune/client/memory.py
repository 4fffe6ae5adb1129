"""A client that runs out of memory: one sentence, and a worker that goes on."""

import re
import sys
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from flowertune.base.out_of_memory import free_memory, out_of_memory
from flowertune.base.text import one_line
from flowertune.config.settings import WHERE, Settings, typed

_ON_CPU = re.compile("DefaultCPUAllocator|unable to allocate|not enough memory", re.IGNORECASE)
_ASKED = re.compile(r"Tried to allocate ([\d.]+ \w+)")
_CAPACITY = re.compile(r"total capacity of ([\d.]+ \w+)")
_FREE = re.compile(r"of which ([\d.]+ \w+) is free")


def with_memory_errors(message: Message, context: Context, answer: ClientAppCallable) -> Message:
    """Answer a message; where memory is too small for training, give it back and say what to do.

    A Flower mod: ``ClientApp(mods=[with_memory_errors])``.

    Raises
    ------
    UserError
        If memory ran out; the next client of this worker loads its model anew.
    """
    if message.metadata.message_type.partition(".")[0] != "train":
        return answer(message, context)
    try:
        return answer(message, context)
    except Exception as error:
        sentence = _explained(error, context)
        if sentence is None:
            raise
    # Outside of the handler: the error refers to all that the step held.
    clear_cache()
    free_memory()
    raise UserError(sentence)


def _explained(error: Exception, context: Context) -> str | None:
    cause = out_of_memory(error)
    if cause is None:
        return None
    # The loader puts a sentence of its own around what stops it.
    return _sentence(typed(context.run_config, Path()), cause, loading=cause is not error)


def _sentence(cfg: Settings, error: BaseException, loading: bool) -> str:
    """Return what ran out, and which settings take less."""
    arguments = cfg.train.training_arguments
    on_cpu = isinstance(error, (MemoryError, OSError)) or _ON_CPU.search(str(error)) is not None
    cures = []
    if not loading:
        cures += [
            "lower train.training-arguments.per-device-train-batch-size (it is "
            f"{arguments.per_device_train_batch_size}; gradient-accumulation-steps, "
            f"{arguments.gradient_accumulation_steps}, makes up for it) or train.seq-length "
            f"({cfg.train.seq_length})"
        ]
        if cfg.model.gradient_checkpointing is not True:
            now = cfg.model.gradient_checkpointing
            cures += [
                "set model.gradient-checkpointing to true (it is "
                f"{str(now).lower() if isinstance(now, bool) else now})"
            ]
    if cfg.model.quantization != 4:
        cures += [f"set model.quantization to 4 (it is {cfg.model.quantization})"]
    cures += [_sharing(on_cpu)]
    said = _said(error)
    when = " while its model was loaded" if loading else ""
    return (
        f"this client ran out of {'memory' if on_cpu else 'GPU memory'}{when} ({said}): "
        f"{'; '.join(cures)} ({WHERE})."
    )


def _said(error: BaseException) -> str:
    text = str(error)
    asked, capacity, free = (found.search(text) for found in (_ASKED, _CAPACITY, _FREE))
    if asked is None:
        return one_line(text, 120).rstrip(".") or type(error).__name__
    of = f" of a GPU of {capacity[1]}" if capacity else ""
    rest = f", of which {free[1]} were free" if free else ""
    return f"{asked[1]} more were asked for{of}{rest}"


def _sharing(on_cpu: bool) -> str:
    name = "CPU" if on_cpu else "GPU"
    if on_cpu:
        cure = "train fewer clients at a time (flowertune connect with a larger --num-cpus"
    else:
        cure = "let fewer clients share a GPU (flowertune connect --num-gpus 1"
    share = _share(name)
    if share is None:
        return f"{cure})"
    return f"{cure}; a client has {share:g} {name}{'' if share == 1 else 's'})"


def _share(resource: str) -> float | None:
    """What Ray gives a client, where this is a worker of Ray's."""
    ray = sys.modules.get("ray")
    try:
        if ray is None or not ray.is_initialized():
            return None
        return ray.get_runtime_context().get_assigned_resources().get(resource)
    except Exception:  # a word less in an error's text, and no error of its own
        return None
