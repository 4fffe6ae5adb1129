"""Which checkpoint it is: the last one, or the one that the run itself chose, in its chain."""

from typing import Any

from flowertune.rules.values import shown
from flowertune.run import chain as chains
from submissions import layout
from submissions.bundle.sources import BEST, CHOSEN, LAST
from submissions.verify import app
from submissions.verify.case import Case
from submissions.verify.chain import Records

_EVALUATE = "train.evaluate-every"  # of the library's own evaluation on held-out rows


def check(case: Case, found: Records | None, built_in: frozenset[str]) -> None:
    """Compare what submission.json says of the checkpoint with the run, its chain and its app."""
    run, manifest, rounds = case.run, case.manifest, case.rounds
    assert manifest is not None and rounds is not None
    last = rounds[-1]["round"]
    choice = run[CHOSEN] if run is not None else None
    if run is not None and found is not None:
        _chain(case, choice, found.records[-1][chains.CHOSEN])
    if choice is not None and built_in >= app.CHOICE and not manifest["settings"].get(_EVALUATE):
        case.error(
            "run", "chosen", f"{layout.RUN_INFO}: {CHOSEN}",
            f"Round {choice['round']} is said to be the run's own choice, and nothing in the app's "
            "server, which is the template's, makes one.",
        )  # fmt: skip
    if case.submission is None:
        return
    said, place = case.submission["checkpoint"], layout.SUBMISSION
    if said["round"] != manifest["round"]:
        case.error(
            "run", "checkpoint", place,
            f"The checkpoint is said to be of round {said['round']}, and its manifest says "
            f"{manifest['round']}.",
        )  # fmt: skip
    elif said["chosen"] == LAST and said["round"] != last:
        case.error(
            "run", "checkpoint", place,
            f"The checkpoint is of round {said['round']}, and the run's last round is {last}: a "
            "checkpoint in between may have been chosen on the evaluation sets.",
        )  # fmt: skip
    elif said["chosen"] == BEST and (choice is None or choice["round"] != said["round"]):
        case.error(
            "run", "checkpoint", place,
            f"The checkpoint of round {said['round']} is said to be the run's own choice, and "
            "run.json holds no such choice on held-out rows.",
        )  # fmt: skip


def _chain(case: Case, choice: Any, sealed: Any) -> None:
    if choice != sealed:
        case.error(
            "run", "chosen", f"{layout.RUN_INFO}: {CHOSEN}",
            f"run.json says that the run chose {shown(choice)}, and the chain ends with the choice "
            f"{shown(sealed)}.",
        )  # fmt: skip
