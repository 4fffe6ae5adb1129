"""General NLP: prompts, categories and lm-eval's own form."""

from pathlib import Path

import lm_eval.tasks
import pytest
import yaml
from jinja2 import Template

import challenges
from evaluation import general_nlp
from evaluation.general_nlp import CATEGORIES

MMLU = Path(lm_eval.tasks.__path__[0]) / "mmlu" / "default"
SETS = general_nlp.CHALLENGE.named()
ROW = {
    "question": "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over "
    "Q.",
    "choices": ["0", "4", "2", "6"],
    "answer": 1,
    "subject": "abstract_algebra",
}


def test_the_prompt_is_the_official_one():
    (document,) = SETS["stem"].form("official").documents([ROW])
    assert document["context"] == (
        "<|im_start|>question\nAnswer the following multiple choice question.\n"
        "Question: Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) "
        "over Q."
        "\n\nOptions:\nA. 0\nB. 4\nC. 2\nD. 6\nThe answer is:\n<|im_end|>\n<|im_start|>answer\n"
    )
    assert document["target"] == "B"


@pytest.mark.parametrize(
    ("question", "shown"), [("Is it", "Is it?"), ("Is it?", "Is it?"), ("It is:", "It is:?")]
)
def test_a_question_gets_a_question_mark(question, shown):
    (document,) = SETS["stem"].form("official").documents([{**ROW, "question": question}])
    assert f"Question: {shown}\n\n" in document["context"]


def subject_files():
    found = [yaml.safe_load(path.read_text()) for path in MMLU.glob("mmlu_*.yaml")]
    assert len(found) == 57
    return found


def test_categories_are_those_of_lm_eval():
    for name, subjects in CATEGORIES.items():
        tag = f"mmlu_{name.replace('-', '_')}_tasks"
        assert set(subjects) == {f["dataset_name"] for f in subject_files() if f["tag"] == tag}
    assert sum(map(len, CATEGORIES.values())) == 44


def test_the_standard_form_is_the_text_of_lm_evals_own_tasks():
    template = yaml.safe_load((MMLU / "_default_template_yaml").read_text())
    config = SETS["stem"].form("standard").config()
    assert config["output_type"] == template["output_type"] == "multiple_choice"
    assert config["doc_to_choice"] == template["doc_to_choice"]
    for file in subject_files():
        row = {**ROW, "subject": file["dataset_name"]}
        theirs = file["description"] + Template(template["doc_to_text"]).render(row)
        ours = Template(config["doc_to_text"]).render(row)
        assert ours == theirs


def test_subjects_come_in_the_official_order():
    rows = [{"subject": name, "n": n} for n in range(2) for name in ("virology", "anatomy")]
    rows += [{"subject": "abstract_algebra", "n": 5}]
    picked = SETS["stem"].pick(rows)
    assert [(row["subject"], row["n"]) for row in picked] == [
        ("abstract_algebra", 5),
        ("anatomy", 0),
        ("anatomy", 1),
    ]


def test_sets_are_those_of_the_challenge():
    entries = challenges.load("general-nlp")["evaluation"]["sets"]
    assert list(SETS) == [entry["set"] for entry in entries]


def test_answers_may_be_as_long_as_the_first_gold_answer_of_the_official_batch():
    rows = [{**ROW, "answer": n % 4} for n in range(40)]
    documents = SETS["stem"].form("official").documents(rows)
    assert [d["as_long_as"] for d in documents] == ["A"] * 40
    rows[16]["answer"] = 3
    documents = SETS["stem"].form("official").documents(rows)
    assert [d["as_long_as"] for d in documents] == ["A"] * 16 + ["D"] * 16 + ["A"] * 8
