"""What the sweep says of an architecture, and the record of it."""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

RECORD = Path(__file__).with_name("results.json")
LIMITS = Path(__file__).with_name("limits.json")
ROUNDS = 2
# What the settings of every run have in common.
CHANGES = {
    "strategy.fraction-train": 1.0,
    "num-server-rounds": ROUNDS,
    "train.save-every-round": 1,
    "train.seq-length": 256,
    "train.learning-rate-max": 1e-2,
    "train.training-arguments.max-steps": 1,
    "train.training-arguments.per-device-train-batch-size": 2,
}


@dataclass
class Result:
    """What came of one architecture.

    Attributes:
        outcome: "works", "refused" (by a sentence of the library), "limit" (a known one: LIMITS
            gives the reason), or "fault".
        stage: where it stopped, "" where it came through.
        text: the sentence, the reason, or a traceback.
        model: the class of the model.
        targets: what ``target-modules = "auto"`` adapts.
        adapted: how many modules have an adapter.
        changed: in how many of them the product of B and A is not zero after training.
        batched: whether answers of 512 tokens are generated in batches; else row by row.
    """

    architecture: str
    outcome: str = "works"
    stage: str = ""
    text: str = ""
    model: str = ""
    targets: list[str] = field(default_factory=list)
    adapted: int = 0
    changed: int = 0
    batched: bool = False

    @property
    def signature(self) -> tuple[object, ...]:
        """What has to be the same whenever the sweep runs."""
        return (self.outcome, self.stage, self.targets, self.adapted, self.changed, self.batched)


@cache
def limits() -> dict[str, dict[str, str]]:
    """Known limits by architecture: the stage that fails, and the reason, a clause."""
    return json.loads(LIMITS.read_text("utf-8"))


def judged(result: Result) -> Result:
    """The result, in which a fault that is a known limit is one."""
    known = limits().get(result.architecture)
    if result.outcome == "fault" and known and known["stage"] == result.stage:
        result.outcome, result.text = "limit", known["reason"]
    return result


def versions() -> dict[str, str]:
    """Of the packages that the record depends on."""
    return {name: version(name).split("+")[0] for name in ("transformers", "peft", "torch")}


def recorded() -> dict[str, Result]:
    """The results on record, by architecture."""
    record = json.loads(RECORD.read_text("utf-8"))
    return {one["architecture"]: Result(**one) for one in record["results"]}


def record(results: dict[str, Result], minutes: int | None) -> None:
    """Put results on record, and leave those of other architectures as they are.

    ``minutes`` is what all of them took, None where these are not all.
    """
    old = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {"results": []}
    merged = {one["architecture"]: one for one in old["results"]}
    merged |= {name: asdict(one) for name, one in results.items()}
    whole = {
        "versions": versions(),
        "minutes": old.get("minutes") if minutes is None else minutes,
        "results": [merged[name] for name in sorted(merged)],
    }
    RECORD.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
