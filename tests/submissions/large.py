"""A bundle as large as a real one, made up, and valid under `large_rules`.

It has 200 rounds of 50 SuperNodes, the official numbers of rows, and an adapter of Mistral-7B's
shapes.
"""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

import challenges
from challenges import record
from evaluation import finance, report, sets
from evaluation.contamination.scores import with_scores
from evaluation.data import Documents
from evaluation.sets import Answer
from flowertune.base.hashing import json_sha256
from flowertune.data.order import sample_clients
from submissions import layout
from submissions.verify.messages import adapter_bytes
from tests.submissions.on_record import on_record
from tests.submissions.tampered import Edit
from tests.submissions.valid import valid_files

ROUNDS, NODES, CLIENTS = 200, 50, 5
LAYERS, WIDTH, VALUES, RANK = 32, 4096, 1024, 32
ROWS = {"fpb": 1212, "fiqa": 304, "tfns": 2388}
FINANCE = "finance"


@contextmanager
def large_rules(rows: dict[str, int] = ROWS, nodes: int = NODES) -> Iterator[None]:
    """Let the small rules have a real run's numbers, while the block lasts."""
    with on_record() as rules, pytest.MonkeyPatch.context() as patch:
        facts = json.loads(json.dumps(rules.facts))
        for entry in facts["evaluation"]["sets"]:
            entry["rows"] = rows[entry["set"]]
        text, read = challenges._text, record._read
        dumped = yaml.safe_dump(facts)
        patch.setattr(challenges, "_text", lambda n: dumped if n == "finance.yml" else text(n))

        def tables(name: str) -> dict[str, Any]:
            body = read(name)
            body.pop(record.EVALUATION_DATA, None)
            if FINANCE in body:
                body[FINANCE]["num-supernodes"] = nodes
            return body

        patch.setattr(record, "_read", tables)
        yield


def weights(scale: float = 0.01, layers: int = LAYERS, seed: int = 0) -> dict[str, np.ndarray]:
    """An adapter of Mistral-7B's shapes: rank 32 on queries and values, 54.5 MB."""
    numbers = np.random.default_rng(seed)
    tensors = {}
    for layer in range(layers):
        for module, out in (("q_proj", WIDTH), ("v_proj", VALUES)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for part, shape in (("A", (RANK, WIDTH)), ("B", (out, RANK))):
                values = numbers.standard_normal(shape, np.float32) * scale
                tensors[f"{name}.lora_{part}.weight"] = values.astype(np.float32)
    return tensors


def large_bundle(
    folder: Path,
    rounds: int = ROUNDS,
    rows: dict[str, int] = ROWS,
    layers: int = LAYERS,
    seed: int = 0,
    team: str = "Large",
    right: float = 0.8,
) -> Edit:
    """The files of such a bundle; to be verified inside `large_rules`."""
    edit = Edit(valid_files(), folder)
    tensors = weights(layers=layers, seed=seed)
    edit.files[layout.WEIGHTS] = save(tensors, metadata={"format": "pt"})
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    _run(edit, rounds, adapter_bytes(shapes, "float32") + 300)
    edit.own_state()
    edit.put(layout.SUBMISSION, "team", team)
    with large_rules(rows):
        _score(edit, rows, seed, right)
        edit.forge()
    return edit


def _run(edit: Edit, rounds: int, nbytes: int) -> None:
    settings = {
        "num-server-rounds": rounds,
        "static.num-supernodes": NODES,
        "strategy.fraction-train": CLIENTS / NODES,
        "train.save-every-round": rounds,
    }
    for name in (layout.MANIFEST, layout.RUN_INFO):
        edit.put(name, "settings", lambda known: {**known, **settings})
        edit.put(name, "rounds", rounds)
        edit.put(name, "supernodes", NODES)
        replies = {"asked": CLIENTS * rounds, "lost": 0, "first": []}
        edit.put(name, "replies", replies)
    edit.put(layout.RUN_INFO, "clients-per-round", CLIENTS)
    edit.put(layout.RUN_INFO, "data", None)
    about = edit.json(layout.RUN_INFO)["settings"]
    lowest, highest = about["train.learning-rate-min"], about["train.learning-rate-max"]
    start = datetime.fromisoformat(edit.json(layout.RUN_INFO)["started"])
    first, last = edit.lines(layout.LEDGER), edit.lines(layout.CHAIN)
    entries = [entry for entry in first if entry["round"] == 0]
    known = [e for e in entries if e["partition"] is None and e["direction"] == "received"]
    entries = [e for e in entries if e not in known] + known[:1] * NODES
    sent = sum(e["bytes"] for e in entries if e["direction"] == "sent")
    received = sum(e["bytes"] for e in entries if e["direction"] == "received")
    lines, records = [], [last[0]]
    for number in range(1, rounds + 1):
        chosen = sample_clients(range(NODES), CLIENTS, about["seed"], number)
        for way in ("received", "sent"):
            entries += [
                {"round": number, "partition": p, "direction": way, "bytes": nbytes} for p in chosen
            ]
        sent, received = sent + CLIENTS * nbytes, received + CLIENTS * nbytes
        losses = [2 / number + partition / 1000 for partition in chosen]
        digests = random.Random(number)
        replies = {
            str(p): {
                "sha256": f"{digests.getrandbits(256):064x}", "bytes": nbytes, "examples": 10,
                "tokens": 300, "train-loss": loss,
            }
            for p, loss in zip(chosen, losses, strict=True)
        }  # fmt: skip
        rate = lowest + 0.5 * (highest - lowest) * (1 + math.cos(math.pi * number / rounds))
        lines.append(
            {
                "round": number, "asked": CLIENTS, "clients": CLIENTS, "failed": 0, "lost": {},
                "partitions": chosen, "train-loss": sum(losses) / CLIENTS, "learning-rate": rate,
                "tokens": 300 * CLIENTS, "seconds": 30.0, "sent-bytes": sent,
                "bytes-down": CLIENTS * nbytes, "bytes-up": CLIENTS * nbytes,
                "residual": None, "residuals": {}, "drift": None,
                "received-bytes": received, "total-mib": round((sent + received) / 2**20, 3),
                "time": (start + timedelta(seconds=31 * number)).isoformat(),
            }
        )  # fmt: skip
        own = {"adapter-sha256": f"{digests.getrandbits(256):064x}"}
        records.append(
            {**last[-1], **own, "round": number, "replies": replies, "previous-manifest": None}
        )
    edit.write_lines(layout.LEDGER, entries)
    edit.write_lines(layout.ROUNDS, lines)
    edit.write_lines(layout.CHAIN, records)
    end = (start + timedelta(seconds=31 * rounds + 60)).isoformat()
    edit.put(layout.RUN_INFO, "ended", end)
    edit.put(layout.SCORES, "provenance/started", end.replace("+00:00", "Z"))
    row = edit.json(layout.MANIFEST)["rows"]["1"]
    split = {str(p): {**row, "sha256": f"{p + 1:064x}"} for p in range(NODES)}
    edit.put(layout.MANIFEST, "rows", split)
    edit.put(layout.MANIFEST, "partitions", NODES)
    edit.put(layout.MANIFEST, "round", rounds)
    edit.put(layout.MANIFEST, "static/num-supernodes", NODES)
    spent = {"sent-bytes": sent, "received-bytes": received,
             "total-mib": round((sent + received) / 2**20, 3)}  # fmt: skip
    edit.put(layout.MANIFEST, "communication", lambda known: {**known, **spent})
    edit.put(layout.SUBMISSION, "states/rounds", rounds)
    edit.put(layout.SUBMISSION, "hours", 30 * rounds / 3600)


def _score(edit: Edit, rows: dict[str, int], seed: int, right: float) -> None:
    """Answer every row, right or wrong, and let the scorer's own functions count."""
    results, chance = edit.json(layout.SCORES), random.Random(seed)
    facts = {one["set"]: one for one in challenges.load(FINANCE)["evaluation"]["sets"]}
    answers: dict[str, list[Answer]] = {}
    for item in finance.CHALLENGE.sets:
        answers[item.name] = [_answer(item, n, chance, right) for n in range(rows[item.name])]
        known = results["sets"][item.name]["data"]
        kept = ("status", "rows-sha256", "documents-sha256")
        origin = {key: value for key, value in known.items() if key not in kept}
        documents = [answer.document for answer in answers[item.name]]
        sums = json_sha256(documents), known["rows-sha256"]
        read = Documents(documents, origin, "official", *sums, [])
        results["sets"][item.name] = report.set_result(
            item, "official", facts[item.name], read, {"checkpoint": answers[item.name]}, True
        )
        prompts = json_sha256([document["context"] for document in documents])
        results["provenance"]["prompts-sha256"][item.name] = prompts
        _rows(edit, item.name, answers[item.name])
        _samples(edit, item.name, answers[item.name])
    results["pinned"]["evaluation-rows"] = dict.fromkeys(rows, "unverified")
    trained = {"rows": NODES * 10, "unique-rows": NODES * 10}
    results["contamination"]["training"] |= trained
    results["average"] = report.averages(results["sets"], ["checkpoint"])
    found = results["contamination"]
    for name, count in rows.items():
        found["sets"][name] |= {"rows": count, "clean": count}
    named = {item.name: item for item in finance.CHALLENGE.sets}
    results["contamination"] = with_scores(found, named, "official", {"checkpoint": answers})
    edit.write(layout.SCORES, results)
    edit.write(layout.CONTAMINATION, results["contamination"])
    edit.files[layout.TABLE] = report.markdown(results).encode()
    scores = {name: one["scores"]["checkpoint"]["score"] for name, one in results["sets"].items()}
    edit.put(layout.SUBMISSION, "scores", scores)
    average = results["average"]["scores"]["checkpoint"]["score"]
    edit.put(layout.SUBMISSION, "average", average)


def _answer(item: sets.EvalSet, number: int, chance: random.Random, right: float) -> Answer:
    target = chance.choice(("negative", "neutral", "positive"))
    said = target if chance.random() < right else chance.choice(("negative", "neutral", "positive"))
    words = " ".join(f"word{chance.randrange(10_000)}" for _ in range(40))
    context = f"Instruction: What is the sentiment?\nInput: {item.name} {number} {words}\nAnswer: "
    document = {"context": context, "target": target}
    response = [f"{context}{said}, since the text says so in more than one place."]
    return Answer(document, response, item.form("official").grade(document, response))


def _rows(edit: Edit, name: str, answers: list[Answer]) -> None:
    lines = [
        {
            "row": number, **one.document,
            "checkpoint": {
                "responses": one.responses, "answer": one.outcome.answer,
                "points": float(one.outcome.points), "parseable": one.outcome.parseable,
            },
        }
        for number, one in enumerate(answers)
    ]  # fmt: skip
    edit.write_lines(f"{layout.ROWS}/{name}.jsonl", lines)


def _samples(edit: Edit, name: str, answers: list[Answer]) -> None:
    (file,) = (n for n in edit.files if f"samples_flowertune_finance_{name}_" in n)
    known = edit.lines(file)[0]
    lines = [
        {**known, "doc_id": n, "doc": one.document, "target": one.document["target"],
         "resps": [one.responses], "filtered_resps": one.responses,
         "acc": float(one.outcome.points)}
        for n, one in enumerate(answers)
    ]  # fmt: skip
    edit.write_lines(file, lines)
    (results,) = (n for n in edit.files if n.startswith(f"{layout.LM_EVAL}/results_"))
    mean = float(sum(one.outcome.points for one in answers) / len(answers))
    edit.put(results, f"results/flowertune_finance_{name}_official/acc,none", mean)
