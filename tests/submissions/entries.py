"""Entries of a board that nobody submitted: many, different, and the same each time."""

import math
import random

import challenges
from submissions import tiers
from submissions.board.entry import Entry, Refused, SetScore
from submissions.findings import Finding

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "' autofocus onfocus='window.pwned = 1",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.pwned=1",
    "</title></style></textarea><svg onload=window.pwned=1>",
    '=HYPERLINK("https://example.org/?"&A1, "win")',
    "&lt;b&gt; & <b>",
)
_TEAMS = ("Ada", "Bohr Lab", "Curie & Sons", "Darwin", "Erdős Number", "Fermi", "Gödel", "Hopper",
          "A team whose name is as long as the name of a team may be: " + "x" * 40)  # fmt: skip
_MODELS = ("mistralai/Mistral-7B-v0.3", "Qwen/Qwen3-8B", "meta-llama/Llama-3.2-3B",
           "HuggingFaceTB/SmolLM2-135M-Instruct")  # fmt: skip
METHOD = """\
We keep `A` fixed and train **B** only, with momentum on the server.

# Why

- fewer bytes, so more rounds
- see [the paper](https://example.org/paper) and ![the loss](https://example.org/loss.png)

| rank | score |
|---:|---:|
| 8 | 61.2 |

```python
strategy = FedAvg(momentum=0.9)
```
"""
DIFFERENCE = """\
--- template/app/strategy.py
+++ app/flowertune_finance/strategy.py
@@ -1,3 +1,3 @@
 import flowertune
-strategy = flowertune.FedAvg()
+strategy = flowertune.FedAvg(server_momentum=0.9)
"""


def entry(number: int, challenge: str = "finance", **values: object) -> Entry:
    """The entry of this number."""
    chance = random.Random(number)
    facts = challenges.load(challenge)
    skill, rounds = 30 + 50 * chance.betavariate(3, 2), chance.choice((10, 100, 200))
    sets = [_set(one, skill, chance) for one in facts["evaluation"]["sets"]]
    average = sum(float(one.score) for one in sets) / len(sets)
    clean = sum(float(one.clean or 0) for one in sets) / len(sets)
    mib = 100_000 * 10 ** -chance.uniform(0, 2.5) * (skill / 80) ** 2
    closed = chance.random() < 0.5
    losses = [
        (n, 1 + 2 * math.exp(-4 * n / rounds) + chance.gauss(0, 0.03)) for n in _rounds(rounds)
    ]
    given: dict = {
        "id": f"team-{number}-{number:012x}",
        "challenge": challenge,
        "rules": "50-supernodes",
        "rules_version": "1.0.0",
        "division": "closed" if closed else "open",
        "team": f"{_TEAMS[number % len(_TEAMS)]} {number}"[:100],
        "model": facts["model"] if closed else chance.choice(_MODELS),
        "sets": sets,
        "average": f"{average:.2f}",
        "average_low": f"{average - 2:.2f}",
        "average_high": f"{average + 2:.2f}",
        "clean_average": f"{clean:.2f}",
        "parameters": int(13_600_000 * 2 ** chance.randint(-4, 2)),
        "mib": round(mib, 3),
        "budget_mib": 200_000,
        "hours": (took := round(chance.uniform(0.4, 90), 4)),
        "run_hours": took if number % 3 else 0.0002,
        "hardware": "1 × NVIDIA H100, 16 cores",
        "run_hardware": "1 × NVIDIA H100, 16 cores",
        "signed_by": f"{number + 3:064x}" if number % 2 else "",
        "tier": chance.choice(tiers.NAMES[1:]),
        "created": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T12:00:00Z",
        "bundle": f"finance-team-{number}.zip",
        "digest": f"{number:064x}",
        "checkpoint": f"{number + 7:064x}",
        "chosen": "last",
        "rounds": rounds,
        "clients": 5,
        "supernodes": 50,
        "asked": 5 * rounds,
        "failed": number % 3,
        "sent_bytes": int(mib * 2**19),
        "received_bytes": int(mib * 2**19),
        "library": "1.0.0",
        "loss": losses,
        "rate": [(n, 5e-5 * (1 + math.cos(math.pi * n / rounds)) / 2) for n in _rounds(rounds)],
        "sent": [(n, mib * n / rounds) for n in _rounds(rounds)],
        "settings": [("model.lora.peft-lora-r", "32"), ("train.transport", "float16")],
        "method": METHOD if number % 2 else "",
        "difference": DIFFERENCE if number % 2 else "",
        "changed": [("flowertune_finance/strategy.py", "changed")] if number % 2 else [],
        "contamination": "29 of 3,904 evaluation rows are also training rows.",
        "findings": [
            *(
                [Finding("run", "warning", "adapter", "It is `b.zip`'s.", "same-adapter")]
                if number % 5 == 0
                else []
            ),
            Finding("run", "note", "adapter/manifest.json: rows", "No rows are on record.", "rows"),
        ],
    }
    return Entry(**{**given, **values})


def _rounds(rounds: int) -> range:
    return range(1, rounds + 1)


def _set(facts: dict, skill: float, chance: random.Random) -> SetScore:
    score = min(99.0, max(1.0, skill + chance.gauss(0, 5)))
    room = 196 * math.sqrt(score / 100 * (1 - score / 100) / facts["rows"])
    return SetScore(
        facts["set"], facts["title"], f"{score:.2f}", f"{max(0, score - room):.2f}",
        f"{min(100, score + room):.2f}", facts["rows"], f"{score - 0.4:.2f}", facts["rows"] - 29,
        "0.50",
    )  # fmt: skip


def entries(count: int) -> list[Entry]:
    """Many entries, of all challenges that are scored."""
    scored = [name for name in challenges.names() if challenges.load(name)["evaluation"]["sets"]]
    return [entry(number, scored[number % 7 % len(scored)]) for number in range(count)]


def hostile(number: int, text: str) -> Entry:
    """An entry each of whose texts is this one."""
    found = Finding("score", "warning", text, text, "look")
    return entry(
        number, division="open", team=text, model=text,
        method=f"# {text}\n\n{text}\n\n`{text}`\n\n[x]({text}) ![{text}]({text}) ![{text}](https://x.org/)",
        difference=f"+{text}\n-{text}", changed=[(text, "changed")], note=text, bundle=text,
        hardware=text, settings=[(text, text)], findings=[found], contamination=text,
        weights_link="https://example.org/" + text.replace(" ", "%20"), replay=[(text, text)],
    )  # fmt: skip


def refused(text: str = "results/rows/fpb.jsonl") -> Refused:
    """An INVALID bundle that says this."""
    found = Finding("score", "error", text, f"The score is 100.00, not 44.55: {text}.", "scores")
    return Refused(text, "ab" * 32, text, "finance", [found])
