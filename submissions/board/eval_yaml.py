"""Benchmark datasets of Hugging Face's hub: an eval.yaml and a card for each challenge.

The hub takes a dataset with an eval.yaml for a benchmark and shows the results of all models that
name it, as the .eval_results of a bundle do.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

import challenges
from flowertune.base.errors import UserError
from flowertune.base.files import write_atomically
from submissions.formats import benchmarks
from submissions.formats.hub_results import AVERAGE

FRAMEWORK = "flowertune"
TASKS, CARD, ROWS = "eval.yaml", "README.md", "test.jsonl"
_SPLIT, _CONFIG = "test", "default"


def scored() -> list[str]:
    """Return the challenges that have evaluation sets."""
    return [name for name in challenges.names() if challenges.load(name)["evaluation"]["sets"]]


def files_in(folder: Path) -> list[Path]:
    """Return the files that ``write_datasets`` writes below a folder."""
    places = [folder / benchmarks.dataset(name).rpartition("/")[2] for name in scored()]
    return [place / name for place in places for name in (TASKS, CARD, ROWS)]


def write_datasets(folder: Path, owner: str) -> list[Path]:
    """Write a folder for each challenge's dataset; return the files eval.yaml.

    Parameters
    ----------
    owner
        Of the datasets on the hub.

    Raises
    ------
    UserError
        A file cannot be written.
    """
    written = []
    try:
        for name in scored():
            dataset = benchmarks.dataset(name, owner)
            place = folder / dataset.rpartition("/")[2]
            place.mkdir(parents=True, exist_ok=True)
            body = yaml.safe_dump(eval_yaml(name), sort_keys=False, allow_unicode=True)
            write_atomically(place / TASKS, body)
            write_atomically(place / CARD, _card(name, dataset))
            write_atomically(place / ROWS, _rows(name))
            written.append(place / TASKS)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): name another.") from None
    return written


def eval_yaml(challenge: str) -> dict[str, Any]:
    """Return what eval.yaml says: a task for each set, and one for their average."""
    facts = challenges.load(challenge)
    tasks = [*(one["set"] for one in facts["evaluation"]["sets"]), AVERAGE]
    return {
        "name": f"FlowerTune {facts['title']}",
        "description": (
            f"Federated fine-tuning of a language model: {facts['about']}. Scores are percentages, "
            "computed by the challenge's scorer; the average is over the sets."
        ),
        "evaluation_framework": FRAMEWORK,
        "tasks": [{"id": task, "config": _CONFIG, "split": _SPLIT} for task in tasks],
    }


def _rows(challenge: str) -> str:
    """The dataset's rows: which sets the challenge is scored on. The questions are elsewhere."""
    sets = challenges.load(challenge)["evaluation"]["sets"]
    lines = [
        {"set": s["set"], "title": s["title"], "rows": s["rows"], "baseline": s["baseline"]}
        for s in sets
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _card(challenge: str, dataset: str) -> str:
    text = (files("submissions.board") / "templates" / "dataset.md.jinja").read_text("utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    facts = challenges.load(challenge)
    return environment.from_string(text).render(
        facts=facts, dataset=dataset, challenge=challenge, average=AVERAGE
    )
