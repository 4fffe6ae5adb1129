"""Medical: prompts, gold answers, and PubMedQA's 500 test questions in their order."""

import json
import random

import pytest
from lm_eval.tasks.careqa.utils import doc_to_text as careqa_text

import challenges
from evaluation import data, medical
from evaluation.data import Source

SETS = medical.CHALLENGE.named()
IDS = json.loads(medical.PUBMEDQA_TEST_IDS.read_text(encoding="utf-8"))


def pubmedqa_rows():
    """A thousand made-up rows, in no order, that have the official test ids among them."""
    ids = [int(name) for name in IDS] + list(range(500))
    random.Random(0).shuffle(ids)
    return [
        {
            "pubid": n,
            "question": f"Is it {n}?",
            "context": {"contexts": ["First.", "Second."]},
            "final_decision": "yes",
        }
        for n in ids
    ]


def test_pubmedqa_picks_500_rows_in_the_published_order(tmp_path):
    lines = [json.dumps(row) for row in pubmedqa_rows()]
    (tmp_path / "pubmedqa.jsonl").write_text("\n".join(lines))
    found = data.load(SETS["pubmedqa"], Source("folder", tmp_path), 500)
    assert found.status == "unverified"
    assert len(found.documents) == 500
    assert IDS[:2] == ["12377809", "26163474"]
    assert f"Is it {IDS[0]}?" in found.documents[0]["context"]
    assert f"Is it {IDS[499]}?" in found.documents[499]["context"]


def test_pubmedqa_is_read_from_its_publishers_file_too(tmp_path):
    published = {
        str(row["pubid"]): {
            "QUESTION": row["question"],
            "CONTEXTS": row["context"]["contexts"],
            "final_decision": row["final_decision"],
        }
        for row in pubmedqa_rows()
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(published))
    found = data.load(SETS["pubmedqa"], Source("folder", tmp_path), 500)
    assert found.status == "unverified"
    assert found.origin["file"] == "ori_pqal.json"
    assert found.documents[0]["context"].startswith(
        "<|im_start|>question\nAs an expert doctor in clinical science and medical knowledge, can "
        "you tell me if the following statement is correct? Answer yes, no, or maybe.\nFirst.\n"
        f"Second.\nIs it {IDS[0]}?\nThe answer is:\n<|im_end|>\n<|im_start|>answer\n"
    )


def test_test_ids_are_500_different_ones():
    assert len(IDS) == len(set(IDS)) == 500


@pytest.mark.parametrize(
    ("question", "row", "gold"),
    [
        (medical.medmcqa, {"opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 0}, "A"),
        (medical.medmcqa, {"opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3}, "D"),
        (medical.careqa, {"op1": "w", "op2": "x", "op3": "y", "op4": "z", "cop": 1}, "A"),
        (medical.careqa, {"op1": "w", "op2": "x", "op3": "y", "op4": "z", "cop": 4}, "D"),
        (
            medical.medqa,
            {"options": {"B": "x", "A": "w", "D": "z", "C": "y"}, "answer": "x"},
            "B",
        ),
        (
            medical.medqa,
            {"options": {"A": "w", "B": "x", "C": "x", "D": "z"}, "answer": "x"},
            "B",
        ),
    ],
)
def test_gold_answers(question, row, gold):
    body, found = question({"question": "Which", **row})
    assert found == gold
    assert body.startswith("Question: Which?\n\nOptions:\nA. w\nB. x\nC. ")


def test_careqas_row_without_a_question_is_the_one_lm_eval_fills_in():
    row = {"question": None, "op1": None, "op2": None, "op3": None, "op4": None, "cop": 4}
    body, gold = medical.careqa(row)
    theirs = careqa_text(row)
    question, options = theirs.removesuffix("\nAnswer:").split("\nChoices:\n")
    assert body == f"{question}?\n\nOptions:\n{options}"
    assert gold == "D"


@pytest.mark.parametrize("name", SETS)
def test_the_standard_form_names_the_same_gold_answer(name):
    rows = data.read_jsonl(data.SAMPLES / "medical" / SETS[name].file)
    official = SETS[name].form("official").documents(rows)
    standard = SETS[name].form("standard").documents(rows)
    assert [d["target"] for d in official] == [d["target"] for d in standard]
    config = SETS[name].form("standard").config()
    for document in standard:
        target = config["doc_to_target"]
        found = target(document) if callable(target) else document[target]
        choices = config["doc_to_choice"]
        assert (choices[found] if isinstance(found, int) else found) == document["target"]


def test_sets_are_those_of_the_challenge():
    entries = challenges.load("medical")["evaluation"]["sets"]
    assert list(SETS) == [entry["set"] for entry in entries]
