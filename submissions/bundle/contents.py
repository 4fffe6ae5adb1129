"""Every file of a bundle, by its name in it, made of a run, its score and its app."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.rules.checkpoint import CONFIG, WEIGHTS
from flowertune.rules.manifest import FILE as MANIFEST
from flowertune.run import chain
from flowertune.run.files import LEDGER, ROUNDS, RUN
from submissions import layout
from submissions.bundle.difference import difference
from submissions.bundle.packing import Content, sha256_of, sums
from submissions.bundle.sources import RESULTS, Sources
from submissions.formats import every_eval_ever
from submissions.formats.benchmarks import OWNER
from submissions.formats.card import card
from submissions.formats.croissant import croissant
from submissions.formats.hub_results import file_name, hub_results
from submissions.formats.provenance import provenance


@dataclass(frozen=True)
class Extras:
    """What else a participant may give, for the forms of other tools.

    Attributes
    ----------
    method
        Markdown for the model card's section on the method; None leaves it to be filled in.
    hub_id
        What the adapter is called on the Hugging Face hub, if it goes there.
    benchmarks
        The owner of the challenges' benchmark datasets on the hub.
    """

    method: str | None = None
    hub_id: str | None = None
    benchmarks: str = OWNER


def contents(
    sources: Sources, statement: Mapping[str, Any], extras: Extras | None = None
) -> dict[str, Content]:
    """Return every file of a bundle but its signatures.

    Parameters
    ----------
    sources
        What it is made of.
    statement
        What submission.json says: see ``statement.statement``.
    extras
        What else the participant gives.

    Raises
    ------
    OSError
        A file cannot be read.
    ValueError
        The rows of the score cannot be read.
    """
    extras = extras or Extras()
    run, checkpoint = sources.run.folder, sources.checkpoint
    files: dict[str, Content] = {
        layout.SUBMISSION: as_json(statement),
        layout.ADAPTER_CONFIG: checkpoint / CONFIG,
        layout.MANIFEST: checkpoint / MANIFEST,
        layout.RUN_INFO: run / RUN,
        layout.ROUNDS: run / ROUNDS,
        layout.LEDGER: run / LEDGER,
        layout.CHAIN: run / chain.FILE,
        layout.SCORES: sources.scores / RESULTS,
        layout.ENVIRONMENT: as_json(environment(sources.manifest)),
        layout.FINGERPRINTS: as_json(fingerprints(sources)),
        layout.CONTAMINATION: as_json(sources.results.get("contamination") or {}),
        layout.APP_DIFFERENCE: difference(sources.app).encode("utf-8"),
    }
    if statement["weights"]["link"] is None:
        files[layout.WEIGHTS] = checkpoint / WEIGHTS
    files |= {f"{layout.APP_FILES}/{name}": content for name, content in sources.app.items()}
    files |= _score_files(sources)
    files[layout.CARD] = card(sources, statement, extras.method)
    name = f"{layout.HUB_RESULTS}/{file_name(sources.challenge)}"
    files[name] = hub_results(sources.results, statement, extras.benchmarks)
    files[layout.CROISSANT] = croissant(sources)
    for name, content in every_eval_ever.records(sources, statement, extras.hub_id).items():
        files[f"{layout.EVERY_EVAL_EVER}/{name}"] = content
    digests = {name: sha256_of(content) for name, content in files.items()}
    digests[layout.WEIGHTS] = sources.weights_sha256  # also where they are kept elsewhere
    files[layout.PROVENANCE] = provenance(sources, digests)
    files[layout.SUMS] = sums(files)
    return files


def _score_files(sources: Sources) -> dict[str, Content]:
    """The table, the rows of the scored sets, and lm-eval's own files of the checkpoint."""
    folder, found = sources.scores, {}
    table = folder / "results.md"
    if table.is_file():
        found[layout.TABLE] = table
    for name in sources.results["sets"]:
        rows = folder / "rows" / f"{name}.jsonl"
        if rows.is_file():
            found[f"{layout.ROWS}/{name}.jsonl"] = rows
    for file in _newest(folder / "lm-eval" / "checkpoint"):
        found[f"{layout.LM_EVAL}/{file.name}"] = file
    return found


def _newest(folder: Path) -> list[Path]:
    """lm-eval's files of the last score in a folder: it keeps those of earlier ones."""
    results = sorted(folder.glob("results_*.json"))
    if not results:
        return []
    time = results[-1].stem.removeprefix("results_")
    return [results[-1], *sorted(folder.glob(f"samples_*_{time}.jsonl"))]


def environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run was made with: Python, system, packages and machine."""
    facts = manifest["hardware"]
    return {
        "python": manifest.get("versions", {}).get("python"),
        "platform": {key: facts.get(key) for key in ("system", "machine")},
        "packages": manifest["environment"]["packages"],
        "hardware": facts,
    }


def fingerprints(sources: Sources) -> dict[str, Any]:
    """Return what identifies the training rows, of each partition and of all of them.

    How many of all rows are different is known only where the scorer had them.
    """
    rows = sources.manifest["rows"]
    first = next(iter(rows.values()))
    known = (sources.results.get("contamination") or {}).get("training") or {}
    total = sum(entry["rows"] for entry in rows.values())
    unique = known.get("unique-rows") if known.get("rows") == total else None
    return {
        "dataset": first["dataset"],
        "revision": first["revision"],
        "partitions": {
            name: {key: entry[key] for key in ("rows", "unique-rows", "sha256")}
            for name, entry in rows.items()
        },
        "all": {"rows": total, "unique-rows": unique},
    }


def as_json(body: Mapping[str, Any]) -> bytes:
    """Return a JSON object for people and tools, the same for the same content."""
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()
