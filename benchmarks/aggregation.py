"""How fast whole models are averaged: the sums against memory bandwidth, and against flwr's FedAvg.

    python -m benchmarks.aggregation [--mib 256] [--threads N] [--clients 2]
    python -m benchmarks.aggregation --end-to-end     and `flwr run` in both engines (minutes)
    python -m benchmarks.aggregation --adapters 5 100       adapters instead of whole models

Adding a client's 16-bit values to float32 sums moves 10 bytes for every 2 that came: the values are
read, and the sums are read and written. What memory allows is measured in the same run, on arrays
far larger than the caches, in two ways: by STREAM's triad, the usual one (McCalpin, 1995: a = b +
s * c, counted as 12 bytes for a float32), and by adding in place (a += s * c, 12 bytes as well),
which is faster, because memory that is only written is read first, and nobody counts that. FedAvg
is flwr's own function on the same arrays.

Adapters: 27 million values of each client (fewer where all would pass 3 GB), in 256 tensors. Their
replies are checked and averaged as in a run, in each transport: their bytes, read once, by the
time. The checks decode a reply, so the mean reads float32 whatever travelled. It is held against
memory in two ways, on the same arrays and as many threads, in the same round: reading all replies
(the largest value of each tensor), and copying all of them (a byte that is copied counts once,
though it is read and written). Both shares are given by wall time and by processor time, which
other work on the machine changes less; the best of all rounds counts on both sides. No two replies
share memory: the mean goes through one tensor of all replies at a time, so that replies that took
turns would come from a cache.

End to end: two synthetic models of Llama-3.2-1B's shapes in the Simulation Engine, and of
SmolLM2-135M's in the Deployment Engine over TLS with SuperNode keys, with profile.enabled. The
share of wall time in flwr's own transport is what is left when the phases of the app are taken off:
the server's sums and writes, and the clients' reading.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.flower import flower_env

ROOT = Path(__file__).parent.parent
MIB = 2**20
MOST_BYTES = 3 * 10**9  # of all replies of a round, in float32
READ, COPY = "reading decoded replies", "copying decoded replies"


def best(action: Callable[[], Any], times: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def bandwidths(count: int) -> tuple[float, float]:
    """Bytes of memory traffic a second (in GB) with ``count`` float32: triad, and in place."""
    import torch

    total, values, other = torch.zeros(count), torch.rand(count), torch.rand(count)
    triad = best(lambda: torch.add(values, other, alpha=3.0, out=total))
    in_place = best(lambda: total.add_(values, alpha=3.0))
    return 12 * count / triad / 1e9, 12 * count / in_place / 1e9


def sums(mib: int, dtype: str, clients: int) -> None:
    """Print the rate of the library's sums, of the memory, and of flwr's FedAvg, for one kind."""
    import numpy as np
    import torch

    from flowertune.aggregation.accumulate import ScratchBuffer, bytes_of_accumulator, mean_of
    from flowertune.aggregation.plan import Plan, Tensor

    size = {"F16": 2, "BF16": 2, "F32": 4}[dtype]
    plan = Plan([Tensor("w", (mib * MIB // size // 1024, 1024), dtype)], mib * MIB)
    (bucket,) = plan.buckets
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype]
    data = [
        torch.rand((p.row1 - p.row0) * 1024).to(kind).view(torch.uint8).numpy().tobytes()
        for p in bucket
    ]
    for exact in (False, True):
        scratch = ScratchBuffer()
        scratch.reserve(plan.nbytes // size * bytes_of_accumulator(dtype, exact) + 4096)
        means = [mean_of(piece, 100, exact, scratch) for piece in bucket]

        def add(means: Any = means) -> None:
            for mean, piece in zip(means, data, strict=True):
                mean.add(piece, 7)

        add()  # the first client's values start the sums
        rate = plan.nbytes / best(add) / 1e9
        if exact:
            print(f"  {dtype} exact: sums {rate:6.2f} GB/s")
            continue
        wide = bytes_of_accumulator(dtype, exact)
        print(f"  {dtype}: sums {rate:6.2f} GB/s")
        for name, traffic in zip(
            ("triad", "in place"), bandwidths(plan.nbytes // size), strict=True
        ):
            allowed = traffic * size / (size + 2 * wide)
            print(
                f"         memory, {name}: {traffic:.1f} GB/s of traffic, which allows "
                f"{allowed:.2f}; {rate / allowed:.0%} of it"
            )
        began = time.perf_counter()
        fill = [mean_of(piece, 7 * clients, exact, scratch) for piece in bucket]
        scratch.reserve(plan.nbytes // size * bytes_of_accumulator(dtype, exact) + 4096)
        for _ in range(clients):
            add(fill)
        for mean in fill:
            mean.result()
        ours = time.perf_counter() - began
        if dtype == "BF16":
            print("         flwr's FedAvg: NumPy has no bfloat16, and flwr refuses it")
            continue
        theirs = fedavg(data, np.float16 if dtype == "F16" else np.float32, clients)
        print(
            f"         mean of {clients} clients: {ours:.2f} s here, {theirs:.2f} s in flwr's "
            f"FedAvg, {theirs / ours:.1f} times as long"
        )


def fedavg(data: list[bytes], kind: Any, clients: int) -> float:
    """Seconds that flwr's own average takes for the same arrays."""
    import numpy as np
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.common import Array
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    arrays = {str(i): Array(np.frombuffer(piece, kind)) for i, piece in enumerate(data)}
    records = [
        RecordDict({"a": ArrayRecord(dict(arrays)), "m": MetricRecord({"num-examples": 7})})
        for _ in range(clients)
    ]
    began = time.perf_counter()
    aggregate_arrayrecords(records, "num-examples")
    return time.perf_counter() - began


def adapters(clients: int, transport: str, rounds: int) -> None:
    """Print the rate at which replies are checked and averaged, and of memory in the same run."""
    import numpy as np
    import torch
    from flwr.app import RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    from flowertune.aggregation.memory import Peak
    from flowertune.comms.codec import pack
    from tests.server_rounds import MadeUpClients, Server

    names = [f"base_model.model.layers.{n // 4}.{'qv'[n // 2 % 2]}.lora_{'AB'[n % 2]}.weight"
             for n in range(256)]  # fmt: skip
    # Every reply is another one, so that no cache holds it; many are smaller, to fit in memory.
    rank = min(26, 26 * MOST_BYTES // (clients * 27 * 10**6 * 4))
    shape = {"A": (rank, 4096), "B": (4096, rank)}
    adapter = {name: torch.randn(shape[name[-8]]) for name in names}
    different = [
        pack({name: tensor + 0.01 * k for name, tensor in adapter.items()}, transport)
        for k in range(clients)
    ]
    size = sum(len(different[k][name].data) for k in range(clients) for name in different[0])
    grid = MadeUpClients(clients, lambda partition, arrays: different[partition])
    buffer = {name: np.zeros(tensor.shape, np.float32) for name, tensor in adapter.items()}
    one = sum(values.nbytes for values in buffer.values())
    walls: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    beyond = []

    def timed(step: str, action: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        result = action()
        walls.setdefault(step, []).append(time.perf_counter() - began)
        processor.setdefault(step, []).append(time.process_time() - used)
        return result

    def on_all_threads(action: Callable[[Any, Any], Any], replies: list[Any]) -> None:
        records = [reply.content.array_records["arrays"] for reply in replies]

        with ThreadPoolExecutor() as pool:  # as the mean has it
            for record in records:  # so that no tensor of the buffer is in a cache when it is due
                list(pool.map(lambda n, of=record: action(of[n].numpy(), buffer[n]), buffer))

    with tempfile.TemporaryDirectory() as folder:
        changes = {"num-server-rounds": rounds + 1, "train.transport": transport}
        server = Server(Path(folder, "run"), grid, adapter, changes)
        contract, strategy = server.run.method.contract, server.strategy
        for server_round in range(1, rounds + 1):
            result = timed("sent, received and checked", lambda r=server_round: server.exchange(r))
            timed(READ, lambda of=result: on_all_threads(lambda a, b: a.max(), of.replies))
            timed(COPY, lambda of=result: on_all_threads(lambda a, b: np.copyto(b, a), of.replies))
            with Peak() as peak:
                arrays, metrics = timed(
                    "mean",
                    lambda r=server_round, of=result: strategy.aggregate_train(r, of.replies),
                )
            beyond.append(peak.anon - peak.before)
            timed("check of the mean", lambda of=(arrays, metrics): contract.check_result(*of))
            if transport == "float32" and clients <= 10:
                raw = [RecordDict({**reply.content, "arrays": different[place]})
                       for place, reply in enumerate(result.replies)]  # fmt: skip
                timed("flwr's FedAvg, of bytes", lambda of=raw: aggregate_arrayrecords(
                    of, "num-examples"))  # fmt: skip
            del result, arrays
    print(
        f"  {clients} adapters, {transport}: {size / 1e9:.2f} GB, "
        f"decoded {clients * one / 1e9:.2f} GB"
    )
    for step, seconds in walls.items():
        print(
            f"    {step}: {min(seconds):.3f} s, {size / min(seconds) / 1e9:.2f} GB/s of replies "
            f"({min(processor[step]):.3f} s of processors)"
        )
    shares = [
        f"{min(times[step]) / min(times['mean']):.0%}"
        for step in (COPY, READ)
        for times in (walls, processor)
    ]
    print(
        "    the mean, of decoded values: {} of a copy's rate ({} by processor time), {} of "
        "reading's ({})".format(*shares)
    )
    print(
        f"    memory beyond the replies, at most: {max(beyond) / MIB:,.0f} MiB; the mean itself "
        f"takes {one / MIB:,.0f}"
    )


def synthetic() -> None:
    """Print how fast a client makes synthetic weights."""
    from flowertune.aggregation.plan import Tensor
    from flowertune.aggregation.synthetic import synthetic_rows

    tensor = Tensor("w", (4096, 8192), "F16")
    rate = tensor.nbytes / best(lambda: synthetic_rows(1, 2, tensor, 0, 4096)) / 1e9
    print(f"  synthetic float16 weights: {rate:.2f} GB/s on one core")


def end_to_end() -> None:
    """Run both engines with flwr's own commands, and print what they reached."""
    with tempfile.TemporaryDirectory() as folder:
        app, home = Path(folder, "app"), Path(folder, "home")
        environment = {
            **flower_env(home, Path(sys.executable).parent),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }

        def typed(*words: str, cwd: Path = app) -> None:
            done = subprocess.run(
                words, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"$ {' '.join(words)}\n{done.stdout}")

        typed("copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", "--data",
              "challenge=flowertune-llm", str(ROOT), str(app), cwd=ROOT)  # fmt: skip
        settings = (
            "model.weights='synthetic' model.quantization=0 model.dtype='float16' "
            "train.training-arguments.max-steps=0 num-server-rounds=1 strategy.fraction-train=1.0 "
            "aggregation.sink='digest' profile.enabled=true "
        )

        def config(name: str, model: str) -> str:
            return f"{settings} model.name='{model}' results-dir='{folder}/{name}'"

        typed("flowertune", "connect", "--num-supernodes", "2", "--num-cpus", "1")
        try:
            typed("flwr", "run", ".", "--stream", "--run-config",
                  config("simulation", "meta-llama/Llama-3.2-1B"))  # fmt: skip
        finally:
            typed("flowertune", "connect", "--stop")
        report("Simulation Engine, 2 clients, Llama-3.2-1B", Path(folder, "simulation"))
        typed("flowertune", "federation", "--auth", "--", "flwr", "run", ".",
              "local-deployment", "--stream", "--run-config",
              config("deployment", "smollm2-135m-instruct"))  # fmt: skip
        report("Deployment Engine, 2 clients, SmolLM2-135M", Path(folder, "deployment"))


def report(name: str, results: Path) -> None:
    """Print what one run reached."""
    (run,) = (path for path in results.iterdir() if path.is_dir())
    line = json.loads((run / "rounds.jsonl").read_text("utf-8").splitlines()[0])
    seconds, found = line["seconds"], line["aggregation"]
    own = own_seconds(run)
    print(
        f"  {name}: {line['received-bytes'] / 1e9:.2f} GB in {seconds:.1f} s, "
        f"{found['gb-per-s']:.3f} GB/s; in the app's own phases {own:.1f} s, so "
        f"{1 - own / seconds:.1%} in flwr's transport; peak memory "
        f"{found['peak-rss-mib']:,.0f} MiB ({found['peak-anonymous-mib']:,.0f} anonymous)"
    )


def own_seconds(run: Path) -> float:
    """Seconds of the phases that are the app's own: the server's work, and clients' reading."""
    rows, columns = [], []
    for text in (run / "profile.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        columns = line.get("columns", columns)
        rows += [dict(zip(columns, row, strict=False)) for row in line.get("rows", [])]
    own = ("accumulate", "write", "serve", "plan")
    return sum(row["seconds"] for row in rows if row["phase"] in own)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aggregation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--mib", type=int, default=256, help="bytes of one client, in MiB (default 256)")
    add("--threads", type=int, default=1, help="threads (default 1, as in a run)")
    add("--clients", type=int, default=2, help="clients of the mean (default 2)")
    add("--end-to-end", action="store_true", help="run flwr in both engines as well")
    add("--adapters", type=int, nargs="+", metavar="CLIENTS", help="average so many adapters")
    add("--transport", nargs="+", default=["float32", "float16", "int8"],
        help="how adapters travel (default all three)")  # fmt: skip
    add("--rounds", type=int, default=5, help="of adapters, the best of which counts (default 5)")
    arguments = parser.parse_args()
    from flowertune.deploy.pages import NAME, with_large_pages

    if NAME not in os.environ:
        # Memory as the processes of a run have it, which is decided when a process starts.
        again = [sys.executable, "-m", "benchmarks.aggregation", *sys.argv[1:]]
        os.execve(sys.executable, again, with_large_pages(os.environ))
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.adapters:
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        for clients in arguments.adapters:
            for transport in arguments.transport:
                adapters(clients, transport, arguments.rounds)
        return
    print(f"sums of {arguments.mib} MiB a client, {arguments.threads} thread(s)")
    for dtype in ("F16", "BF16", "F32"):
        sums(arguments.mib, dtype, arguments.clients)
    synthetic()
    if arguments.end_to_end:
        print("end to end")
        end_to_end()


if __name__ == "__main__":
    main()
