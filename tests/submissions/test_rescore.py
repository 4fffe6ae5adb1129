"""submissions.rescore: forged answers are found, ties are told from them, draws can be repeated."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluation import finance, general_nlp, sets
from evaluation.sets import Answer, Outcome
from flowertune.base.errors import UserError
from submissions import layout
from submissions.archive import opened
from submissions.findings import Finding
from submissions.rescore.again import Wanted
from submissions.rescore.compare import DIFFERENT, SAME, TIED, compare_row
from submissions.rescore.rescore import rescore
from submissions.rescore.rows import drawn_rows
from submissions.rescore.ties import first_difference, likelihood_gap, token_gap
from submissions.verify import cli as verify
from tests.submissions.bundles import bundle, scored, unpacked
from tests.submissions.on_record import on_record

FINANCE = finance.CHALLENGE.named()["fpb"].form("official")
CHOICES = general_nlp.CHALLENGE.named()["stem"].form("standard")


# --- which rows ---


def test_rows_are_drawn_by_the_seed_and_the_set():
    rows = drawn_rows("fpb", 304, 50, "seed")
    assert len(rows) == len(set(rows)) == 50
    assert rows == sorted(rows) == drawn_rows("fpb", 304, 50, "seed")
    assert rows != drawn_rows("fiqa", 304, 50, "seed")
    assert rows != drawn_rows("fpb", 304, 50, "another")
    counts = [row for n in range(200) for row in drawn_rows("s", 10, 3, str(n))]
    assert all(30 < counts.count(row) < 95 for row in range(10)), "each is as likely: 60"


def test_a_small_set_is_drawn_whole():
    assert drawn_rows("s", 6, 50, "seed") == list(range(6))
    assert drawn_rows("s", 0, 50, "seed") == []


def test_batches_of_the_official_scorer_stay_whole():
    rows = drawn_rows("fpb", 100, 40, "seed", batch=32)
    batches = {row // 32 for row in rows}
    assert rows == [row for row in range(100) if row // 32 in batches]
    assert 40 <= len(rows) <= 96


# --- one row ---


def answer(text: str, points: int, label: str = "positive", context: str = "Q: ") -> Answer:
    document = {"context": context, "target": "positive"}
    return Answer(document, [text], Outcome(label, points, True))  # type: ignore[arg-type]


def line(text: str, points: float, label: str = "positive", context: str = "Q: ") -> dict[str, Any]:
    said = {"responses": [text], "answer": label, "points": points, "parseable": True}
    return {"row": 0, "context": context, "target": "positive", "checkpoint": said}


def far(context: str, claimed: str, again: str) -> float:
    return 5.0


def near(context: str, claimed: str, again: str) -> float:
    return 1e-5


@pytest.mark.parametrize(
    ("claimed", "now", "gap", "verdict", "why"),
    [
        (line("Q: positive", 1), answer("Q: positive", 1), far, SAME, ""),
        (line("Q: positive", 1), answer("Q: negative", 0, "negative"), far, DIFFERENT,
         "'negative' with 0 points, and in the bundle 'positive' with 1"),
        (line("Q: positive", 1), answer("Q: negative", 0, "negative"), near, TIED,
         "below the best"),
        (line("Q: positive", 1), answer("Q: positive", 0), far, DIFFERENT, "the same text counts"),
        (line("Q: positive", 1, context="R: "), answer("Q: positive", 1), far, DIFFERENT,
         "question or target"),
        (line("Q: positive", 1), answer("Q: negative", 0), lambda *a: None, DIFFERENT, "no token"),
    ],
)  # fmt: skip
def test_one_row(claimed, now, gap, verdict, why):
    found = compare_row(0, claimed, now, FINANCE, 0.01, gap)
    assert found.verdict == verdict
    assert why in found.why


@pytest.mark.parametrize(
    ("responses", "label", "verdict"),
    [
        ([[-1.0, True], [-2.0, False]], "A", SAME),
        ([[-1.001, True], [-2.0, False]], "A", SAME),
        ([[-1.5, True], [-2.0, False]], "A", DIFFERENT),
        ([[-1.0, True]], "A", DIFFERENT),
        ([[-1.005, False], [-1.999, True]], "B", TIED),
    ],
)
def test_choices_are_compared_by_their_likelihoods(responses, label, verdict):
    document = {"context": "Q: ", "target": "A"}
    now = Answer(document, [[-1.0, True], [-2.0, False]], Outcome("A", 1, None))  # type: ignore[arg-type]
    said = {"responses": responses, "answer": label, "points": 1.0, "parseable": None}
    claimed = {**document, "checkpoint": said}
    assert compare_row(0, claimed, now, CHOICES, 0.01, far).verdict == verdict


def test_likelihoods_of_other_choices_have_no_gap():
    assert likelihood_gap([[-1.0, True]], []) is None
    assert likelihood_gap([[-1.0, True]], [[-1.25, True]]) == pytest.approx(0.25)


# --- ties ---


class OneByOne:
    """A tokenizer of characters: 1 ends."""

    eos_token_id = 1

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(char) for char in text]}


class Says:
    """A model whose best next token is "b", with "c" a little below and everything else far."""

    device = torch.device("cpu")

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        scores = torch.full((1, input_ids.shape[1], 128), -9.0)
        scores[..., ord("b")], scores[..., ord("c")], scores[..., 1] = 2.0, 1.75, 1.5
        return SimpleNamespace(logits=scores)


@pytest.mark.parametrize(
    ("claimed", "now", "gap"),
    [
        ("c", "b", 0.25),
        ("bbc", "bbb", 0.25),
        ("xbb", "bbb", 11.0),
        ("b", "bb", 0.5),  # it ended there
        ("bb", "bb", None),
    ],
)
def test_the_first_token_that_differs_is_weighed(claimed, now, gap):
    found = token_gap(Says(), OneByOne(), "aa", claimed, now, whole=False)
    assert found == gap
    assert token_gap(Says(), OneByOne(), "aa", f"aa{claimed}", f"aa{now}", whole=True) == gap


def test_a_difference_in_the_question_is_no_tie():
    assert token_gap(Says(), OneByOne(), "aa", "ax", "ab", whole=True) is None
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1]) == 1


# --- a whole bundle, by the real scorer ---


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a bundle says of the answers to a set."""
    file = folder / layout.ROWS / f"{name}.jsonl"
    rows = [json.loads(text) for text in file.read_text("utf-8").splitlines()]
    for row in rows:
        change(row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def right(row: dict[str, Any]) -> None:
    """The answer that the set wants, as the scorer would note it."""
    said = row["checkpoint"]
    text = f"{row['context']}{row['target']}"
    said |= {"responses": [text], "answer": row["target"], "points": 1.0, "parseable": True}


def rescored(folder: Path, **more: Any) -> list[Finding]:
    rules = scored().rules
    wanted = Wanted(**{"model": rules.model, "data": rules.evaluation, **more})
    with on_record(), opened(folder) as one:
        return rescore(one, 4, "word", wanted)


def test_forged_answers_are_found_and_honest_ones_are_not(tmp_path):
    """One set is forged so that every check without a model passes; the others are left alone."""
    folder = unpacked(tmp_path / "bundle")
    changed(folder, "fiqa", right)
    found = rescored(folder)
    errors = [f for f in found if f.level == "error"]
    assert {f.place.partition(":")[0] for f in errors} == {f"{layout.ROWS}/fiqa.jsonl"}
    assert any("in the bundle" in f.sentence for f in errors)
    notes = {f.place: f.sentence for f in found if f.level == "note"}
    assert set(notes) == {f"{layout.ROWS}/{name}.jsonl" for name in ("fpb", "tfns")}
    assert all("6 rows answered again: 6 as in the bundle." in text for text in notes.values())


@pytest.mark.full
def test_the_answers_of_other_weights_are_found(tmp_path):
    """The answers stay, the adapter is another one: the bundle's weights do not give them."""
    from safetensors.torch import load_file, save_file

    folder = unpacked(tmp_path / "bundle")
    file = folder / layout.WEIGHTS
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        tensors[name] = torch.randn(tensor.shape, generator=generator) * 3
    save_file(tensors, file)
    assert any(f.level == "error" for f in rescored(folder))


@pytest.mark.full
def test_questions_of_ones_own_are_found(tmp_path):
    folder = unpacked(tmp_path / "bundle")
    changed(folder, "fpb", lambda row: row.update(target="positive"))
    found = [f.sentence for f in rescored(folder) if f.level == "error"]
    assert any("question or target" in text for text in found)


def test_a_bundle_without_its_weights_is_a_sentence(tmp_path):
    folder = unpacked(tmp_path / "bundle")
    (folder / layout.WEIGHTS).unlink()
    with pytest.raises(UserError, match="holds no weights"):
        rescored(folder)


@pytest.mark.parametrize(
    "change",
    [{"suite": "--help"}, {"sets": {"x --model=/": {}}}, {"provenance": {"dtype": "int3"}}],
)
def test_what_results_say_is_no_command(tmp_path, change):
    folder = unpacked(tmp_path / "bundle")
    file = folder / layout.SCORES
    body = json.loads(file.read_text())
    if "provenance" in change:
        body["provenance"] |= change["provenance"]
    else:
        body |= change
    file.write_text(json.dumps(body))
    with pytest.raises(UserError):
        rescored(folder)


def test_every_set_has_a_form_that_can_be_compared():
    for name in sets.scored_challenges():
        for item in sets.of_challenge(name).sets:
            kwargs = item.form("official").config()
            assert kwargs["output_type"] in ("generate_until", "multiple_choice")
    assert math.isclose(likelihood_gap([], []) or 0.0, 0.0)


# --- the command ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rescore", "0"], "--rescore is 0"),
        (["--nonce", "word"], "--nonce belongs to a re-score"),
        (["--rescore", "5", "--nonce", "a\nb"], "control characters"),
    ],
)
def test_wrong_options_are_one_sentence(words, says, capsys):
    assert verify.main(["bundle.zip", *words]) == 2
    assert says in capsys.readouterr().err


def test_an_invalid_bundle_is_not_scored_again(tmp_path, capsys):
    (tmp_path / "bundle.zip").write_bytes(b"no zip")
    assert verify.main([str(tmp_path / "bundle.zip"), "--rescore", "5"]) == 1
    assert "INVALID" in capsys.readouterr().out


@pytest.mark.full
def test_verify_reaches_the_tier_of_a_re_score(capsys):
    rules = scored().rules
    words = ["--model", str(rules.model), "--data-dir", str(rules.evaluation), "--nonce", "word"]
    with on_record():
        assert verify.main([str(bundle()), "--rescore", "5", *words, "--format", "json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["tier"] == "re-scored"
    assert report["facts"]["re-score"]["nonce"] == "word"
