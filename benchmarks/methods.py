"""How fast each method's server half aggregates a 7B adapter, against the memory's bandwidth.

    python -m benchmarks.methods [--clients 5 100] [--methods fedavg scaffold] [--layers 32]

The adapter is that of a Llama of 7B with r=32 on all linear modules: 80 million values, 320 MB in
float32, in 448 tensors. Replies are decoded and checked by then, as in a run; each is the adapter
with a tenth of its size of noise. Four different ones take turns, far more than the caches hold:
32 GB of 100 clients are read, and 1.3 GB lie in memory. What clients do not send is not there
(``ffa-lora`` reads B alone), and what they send beside it is.

A method's time is that of ``aggregate_train``. It is held against reading all the same replies on
as many threads (the largest value of each tensor), in the same process; the best of the rounds
counts on both sides. Both are given by wall time and by processor time, which other work on the
machine changes less, and the share of reading's rate is by processor time. Memory is what the
process takes beyond what it had before, replies and adapter among it, in the round that took the
most; the result is in it, and what the method keeps from then on. A row of its own has the residual
and the drift of clients, which every run measures in every round.
"""

import argparse
import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowertune.aggregation.memory import Peak
from flowertune.comms.decoded import DecodedRecord, as_record
from flowertune.methods.measures import measured
from flowertune.methods.options import read_options
from flowertune.methods.registry import NAMES, client_class, load, options_in

MIB = 2**20
DIFFERENT, RANK, SEED = 4, 32, 0
WIDE, INNER = 4096, 11008
# Of the modules of a layer: the size of what comes out, and of what goes in.
MODULES = {
    **{f"self_attn.{name}_proj": (WIDE, WIDE) for name in "qkvo"},
    "mlp.gate_proj": (INNER, WIDE), "mlp.up_proj": (INNER, WIDE), "mlp.down_proj": (WIDE, INNER),
}  # fmt: skip
OPTIONS = {"dp-fedavg": "epsilon=1e9"}


def adapter_of(layers: int) -> dict[str, torch.Tensor]:
    """Return the adapter that a round starts from."""
    torch.manual_seed(SEED)
    found = {}
    for layer in range(layers):
        for module, (out, within) in MODULES.items():
            name = f"base_model.model.model.layers.{layer}.{module}.lora"
            found[f"{name}_A.weight"] = torch.randn(RANK, within) / within**0.5
            found[f"{name}_B.weight"] = torch.randn(out, RANK) / out**0.5
    return found


def reply_to(message: Message, partition: int, arrays: Any, beside: dict[str, Any]) -> Message:
    """Return a client's reply, decoded as the library hands it to a strategy."""
    metrics = {"num-examples": 100 + partition, "train-loss": 1.0, "tokens": 1}
    content = {
        **beside,
        "arrays": arrays,
        "metrics": MetricRecord(metrics),
        "client": ConfigRecord({"partition-id": partition}),
    }
    return Message(RecordDict(content), reply_to=message)


def replies(
    sent: Sequence[Message], each: Sequence[dict[str, torch.Tensor]], returns: Sequence[str]
) -> Iterator[Message]:
    """Yield the replies of a round: what each client was asked for."""
    known: dict[tuple[int, int], Any] = {}  # the same arrays are decoded once
    for partition, message in enumerate(sent):
        asked = message.content.array_records["arrays"]
        key = partition % len(each), id(asked)
        if key not in known:
            wanted = {n: each[key[0]][n] for n in asked}
            known[key] = DecodedRecord(wanted), {n: DecodedRecord(wanted) for n in returns}
        yield reply_to(message, partition, *known[key])


Seconds = tuple[float, float]  # by processor, by wall


def timed(action: Callable[[], Any]) -> Seconds:
    """Return the seconds of a call."""
    began, used = time.perf_counter(), time.process_time()
    action()
    return time.process_time() - used, time.perf_counter() - began


def _trim() -> None:
    """Give freed memory back, so that what comes next does not find it."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def read_all(came: Sequence[Message]) -> None:
    """Read all replies once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for reply in came:
            for record in reply.content.array_records.values():
                list(pool.map(lambda array: array.numpy().max(), record.values()))


def measure(
    name: str, clients: int, adapter: dict[str, torch.Tensor], each: Any, rounds: int
) -> dict[str, Any]:
    """Aggregate a few rounds with one method; the best counts."""
    options, wrong = read_options(OPTIONS.get(name, ""), options_in(load(name)), name)
    assert not wrong
    server = load(name).Server({p: p + 1 for p in range(clients)}, clients, SEED, options)
    arrays: ArrayRecord = as_record({n: t.numpy() for n, t in adapter.items()})
    found, reads, beyond, size = [], [], [], 0
    for server_round in range(1, rounds + 1):
        config = ConfigRecord({"learning-rate": 1e-4})
        sent = list(server.configure_train(server_round, arrays, config, None))
        came = list(replies(sent, each, client_class(name).returns))
        size = sum(
            array.numpy().nbytes
            for reply in came for record in reply.content.array_records.values()
            for array in record.values()
        )  # fmt: skip
        reads.append(timed(lambda of=came: read_all(of)))
        _trim()
        with Peak() as peak:
            found.append(timed(lambda n=server_round, of=came: server.aggregate_train(n, of)))
        beyond.append(peak.anon - peak.before)
        del came, sent
    return {
        "name": name,
        "seconds": min(found),
        "reading": min(reads),
        "bytes": size,
        "beyond": max(beyond),
    }


def measures(clients: int, adapter: dict[str, torch.Tensor], each: Any) -> dict[str, Any]:
    """Measure the residual and the drift of a round of FedAvg."""
    before = {n: t.numpy() for n, t in adapter.items()}
    came = [{n: t.numpy() for n, t in each[p % len(each)].items()} for p in range(clients)]
    sent, weights = [before] * clients, [100 + p for p in range(clients)]
    _trim()
    with Peak() as peak:
        seconds = timed(lambda: measured(before, sent, came, weights, came[0]))
    message = Message(RecordDict(), 1, "train")
    replied = [DecodedRecord(each[p % len(each)]) for p in range(clients)]
    all_of_them = [reply_to(message, 0, arrays, {}) for arrays in replied]
    read = timed(lambda: read_all(all_of_them))
    size = clients * sum(values.nbytes for values in before.values())
    return {"name": "(residual, drift)", "seconds": seconds, "reading": read, "bytes": size,
            "beyond": peak.anon - peak.before}  # fmt: skip


def line(of: dict[str, Any]) -> str:
    """Return a row of the table."""
    (used, wall), (read_used, read_wall), size = of["seconds"], of["reading"], of["bytes"] / 1e9
    return (
        f"| {of['name']} | {size:.1f} | {wall:.1f} | {size / wall:.2f} of {size / read_wall:.1f} | "
        f"{used:.1f} | {read_used / used:.0%} | {of['beyond'] / MIB:,.0f} |"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--clients", type=int, nargs="+", default=[5, 100], help="of a round (default 5 and 100)")
    add("--methods", nargs="+", default=list(NAMES), choices=NAMES, help="(default: all)")
    add("--layers", type=int, default=32, help="of the model (default 32)")
    add("--rounds", type=int, default=2, help="of each, the best of which counts (default 2)")
    given = parser.parse_args()
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    adapter = adapter_of(given.layers)
    rng = torch.Generator().manual_seed(SEED + 1)
    noisy = lambda t: t + 0.1 * t.std() * torch.randn(t.shape, generator=rng)  # noqa: E731
    each = [{n: noisy(t) for n, t in adapter.items()} for _ in range(DIFFERENT)]
    values = sum(t.numel() for t in adapter.values())
    print(
        f"{values / 1e6:.1f} M values in {len(adapter)} tensors; {os.cpu_count()} CPU cores, "
        f"{platform.machine()}, load {os.getloadavg()[0]:.1f}"
    )
    for clients in given.clients:
        print(f"\n{clients} clients\n\n| method | GB of replies | s | GB/s, of reading's | "
              "processor s | of reading's rate | MiB beyond them |\n"
              "| :-- | --: | --: | --: | --: | --: | --: |", flush=True)  # fmt: skip
        for name in given.methods:
            print(line(measure(name, clients, adapter, each, given.rounds)), flush=True)
        print(line(measures(clients, adapter, each)), flush=True)


if __name__ == "__main__":
    main()
