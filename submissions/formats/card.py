"""The model card of an adapter, made of huggingface_hub's own classes."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import challenges
from evaluation import sets
from flowertune.base.hub import is_hub_id
from submissions.bundle.difference import changed_files
from submissions.bundle.sources import Sources

TO_FILL_IN = (
    "*To be filled in: what was changed, and why it should help. (`--method FILE` puts a text "
    "here.)*"
)
_TEMPLATE = "card.md.jinja"
_SETTINGS = (
    "model.lora.peft-lora-r", "model.lora.peft-lora-alpha", "train.learning-rate-max",
    "train.learning-rate-min", "train.training-arguments.per-device-train-batch-size",
    "train.training-arguments.max-steps", "strategy.fraction-train", "train.transport", "seed",
)  # fmt: skip


def card(sources: Sources, statement: Mapping[str, Any], method: str | None = None) -> bytes:
    """Return README.md of an adapter's folder.

    Parameters
    ----------
    sources
        The run and its score.
    statement
        What submission.json says.
    method
        Markdown for the section on the method; None leaves it to be filled in.
    """
    manifest, results = sources.manifest, sources.results
    base, spent = manifest["base-model"]["name"], manifest["communication"]
    facts = challenges.load(sources.challenge)
    changed = changed_files(sources.app)
    text = ModelCard.from_template(
        card_data(sources, statement),
        template_str=(files(__name__.rpartition(".")[0]) / _TEMPLATE).read_text("utf-8"),
        title=f"{facts['title']}: {_cell(statement['team'])}",
        base_model=f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else base,
        challenge=facts["title"],
        supernodes=manifest["supernodes"],
        rounds=manifest["round"],
        mib=f"{spent['total-mib']:,.1f}",
        budget=f"{spent['budget-mib']:,}",
        team=_cell(statement["team"]),
        division=statement["division"],
        rules=statement["rules"],
        rules_version=statement["rules-version"],
        note=statement["note"] and _cell(statement["note"]),
        method=(method or TO_FILL_IN).strip(),
        differs=", ".join(f"`{name}` ({how})" for name, how in changed.items()) or "nothing",
        scores=[_row(entry) for entry in results["sets"].values()],
        average=statement["average"],
        settings=[
            (f"`{key}`", manifest["settings"][key])
            for key in _SETTINGS
            if key in manifest["settings"]
        ],
    ).content
    return f"{text.rstrip()}\n".encode()


def card_data(sources: Sources, statement: Mapping[str, Any]) -> ModelCardData:
    """Return the metadata of the card, its evaluation results included."""
    base = sources.manifest["base-model"]["name"]
    dataset = sources.manifest["static"]["dataset.name"]
    challenge = sources.challenge
    return ModelCardData(
        base_model=base if is_hub_id(base) else None,
        datasets=[dataset] if is_hub_id(dataset) else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["flower", "flowertune", "federated-learning", "lora", challenge],
        model_name=f"{statement['team']} on {challenge}",
        eval_results=eval_results(sources.results, statement),
    )


def eval_results(results: Mapping[str, Any], statement: Mapping[str, Any]) -> list[EvalResult]:
    """Return a result for each set, on its data set of the hub."""
    hubs = {item.name: item.hub for item in sets.of_challenge(statement["challenge"]).sets}
    found = []
    for name, entry in results["sets"].items():
        hub = hubs[name]
        metric = "pass@1" if entry["metric"] == "pass@1" else "accuracy"
        found.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=hub.path,
                dataset_name=entry["title"],
                dataset_config=hub.config,
                dataset_split=hub.splits[0] if len(hub.splits) == 1 else None,
                dataset_revision=hub.revision,
                metric_type=metric,
                metric_name=f"{metric} (FlowerTune, suite {results['suite']})",
                metric_value=float(statement["scores"][name]),
            )
        )
    return found


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    score = entry["scores"]["checkpoint"]
    low, high = score["interval-95"]
    rows = f"{entry['rows']:,}"
    return {
        "title": entry["title"], "rows": rows, "score": score["score"], "low": low, "high": high,
    }  # fmt: skip


def _cell(text: str) -> str:
    """Text of a participant, which must not begin a link, a tag or a cell of its own."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>#|" else char for char in text)
