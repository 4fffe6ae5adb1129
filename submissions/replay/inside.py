"""One round of a submission, trained again; runs in the sandbox, as ``python -P -c <this text>``.

It imports the bundle's app, which is somebody else's program: this process does as the app wants.
So nothing that is to be found out may be readable here, and whoever starts it believes no digest
that comes out, only tensors.

Reads one JSON object from standard input:
    app          folder of the app
    given        folder of the run before the round, or null for a run from its beginning
    work         folder that can be written
    data         where the rows are
    settings     of the run, flat
    partitions   how many there are, and ``held``: those that a SuperNode held
    counted      those whose replies counted in the round
    round        the round to train
    run-id, state-key
    noise-key    the file of the key of secret noise, or null
    threads      of torch
Leaves in ``work``/out: record.json, adapter and strategy as the run saves them, first.safetensors
(the adapter that a run from its beginning starts from), reply_<partition>.safetensors (arrays as
they travel, as bytes), kept_<partition>_<kind>.safetensors
(what a client keeps after the round).
"""

import importlib
import json
import os
import shutil
import sys
import tomllib
from contextlib import suppress
from pathlib import Path


class Done(BaseException):
    """The round is over; no ``except Exception`` of an app holds it up."""


def main():
    job = json.loads(sys.stdin.buffer.read())
    work = Path(job["work"])
    out = work / "out"
    out.mkdir()
    import torch

    torch.set_num_threads(job["threads"])
    settings = {**job["settings"], "results-dir": str(work / "results"), "resume-from": "none"}
    run = work / "results" / str(job["run-id"])
    if job["given"] is not None:
        shutil.copytree(job["given"], run)
        before = job["round"] - 1
        settings["resume-from"] = str(run / "state" / f"round_{before}")
        for name in (p for p in Path(job["given"]).glob("clients/*/*") if p.is_file()):
            kept = Path(
                os.environ["FLWR_HOME"], "flowertune", "clients", job["state-key"].split()[0]
            )
            (kept / name.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(name, kept / name.parent.name / name.name)
        shutil.rmtree(run / "clients", ignore_errors=True)
    from flwr.app import Context, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    use_rows(job["data"])
    keep_key(job["state-key"])
    if job["noise-key"] is not None:
        secret = work / "noise-key"
        secret.touch(0o600)
        secret.write_text(job["noise-key"])
        os.environ["FLOWERTUNE_NOISE_KEY"] = str(secret)
    server, client = load(Path(job["app"]))
    grid = grid_of(job, settings, client, out)
    context = Context(
        run_id=int(job["run-id"]), node_id=0, node_config={}, state=RecordDict(),
        run_config=settings,
    )  # fmt: skip
    with suppress(Done):
        server(grid=grid, context=context)
    collect(run, job, grid, out)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that an app leaves would hold up the end.
    os._exit(0)


def use_rows(place):
    """Let the library take the rows from here, whatever the settings call them."""
    from flowertune.data import rows

    rows.is_local = lambda name: True
    rows.local_path = lambda name, app_dir: Path(place)


def keep_key(key):
    """Let clients keep files, and messages name them, as they did in the run."""
    from flowertune.run import base

    base.branched = lambda new, before, server_round: key


def load(app):
    project = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    components = project["tool"]["flwr"]["app"]["components"]
    sys.path.insert(0, str(app))
    found = []
    for kind in ("serverapp", "clientapp"):
        module, _, name = components[kind].partition(":")
        found.append(getattr(importlib.import_module(module), name))
    return found


def grid_of(job, settings, client, out):
    """Return a grid of this process; SuperNode 1000 + p holds partition p."""
    from flwr.app import Context, Error, Message, RecordDict

    class Grid:
        run = None

        def __init__(self):
            self.count, self.waiting = 0, {}
            self.asked, self.replies, self.sent, self.received = [], {}, {}, {}

        def get_node_ids(self):
            return [1000 + partition for partition in job["held"]]

        def send_and_receive(self, messages, timeout=None):
            messages = list(messages)
            for message in messages:
                self.number(message)
            return [self.handle(message) for message in messages]

        def push_messages(self, messages):
            ids = []
            for message in messages:
                self.number(message)
                ids.append(message.metadata.message_id)
                self.waiting[ids[-1]] = message
            return ids

        def pull_messages(self, message_ids):
            known = [self.waiting.pop(i) for i in message_ids if i in self.waiting]
            return [self.handle(message) for message in known]

        def number(self, message):
            self.count += 1
            message.metadata.__dict__["_message_id"] = f"message-{self.count}"

        def handle(self, message):
            partition = message.metadata.dst_node_id - 1000
            trains = message.metadata.message_type.partition(".")[0] == "train"
            if trains:
                config = message.content.config_records["config"]
                if int(config["server-round"]) > job["round"]:
                    raise Done
                if partition not in self.asked:
                    self.asked.append(partition)
                if partition not in job["counted"]:
                    return Message(Error(0, "its reply did not count in the run"), reply_to=message)
            context = Context(
                run_id=int(job["run-id"]),
                node_id=1000 + partition,
                node_config={"partition-id": partition, "num-partitions": job["partitions"]},
                state=RecordDict(),
                run_config=settings,
            )
            try:
                reply = client(message, context)
            except Exception as error:
                return Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)
            if trains:
                self.keep(partition, reply)
            return reply

        def keep(self, partition, reply):
            import numpy
            from safetensors.numpy import save_file

            arrays, kinds = {}, {}
            for record, content in reply.content.array_records.items():
                for name, array in content.items():
                    key = f"{record}/{name}"
                    arrays[key] = numpy.frombuffer(array.data, numpy.uint8)
                    kinds[key] = [record, name, array.dtype, list(array.shape), array.stype]
            save_file(arrays, out / f"reply_{partition}.safetensors")
            metrics = {k: v for r in reply.content.metric_records.values() for k, v in r.items()}
            about = {k: v for r in reply.content.config_records.values() for k, v in r.items()}
            rows = json.loads(about.get("rows", "null"))
            self.replies[partition] = {"arrays": kinds, "metrics": metrics, "rows": rows}

    return Grid()


def collect(run, job, grid, out):
    """Copy what the round has left into the folder that comes out."""
    state = run / "state"
    now = state / f"round_{job['round']}"
    for name in ("adapter.safetensors", "strategy.safetensors"):
        shutil.copy(now / name, out / name)
    if job["given"] is None:
        shutil.copy(state / "round_0" / "adapter.safetensors", out / "first.safetensors")
    home = Path(os.environ["FLWR_HOME"], "flowertune", "clients", job["state-key"].split()[0])
    for partition in grid.replies:
        for kind in ("state", "residual"):
            kept = home / f"partition_{partition}" / f"{kind}_{job['round']}.safetensors"
            if kept.is_file():
                shutil.copy(kept, out / f"kept_{partition}_{kind}.safetensors")
    line = json.loads((run / "rounds.jsonl").read_text().splitlines()[job["round"] - 1])
    entries = [json.loads(text) for text in (run / "ledger.jsonl").read_text().splitlines()]
    records = [json.loads(text) for text in (run / "chain.jsonl").read_text().splitlines()]
    came = records[-1]["replies"].items() if records[-1]["round"] == job["round"] else ()
    record = {
        "asked": sorted(grid.asked),
        "digests": {partition: reply["sha256"] for partition, reply in came},
        "replies": {str(p): reply for p, reply in sorted(grid.replies.items())},
        "line": line,
        "ledger": [entry for entry in entries if entry["round"] == job["round"]],
    }
    (out / "record.json").write_text(json.dumps(record))
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read


if __name__ == "__main__":
    main()
