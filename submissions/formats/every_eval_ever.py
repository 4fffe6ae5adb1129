"""A score as a record of Every Eval Ever: a JSON file, and one line for each row of each set.

Fields are those of its JSON schemas, version 0.3.0 (https://evalevalai.com); its validator checks
more than they say, such as the form of ids.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from evaluation import sets
from flowertune.base.files import read_jsonl
from flowertune.base.hashing import json_sha256
from flowertune.base.hub import is_hub_id
from submissions.bundle.sources import Sources
from submissions.bundle.statement import slug

SCHEMA = "0.3.0"
SAMPLES = "_samples.jsonl"
_LIBRARY = "lm_eval"
_INTERVAL = "Wilson"


def records(
    sources: Sources, statement: Mapping[str, Any], hub_id: str | None = None
) -> dict[str, bytes]:
    """Return the record's two files, by their names below the folder of such records.

    They lie as in the project's own store, so that its validator can be run on them there.

    Parameters
    ----------
    sources
        The run and its score, whose rows are read.
    statement
        What submission.json says.
    hub_id
        What the adapter is called on the hub; None for a name made of team and digest.

    Raises
    ------
    ValueError
        The rows of a set cannot be read.
    """
    named = hub_id or f"{slug(statement['team'])}/{sources.challenge}-{sources.digest[:12]}"
    uuid = _uuid({"results": json_sha256(sources.results), "model": named})
    seconds = str(int(datetime.fromisoformat(statement["created"]).timestamp()))
    about = {
        "schema_version": SCHEMA,
        "evaluation_id": f"flowertune-{sources.challenge}/{named.replace('/', '_')}/{seconds}",
    }
    lines = list(_samples(sources, {**about, "model_id": named}))
    samples = "".join(json.dumps(x, ensure_ascii=False, sort_keys=True) + "\n" for x in lines)
    owner, _, name = named.partition("/")
    place = f"data/flowertune-{sources.challenge}/{owner}/{name}/{uuid}"
    body = {
        **about,
        "evaluation_timestamp": sources.results["provenance"]["started"],
        "retrieved_timestamp": seconds,
        "source_metadata": {
            "source_name": "FlowerTune",
            "source_type": "evaluation_run",
            "source_organization_name": statement["team"],
            "evaluator_relationship": "first_party",
            "additional_details": {
                "rules": f"{statement['rules']} {statement['rules-version']}",
                "division": statement["division"],
            },
        },
        "eval_library": {
            "name": _LIBRARY,
            "version": sources.results["provenance"]["versions"].get(_LIBRARY, "unknown"),
            "additional_details": {
                "flowertune": sources.results["provenance"]["library"]["version"],
                "suite": sources.results["suite"],
            },
        },
        "model_info": _model(sources, statement, named),
        "evaluation_results": [
            _result(sources, statement, name) for name in sources.results["sets"]
        ],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": f"{place}{SAMPLES}",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(samples.encode("utf-8")).hexdigest(),
            "total_rows": len(lines),
        },
    }
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)
    return {f"{place}.json": f"{text}\n".encode(), f"{place}{SAMPLES}": samples.encode("utf-8")}


def _uuid(of: Mapping[str, Any]) -> UUID:
    """A version 4 UUID, which the schema wants, that is the same for the same record."""
    return UUID(bytes=bytes.fromhex(json_sha256(of))[:16], version=4)


def _model(sources: Sources, statement: Mapping[str, Any], named: str) -> dict[str, Any]:
    base = sources.manifest["base-model"]
    return {
        "name": f"{statement['team']}, {sources.challenge}",
        "id": named,
        "developer": statement["team"],
        "inference_engine": {
            "name": sources.results["provenance"]["backend"],
            "version": sources.results["provenance"]["versions"].get("transformers", "unknown"),
        },
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "open_weights" if is_hub_id(base["name"]) else "unknown",
            "base_model": base["name"],
            "base_model_revision": base["revision"],
            "adapter_sha256": sources.weights_sha256,
            "quantization_bits": str(sources.results["provenance"]["quantization"]),
            "dtype": sources.results["provenance"]["dtype"],
        },
    }


def _result(sources: Sources, statement: Mapping[str, Any], name: str) -> dict[str, Any]:
    entry = sources.results["sets"][name]
    score = entry["scores"]["checkpoint"]
    low, high = map(float, score["interval-95"])
    uncertainty: dict[str, Any] = {
        "confidence_interval": {
            "lower": low, "upper": high, "confidence_level": 0.95, "method": _INTERVAL,
        },
        "num_samples": entry["rows"],
    }  # fmt: skip
    if score["standard-error"] is not None:
        uncertainty["standard_error"] = {
            "value": float(score["standard-error"]), "method": "analytic",
        }  # fmt: skip
    metric = "pass_at_k" if entry["metric"] == "pass@1" else "accuracy"
    parameters = {"metric_parameters": {"k": 1}} if metric == "pass_at_k" else {}
    return {
        "evaluation_result_id": _result_id(sources, name),
        "evaluation_name": _result_id(sources, name),
        "source_data": _source(sources, name, entry),
        "evaluation_timestamp": sources.results["provenance"]["started"],
        "metric_config": {
            "evaluation_description": f"{entry['title']}, FlowerTune's official suite",
            "metric_id": metric,
            "metric_name": entry["metric"],
            "metric_kind": "pass_rate" if metric == "pass_at_k" else "accuracy",
            "metric_unit": "percent",
            **parameters,
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 100,
        },
        "score_details": {"score": float(statement["scores"][name]), "uncertainty": uncertainty},
        "generation_config": {
            "additional_details": {
                "task_sha256": sources.results["provenance"]["task-sha256"][name],
                "batching": str(sources.results["decoding"]["batching"]),
            },
        },
    }


def _source(sources: Sources, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    hub = sets.of_challenge(sources.challenge).named()[name].hub
    details = {"rows_sha256": entry["data"]["rows-sha256"]}
    if hub.revision is not None:
        details["revision"] = hub.revision
    return {
        "dataset_name": entry["title"],
        "source_type": "hf_dataset",
        "hf_repo": hub.path,
        "hf_split": ", ".join(hub.splits),
        "samples_number": entry["rows"],
        "additional_details": details,
    }


def _result_id(sources: Sources, name: str) -> str:
    return f"flowertune_{sources.challenge}_{name}".replace("-", "_")


def _samples(sources: Sources, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in sources.results["sets"]:
        for row in read_jsonl(sources.scores / "rows" / f"{name}.jsonl"):
            asked, target = str(row.get("context", "")), str(row.get("target", ""))
            own = row["checkpoint"]
            yield {
                **about,
                "evaluation_name": _result_id(sources, name),
                "evaluation_result_id": _result_id(sources, name),
                "sample_id": f"{name}_{row['row']}",
                "sample_hash": hashlib.sha256((asked + target).encode("utf-8")).hexdigest(),
                "interaction_type": "single_turn",
                "input": {"raw": asked, "reference": [target]},
                "output": {"raw": [_text(response) for response in own["responses"]]},
                "answer_attribution": [
                    {
                        "turn_idx": 0,
                        "source": "output.raw",
                        "extracted_value": str(own["answer"]),
                        "extraction_method": "custom",
                        "is_terminal": True,
                    }
                ],
                "evaluation": {"score": own["points"], "is_correct": own["points"] == 1},
            }


def _text(response: Any) -> str:
    return response if isinstance(response, str) else json.dumps(response)
