"""The chain of a run, held against everything else in its folder."""

import hashlib
import json
from pathlib import Path

import pytest

from flowertune.base.hashing import file_sha256
from flowertune.run.chain import FIRST, problem, state_sha256
from flowertune.run.state import load_state, read_body, states

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
    # The newest round in each beginning of the ledger, by its digest; a run that goes on asks who
    # is there, in round 0 once more.
    seen, newest, digests_of_ledger = hashlib.sha256(), 0, {}
    for entry in ledger:
        seen.update(entry.encode())
        newest = max(newest, json.loads(entry)["round"])
        digests_of_ledger[seen.hexdigest()] = newest
    manifest, texts = None, (run / "chain.jsonl").read_text().splitlines()
    for record, text in zip(records, texts, strict=True):
        n = record["round"]
        assert n == digests_of_ledger[record["ledger-sha256"]]
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
