"""The page of the documentation that says what works on which architecture: docs/models.md."""

import json
from collections import Counter

from tests.architectures.result import RECORD, Result, recorded
from tests.architectures.values import overrides

_HEAD = """\
<!-- Written by scripts/generate from tests/architectures/results.json: do not edit. -->
# Models

Every causal architecture of transformers {transformers} was put through this project's own code, as a tiny model with random
weights and a byte-level tokenizer (PEFT {peft}, PyTorch {torch}, on a CPU, not quantized). Of {all}, {works} work, {refused} are
refused with one sentence, and {limit} have a known limit; none ends in a stack trace.

| What "works" says | How it is checked |
| :-- | :-- |
| trains | two rounds of the finance app with two clients and the adapter's default settings (`model.lora.target-modules = "auto"`): finite losses, and an adapter whose product B·A is not zero |
| saves, loads with PEFT | `PeftModel.from_pretrained` puts the checkpoint onto the base model and changes what it says; no token sees a later one |
| resumes | a second run is killed in round 2 and resumed: the adapter of its checkpoint has the same bytes |
| is scored exactly | both suites of the finance challenge on nine rows, four at a time, give the answers and log-likelihoods that transformers gives for each row alone |

A tiny model shows that the code fits the architecture. It does not show how well a model of it learns, what memory it takes, or how it
is quantized: bitsandbytes quantizes linear layers only, so experts that an architecture keeps as one tensor stay in 16 bits.
`flowertune inspect` says before a run what "auto" adapts in your model.

Answers are generated in batches where every layer attends to all tokens before. Elsewhere (state-space and recurrent layers,
attention windows shorter than a prompt with its answer, positions that cannot be given) they are generated row by row: the same answers
in more time. Log-likelihoods are computed in batches for all.

One architecture: `python -m pytest tests/architectures -k llama`. All: `./scripts/test --all`. `python -m tests.architectures` writes
the record anew, {minutes} minutes on 2 busy CPU cores.

"""  # noqa: E501
_TABLE = """\
| Architecture | Class | "auto" adapts | B·A ≠ 0 | Answers | Result |
| :-- | :-- | :-- | --: | :-- | :-- |
"""


def page() -> str:
    """Return the text of the page."""
    results = recorded()
    count = Counter(one.outcome for one in results.values())
    facts = json.loads(RECORD.read_text("utf-8"))
    counts = {name: count[name] for name in ("works", "refused", "limit")}
    head = _HEAD.format(**facts["versions"], **counts, all=len(results), minutes=facts["minutes"])
    return head + _TABLE + "".join(map(_row, results.values()))


def _row(result: Result) -> str:
    answers = "in batches" if result.batched else "row by row"
    cells = [
        f"`{result.architecture}`",
        result.model,
        ", ".join(f"`{name}`" for name in _ends(result.targets)),
        f"{result.changed} of {result.adapted}" if result.adapted else "",
        answers if result.outcome == "works" else "",
        _said(result),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _ends(targets: list[str]) -> list[str]:
    # Whole names, one for each layer, are given where others are left out.
    return list(dict.fromkeys(name.rpartition(".")[2] for name in targets))


def _said(result: Result) -> str:
    if result.outcome != "works":
        return f"{result.outcome}: {result.text}"
    switched = [
        name for name, value in overrides().get(result.architecture, {}).items() if value is True
    ]
    return "✓" + "".join(f" with `{name}` true in its config.json" for name in switched)
