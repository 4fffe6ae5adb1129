"""What one answer of a bundle may look like, in every challenge; and what is worth a look."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import code, finance, general_nlp, medical
from submissions import layout
from submissions.findings import Report
from submissions.tiers import NAMES, TIERS, rank
from submissions.verify import answers
from submissions.verify.check import verify
from tests.submissions.large import large_bundle, large_rules
from tests.submissions.tampered import Edit

NONE: dict[str, Any] = {"decoding": {"generation-config": {}, "batching": None}}
ROWS_WISE: dict[str, Any] = {"decoding": {"generation-config": {}, "batching": "rows"}}
EXAM = medical.CHALLENGE.named()["medqa"].form("official")
CODE = code.CHALLENGE.named()["mbpp"].form("official")
NEWS = finance.CHALLENGE.named()["fpb"].form("official")
CHOICE = finance.CHALLENGE.named()["fpb"].form("standard")
QUESTION = {"context": "Which?\nAnswer: ", "target": "A", "as_long_as": "A"}


def impossible(form: Any, document: dict[str, str], text: str, results: Any = NONE) -> str | None:
    return answers.impossible(document, text, answers.limits(form, results))


@pytest.mark.parametrize("text", ["A", " A", "A.", "", " none", "\n", "Aa" * 20, " " * 100])
def test_a_token_or_two_are_possible(text: str) -> None:
    assert impossible(EXAM, QUESTION, text) is None


@pytest.mark.parametrize("text", ["A, because of all that is written above here.", "A" * 300])
def test_more_than_the_gold_answer_has_is_not(text: str) -> None:
    assert impossible(EXAM, QUESTION, text) == (
        f"has {len(text)} characters, more than 2 tokens hold"
    )


def test_code_stops_at_its_stop_words() -> None:
    document = {"context": "def f():", "target": "", "tests": "assert f()"}
    assert impossible(CODE, document, "\n    return 1") is None
    assert impossible(CODE, document, "\n    return 1\nprint(2)") == (
        "goes on after '\\nprint', where it stops"
    )
    long = "\n    x = 1" * 3000
    assert "more than 2,048 tokens hold" in str(impossible(CODE, document, long))
    own = {"decoding": {"generation-config": {"max_new_tokens": 10}}}
    assert "more than 10 tokens hold" in str(impossible(CODE, document, "a b " * 30, own))


def test_a_row_of_finance_begins_with_its_question_and_ends_where_it_is_settled() -> None:
    document = {"context": "Instruction: x\nInput: It rose .\nAnswer: ", "target": "positive"}
    row = document["context"] + "positive"
    assert impossible(NEWS, document, row) is None
    assert impossible(NEWS, document, row.replace(" .", ".")) is None  # tidied when decoded
    assert impossible(NEWS, document, row.replace("It rose", "<unk> rose")) is None
    assert impossible(NEWS, document, "positive") == "does not begin with its question"
    more = row + ", since" + " it rose" * 60
    assert impossible(NEWS, document, more, NONE) is None  # official batches go on
    assert impossible(NEWS, document, more, ROWS_WISE) == ("goes on after the word that settles it")


def test_the_documents_of_every_challenge_are_known() -> None:
    samples: dict[str, Callable[[], Any]] = {
        "general-nlp": lambda: general_nlp, "medical": lambda: medical, "code": lambda: code,
        "finance": lambda: finance,
    }  # fmt: skip
    folder = Path(finance.__file__).parent / "samples"
    for challenge, module in samples.items():
        for item in module().CHALLENGE.sets:
            lines = (folder / challenge / item.file).read_text("utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            form = item.form("official")
            documents = form.documents(rows)
            wrong = [answers.document_problem(document, form) for document in documents]
            assert not any(wrong), item.name
            assert answers.order_problem(documents, form) is None


def test_the_limit_of_an_answer_is_the_official_one() -> None:
    documents = [{**QUESTION, "as_long_as": "A"} for _ in range(20)]
    documents[17] = {**QUESTION, "as_long_as": "A long one"}
    assert "Row 17 may be answered as long as 'A long one'" in str(
        answers.order_problem(documents, EXAM)
    )


@pytest.mark.parametrize(
    ("points", "answer", "wrong"),
    [
        (1.0, "passed", None),
        (0.0, "failed", None),
        (0.5, "failed, passed", None),
        (1.0, "failed", "points"),
        (0.3, "failed, passed", "points"),
        (0.5, "passed, failed", "statuses"),
        (0.0, "", "statuses"),
    ],
)
def test_points_of_programs_fit_their_ends(points: float, answer: str, wrong: str | None) -> None:
    given = {"responses": ["a", "b"], "answer": answer, "points": points, "parseable": None}
    found = answers.program_outcome(given)
    assert (wrong is None) == (not isinstance(found, str))
    assert wrong is None or wrong in str(found)


@pytest.mark.parametrize(
    ("change", "form"),
    [
        ({"responses": []}, NEWS),
        ({"responses": [1]}, NEWS),
        ({"responses": ["a", "b"]}, NEWS),
        ({"points": True}, NEWS),
        ({"points": 2}, NEWS),
        ({"parseable": "yes"}, NEWS),
        ({"more": 1}, NEWS),
        ({"responses": [[0.5, True]]}, CHOICE),
        ({"responses": [[-1.0]]}, CHOICE),
    ],
)
def test_answers_have_their_types(change: dict[str, Any], form: Any) -> None:
    good = {"responses": ["a"], "answer": "a", "points": 0.0, "parseable": True}
    assert answers.shape_problem(good, NEWS) is None
    assert answers.shape_problem({**good, **change}, form) is not None


def look(edit: Edit, rows: dict[str, int]) -> Report:
    file = edit.folder / "bundle.zip"
    file.write_bytes(edit.zip())
    with large_rules(rows):
        return verify(file)


def warnings(report: Report) -> set[str]:
    return {finding.check for finding in report.findings if finding.level == "warning"}


def test_what_is_worth_a_look_is_flagged_and_not_refused(tmp_path: Path) -> None:
    rows = {"fpb": 120, "fiqa": 120, "tfns": 120}
    edit = large_bundle(tmp_path, rounds=2, rows=rows, layers=1)
    report = look(edit, rows)
    assert report.valid, report.text()
    assert warnings(report) == set()
    edit = large_bundle(tmp_path, rounds=2, rows=rows, layers=1, right=1.0)

    def still(tensors: dict[str, np.ndarray]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor[:] = 0

    edit.weights(still)
    edit.own_state()
    records = edit.lines(layout.CHAIN)
    replies = records[1]["replies"]
    first, second, *_ = replies
    replies[second]["sha256"] = replies[first]["sha256"]
    records[1]["adapter-sha256"] = records[0]["adapter-sha256"]
    edit.write_lines(layout.CHAIN, records)
    edit.put(layout.SUBMISSION, "hours", 0.0)
    lines = edit.lines(layout.ROUNDS)
    for line, time in zip(lines, ("23:00:00", "23:30:00"), strict=True):
        line |= {"seconds": 1500.0, "time": f"2099-01-01T{time}+00:00"}
    edit.write_lines(layout.ROUNDS, lines)
    edit.put(layout.RUN_INFO, "started", "2099-01-01T22:00:00+00:00")
    edit.put(layout.RUN_INFO, "ended", "2099-01-01T23:59:00+00:00")
    edit.put(layout.SCORES, "provenance/started", "2099-01-02T00:00:00Z")
    edit.forge()
    report = look(edit, rows)
    assert report.valid, report.text()
    assert warnings(report) == {
        "perfect", "identical-accuracies", "no-training", "same-replies", "hours",
        "same-adapter-twice",
    }  # fmt: skip


def test_tiers_are_in_order_and_in_the_docs() -> None:
    assert NAMES == ("declared", "consistent", "re-scored", "replayed", "reproduced")
    assert [rank(name) for name in NAMES] == [0, 1, 2, 3, 4]
    page = Path(__file__).parents[2] / "docs" / "guides" / "submissions.md"
    text = page.read_text("utf-8").partition("## What each tier proves")[2]
    assert all(f"\n| {tier.name} |" in text for tier in TIERS)
