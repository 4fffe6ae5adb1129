"""The chain of a run: whole, in order, the same for equal runs, and closed by its manifests."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from flowertune.base.errors import UserError
from flowertune.base.hashing import file_sha256
from flowertune.run.chain import FIRST, Chain, problem, state_sha256
from flowertune.run.state import load_state, read_body, states
from tests.local_grid import folder, run_app

NODES = 6
# What two equal runs have in common; the rest depends on times, ids and paths.
SAME = ("adapter-sha256", "strategy-sha256")


def chain_of(run: Path) -> list[dict]:
    """The records of a run, each of which holds the line before."""
    texts = (run / "chain.jsonl").read_text().splitlines()
    before = FIRST
    for text in texts:
        assert json.loads(text)["previous"] == before
        before = hashlib.sha256(text.encode()).hexdigest()
    records = [json.loads(text) for text in texts]
    about = json.loads((run / "run.json").read_text())
    assert about["chain"] == {"round": records[-1]["round"], "sha256": before}
    return records


def fits_its_run(run: Path) -> list[dict]:
    """The records of a run, held against everything else in its folder."""
    records = chain_of(run)
    assert problem(records) is None
    lines = (run / "rounds.jsonl").read_text().splitlines()
    ledger = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    manifest, texts = None, (run / "chain.jsonl").read_text().splitlines()
    for record, text in zip(records, texts, strict=True):
        n = record["round"]
        done = [entry for entry in ledger if json.loads(entry)["round"] <= n]
        assert record["ledger-sha256"] == hashlib.sha256("".join(done).encode()).hexdigest()
        line = lines[n - 1] if n else None
        assert record["line-sha256"] == (line and hashlib.sha256(line.encode()).hexdigest())
        assert record["previous-manifest"] == manifest
        state = states(run)[n]
        assert record["adapter-sha256"] == file_sha256(state / "adapter.safetensors")
        assert record["strategy-sha256"] == file_sha256(state / "strategy.safetensors")
        assert record["state-sha256"] == state_sha256(read_body(state))
        saved = run / f"peft_{n}" / "manifest.json"
        body = json.loads(saved.read_text()) if saved.is_file() else {}
        manifest = body.get("manifest-sha256")
        if body:
            digest = hashlib.sha256(text.encode()).hexdigest()
            assert body["chain"] == {"round": n, "sha256": digest}
        assert load_state(state).body["chain"]["manifest"] == manifest
        if not n:
            continue
        told = json.loads(lines[n - 1])
        assert list(map(int, record["replies"])) == told["partitions"]
        came = {
            str(e["partition"]): e["bytes"]
            for e in map(json.loads, ledger)
            if e["round"] == n and e["direction"] == "received"
        }
        replies = record["replies"].items()
        assert {p: reply["bytes"] for p, reply in replies} == {p: came[p] for p, _ in replies}
        assert sum(reply["tokens"] for _, reply in replies) == told["tokens"]
        examples = sum(reply["examples"] for _, reply in replies)
        loss = sum(reply["examples"] * reply["train-loss"] for _, reply in replies) / examples
        assert loss == pytest.approx(told["train-loss"], rel=1e-12)
    return records


def in_common(records: list[dict]) -> list[dict]:
    """What is the same in equal runs."""
    of_replies = ("sha256", "examples", "tokens", "train-loss")
    return [
        {key: record[key] for key in ("round", *SAME)}
        | {p: [reply[key] for key in of_replies] for p, reply in record["replies"].items()}
        for record in records
    ]


def lost_in(server_round: int):
    """Clients whose replies are lost in a round."""
    return lambda n, partition, reply: None if n == server_round else reply


@pytest.mark.parametrize(
    "changes",
    [{}, {"train.transport": "int8"}, {"aggregation.mode": "layerwise"}],
    ids=["whole replies", "int8", "layerwise"],
)
def test_a_resumed_run_has_the_chain_of_one_that_was_not_interrupted(cfg, changes):
    cfg |= {**changes, "num-server-rounds": 3}
    run_app(cfg, NODES, 1)
    whole = (
        fits_its_run(folder(cfg, 1))
        if "aggregation.mode" not in changes
        else chain_of(folder(cfg, 1))
    )
    with pytest.raises(UserError, match="of round 3 failed"):
        run_app(cfg, NODES, 2, lost_in(3))
    run = folder(cfg, 2)
    stopped = [record["round"] for record in chain_of(run)]
    assert stopped == [0, 1, 2]
    # As a kill leaves it: a record behind the last one that a state counts, and half of another.
    with (run / "chain.jsonl").open("a") as file:
        file.write(json.dumps({"round": 3}) + '\n{"round"')
    run_app({**cfg, "resume-from": str(run)}, NODES, 9)
    assert in_common(chain_of(run)) == in_common(whole)
    assert all(reply["sha256"] for record in whole for reply in record["replies"].values())
