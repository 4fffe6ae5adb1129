"""What the task files name: rows, answer rules and running programs, for all sets alike."""

from pathlib import Path
from typing import Any

import datasets

import challenges
from evaluation import data, programs, sets, tasks
from flowertune.base.errors import UserError

_WHICH = "flowertune_task"  # the column that says which set and suite a document belongs to


def documents(
    challenge: str,
    set: str,
    suite: str,
    data_dir: str | None = None,
    sample: bool = False,
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """Read the rows of a set; lm-eval passes what the task's metadata and `--metadata` hold.

    Args:
        challenge: its name.
        set: of the challenge.
        suite: "official" or "standard".
        data_dir: a folder of JSONL files instead of the hub, as `--data-dir` of our own command.
        sample: read the small sample in this package instead of the hub.

    Raises:
        UserError: the rows cannot be read or are not what they should be.
    """
    item = sets.of_challenge(challenge).named()[set]
    entries = challenges.load(challenge)["evaluation"]["sets"]
    rows = next(entry["rows"] for entry in entries if entry["set"] == set)
    source = data.Source("hub")
    if sample:
        source = data.Source("sample", data.SAMPLES / challenge)
    elif data_dir is not None:
        source = data.Source("folder", Path(data_dir))
    found = data.load(item, source, rows, suite).documents
    which = f"{challenge}/{set}/{suite}"
    return {"test": datasets.Dataset.from_list([{**one, _WHICH: which} for one in found])}


def process_results(document: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Apply a set's answer rule to what lm-eval got for one document."""
    form = _form(document)
    if form.config().get("generation_kwargs", {}).get("response") == "whole row":
        # lm-eval gives the new text only.
        results = [document["context"] + text for text in results]
    return {"acc": float(form.grade(document, results).points)}


def run_programs(
    responses: list[list[str]], docs: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """Run the programs that a model wrote, in the sandbox of our own command: an lm-eval filter.

    Raises:
        UserError: there is no sandbox here, or no compiler.
    """
    form = _form(docs[0])
    assert form.language is not None
    programs.check({form.language}, allow_unsandboxed=False)  # type: ignore[arg-type]
    strict = docs[0][_WHICH].endswith("/standard")

    def run(texts: list[str], language: Any) -> list[dict[str, Any]]:
        outcomes = programs.run_all([programs.Program(language, text, strict) for text in texts])
        return [{"passed": one.passed, "status": one.status} for one in outcomes]

    return tasks.run_programs_of(form, responses, docs, run)


def _form(document: dict[str, Any]) -> sets.Form:
    try:
        challenge, name, suite = document[_WHICH].split("/")
    except KeyError:
        raise UserError(
            f"a document has no {_WHICH}: these functions belong to the task files beside them"
        ) from None
    return sets.of_challenge(challenge).named()[name].form(suite)
