"""Medical: PubMedQA, MedMCQA, MedQA, CareQA. Run as `python -m evaluation.medical CKPT`."""

import json
from pathlib import Path
from typing import Any

from evaluation import mcq, prompts
from evaluation.columns import (
    exactly,
    fields,
    one_of,
    problem,
    text,
    text_or_none,
    texts,
    whole_number,
    words,
)
from evaluation.sets import Challenge, EvalSet, Hub, Rows
from evaluation.text_files import read_json_object
from flowertune.base.errors import UserError
from flowertune.base.text import one_line

# The 500 ids of the labeled test set in the order of its publishers' test_ground_truth.json.
PUBMEDQA_TEST_IDS = Path(__file__).parent / "pubmedqa_test_ids.json"

# The instructions are those of the official scorer, which took them from Meditron's evaluation.
_PUBMEDQA = (
    "As an expert doctor in clinical science and medical knowledge, can you tell me if the "
    "following statement is correct? Answer yes, no, or maybe."
)
_MEDQA = (
    "You are a medical doctor taking the US Medical Licensing Examination. You need to demonstrate "
    "your understanding of basic and clinical science, medical knowledge, and mechanisms "
    "underlying health, disease, patient care, and modes of therapy. Show your ability to apply "
    "the knowledge essential for medical practice. For the following multiple-choice question, "
    "select one correct answer from A to E. Base your answer on the current and standard practices "
    "referenced in medical guidelines."
)
_EXAM = (
    "You are a medical doctor answering realworld medical entrance exam questions. Based on your "
    "understanding of basic and clinical science, medical knowledge, and mechanisms underlying "
    "health, disease, patient care, and modes of therapy, answer the following multiple-choice "
    "question. Select one correct answer from A to D. Base your answer on the current and standard "
    "practices referenced in medical guidelines."
)
# CareQA has one row without a question (exam 36 of 2024); lm-eval's task puts this in its place.
_CAREQA_MISSING = {
    "question": "In relation to the immune mechanism involved in the rejection of transplanted "
    "solid organs, indicate the incorrect answer:",
    "op1": "Acute T-cell mediated rejection can be controlled through the use of drugs such as "
    "cyclosporine A or corticosteroids.",
    "op2": "The presence of specific antibodies against the donor (DSA) in the recipient prior to "
    "transplantation is a contraindication for it.",
    "op3": "Chronic rejection or chronic graft injury is associated with endothelial damage "
    "mediated by anti-HLA antibodies.",
    "op4": "Hyperacute rejection is mediated by cytotoxic T lymphocytes against donor antigens "
    "present in the recipient.",
    "cop": 4,
}

_PUBLISHED = {"QUESTION": words(), "CONTEXTS": texts(), "final_decision": text()}


def pubmedqa_test(rows: Rows) -> Rows:
    """The 500 labeled test questions among the 1,000, in the official order."""
    by_id = {str(row["pubid"]): row for row in rows}
    ids = json.loads(PUBMEDQA_TEST_IDS.read_text(encoding="utf-8"))
    return [by_id[name] for name in ids if name in by_id]


def read_pubmedqa_json(path: Path) -> Rows:
    """Rows out of ori_pqal.json as its publishers ship it, with the columns of the hub."""
    published = read_json_object(path)
    for name, entry in published.items():
        wrong = problem(_PUBLISHED, entry) if isinstance(entry, dict) else "is no object"
        if wrong or not name.isdecimal():
            raise UserError(
                f"entry {one_line(name, 40)} of {path} {wrong or 'is no PubMed id'}: give "
                "ori_pqal.json as its publishers ship it"
            )
    return [
        {
            "pubid": int(name),
            "question": entry["QUESTION"],
            "context": {"contexts": entry["CONTEXTS"]},
            "final_decision": entry["final_decision"],
        }
        for name, entry in published.items()
    ]


def pubmedqa(row: dict[str, Any]) -> tuple[str, str]:
    """All parts of the abstract, then the question; yes, no or maybe."""
    body = "\n".join([*row["context"]["contexts"], row["question"]])
    return body, row["final_decision"]


def medmcqa(row: dict[str, Any]) -> tuple[str, str]:
    """Options opa to opd; cop counts from 0."""
    options = [row[name] for name in ("opa", "opb", "opc", "opd")]
    return prompts.question_block(row["question"], options), "ABCD"[row["cop"]]


def medqa(row: dict[str, Any]) -> tuple[str, str]:
    """Options by letter; the gold answer is the first option with the answer's text."""
    letters = sorted(row["options"])
    options = [row["options"][letter] for letter in letters]
    gold = next(letter for letter in letters if row["options"][letter] == row["answer"])
    return prompts.question_block(row["question"], options), gold


def _answer_is_an_option(row: dict[str, Any]) -> str | None:
    if row["answer"] in row["options"].values():
        return None
    return f"has answer {one_line(repr(row['answer']), 60)}, which is none of its options"


def careqa(row: dict[str, Any]) -> tuple[str, str]:
    """Options op1 to op4; cop counts from 1."""
    row = _careqa_filled(row)
    options = [row[name] for name in ("op1", "op2", "op3", "op4")]
    return prompts.question_block(row["question"], options), "ABCD"[row["cop"] - 1]


def _careqa_filled(row: dict[str, Any]) -> dict[str, Any]:
    return row if row["question"] is not None else {**row, **_CAREQA_MISSING}


def _careqa_is_whole(row: dict[str, Any]) -> str | None:
    options = [name for name in ("op1", "op2", "op3", "op4") if row[name] is None]
    if row["question"] is None or not options:
        return None
    return f"has {options[0]} None, and the set needs a text there"


def _standard_pubmedqa(row: dict[str, Any]) -> dict[str, Any]:
    decision = row["final_decision"]
    return {
        "QUESTION": row["question"],
        "CONTEXTS": list(row["context"]["contexts"]),
        "final_decision": decision,
        "target": decision,
    }


def _standard_medmcqa(row: dict[str, Any]) -> dict[str, Any]:
    columns = ("question", "opa", "opb", "opc", "opd", "cop")
    return {**{name: row[name] for name in columns}, "target": medmcqa(row)[1]}


def _standard_medqa(row: dict[str, Any]) -> dict[str, Any]:
    gold = medqa(row)[1]
    endings = {f"ending{n}": row["options"][letter] for n, letter in enumerate("ABCD")}
    return {"sent1": row["question"], **endings, "label": "ABCD".index(gold), "target": gold}


def _standard_careqa(row: dict[str, Any]) -> dict[str, Any]:
    filled = _careqa_filled(row)
    columns = ("question", "op1", "op2", "op3", "op4", "cop")
    return {**{name: filled[name] for name in columns}, "target": careqa(row)[1]}


def _of_columns(row: dict[str, Any], *options: str) -> tuple[str, ...]:
    return tuple(row[name] for name in ("question", *options))


_LETTERS = ("a", "b", "c", "d")

CHALLENGE = Challenge(
    [
        EvalSet(
            name="pubmedqa",
            # The official data are bigbio/pubmed_qa, a loading script that `datasets` 4 refuses.
            hub=Hub(
                "qiaojin/PubMedQA",
                ("train",),
                config="pqa_labeled",
                revision="9001f2853fb87cab8d220904e0de81ac6973b318",
            ),
            columns={
                "pubid": whole_number(0, 10**12),
                "question": words(),
                "context": fields(contexts=texts()),
                "final_decision": one_of("yes", "no", "maybe"),
            },
            whole=1000,
            chance=1 / 3,
            forms={
                "official": mcq.official(pubmedqa, _PUBMEDQA, "boolean", ("yes", "no", "maybe")),
                "standard": mcq.builtin("pubmedqa/pubmedqa.yaml", _standard_pubmedqa),
            },
            texts=lambda row: (row["question"], *row["context"]["contexts"]),
            pick=pubmedqa_test,
            other_files={"ori_pqal.json": read_pubmedqa_json},
        ),
        EvalSet(
            name="medmcqa",
            hub=Hub("openlifescienceai/medmcqa", ("validation",)),
            columns={
                "question": words(),
                **{name: text() for name in ("opa", "opb", "opc", "opd")},
                "cop": whole_number(0, 3),
            },
            no_columns=("ope", "opf"),
            whole=4183,
            chance=1 / 4,
            forms={
                "official": mcq.official(medmcqa, _EXAM, "letter", _LETTERS),
                "standard": mcq.builtin("medmcqa/medmcqa.yaml", _standard_medmcqa),
            },
            texts=lambda row: _of_columns(row, "opa", "opb", "opc", "opd"),
        ),
        EvalSet(
            name="medqa",
            # The official data are bigbio/med_qa, a loading script that `datasets` 4 refuses.
            hub=Hub("GBaker/MedQA-USMLE-4-options", ("test",)),
            columns={
                "question": words(),
                "options": exactly(A=text(), B=text(), C=text(), D=text()),
                "answer": text(),
            },
            check=_answer_is_an_option,
            whole=1273,
            chance=1 / 4,
            forms={
                "official": mcq.official(medqa, _MEDQA, "letter", _LETTERS),
                "standard": mcq.builtin("medqa/medqa.yaml", _standard_medqa),
            },
            texts=lambda row: (row["question"], *row["options"].values()),
        ),
        EvalSet(
            name="careqa",
            hub=Hub("HPAI-BSC/CareQA", ("test",), config="CareQA_en"),
            columns={
                "question": text_or_none(),
                **{name: text_or_none() for name in ("op1", "op2", "op3", "op4")},
                "cop": whole_number(1, 4),
            },
            no_columns=("op5", "op6"),
            check=_careqa_is_whole,
            whole=5621,
            chance=1 / 4,
            forms={
                "official": mcq.official(careqa, _EXAM, "letter", _LETTERS),
                "standard": mcq.builtin("careqa/careqa_en.yaml", _standard_careqa),
            },
            texts=lambda row: _of_columns(_careqa_filled(row), "op1", "op2", "op3", "op4"),
        ),
    ]
)


if __name__ == "__main__":
    from evaluation.cli import main

    main("medical")
