"""General NLP: three categories of MMLU. Run as `python -m evaluation.general_nlp CKPT`."""

from typing import Any

from evaluation import mcq, prompts
from evaluation.columns import text, texts, whole_number, words
from evaluation.sets import Challenge, EvalSet, Hub, Rows

CATEGORIES = {
    "stem": [
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ],
    "social-sciences": [
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ],
    "humanities": [
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ],
}
# The official data are lukaemon/mmlu, a loading script that `datasets` 4 refuses.
_HUB = Hub(
    "cais/mmlu", ("test",), config="all", revision="c30699e8356da336a370243923dbaf21066bb9fe"
)
_ABOUT = (
    "The following are multiple choice questions (with answers) about "
    "{{subject.replace('_', ' ')}}.\n\n"
)


def question(row: dict[str, Any]) -> tuple[str, str]:
    """Body of the prompt, and the letter of the answer (0 is A)."""
    return prompts.question_block(row["question"], row["choices"]), "ABCD"[row["answer"]]


def _with_target(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "target": "ABCD"[row["answer"]]}


def _category(name: str) -> EvalSet:
    subjects = CATEGORIES[name]

    def pick(rows: Rows) -> Rows:
        return [row for subject in subjects for row in rows if row["subject"] == subject]

    return EvalSet(
        name=name,
        hub=_HUB,
        columns={
            "question": words(),
            "subject": text(),
            "choices": texts(4),
            "answer": whole_number(0, 3),
        },
        whole=14042,
        chance=1 / 4,
        forms={
            "official": mcq.official(
                question,
                "Answer the following multiple choice question.",
                "letter",
                ("a", "b", "c", "d"),
            ),
            "standard": mcq.builtin("mmlu/default/_default_template_yaml", _with_target, _ABOUT),
        },
        texts=lambda row: (row["question"], *row["choices"]),
        pick=pick,
        pick_always=True,
    )


CHALLENGE = Challenge([_category(name) for name in CATEGORIES])


if __name__ == "__main__":
    from evaluation.cli import main

    main("general-nlp")
