"""What MMLU and the medical sets have in common: a prompt shell, one answer token, one rule."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evaluation import prompts, score
from evaluation.sets import Form, Outcome, Rows, each, point

Likelihood = tuple[
    float, bool
]  # lm-eval's answer about one choice: its log-likelihood, and whether greedy

# The official scorer lets every answer of a batch be as long as the first gold answer of the batch.
OFFICIAL_BATCH = 16


def official(
    question: Callable[[dict[str, Any]], tuple[str, str]],
    instruction: str,
    kind: str,
    choices: tuple[str, ...],
) -> Form:
    """The leaderboard's form: greedy generation of as many tokens as the gold answer has.

    Args:
        question: a row as (body of the prompt, gold answer).
        instruction: stands above the body.
        kind: of answer, for `score.exam_answer`.
        choices: the answers that could be right, in lower case.
    """

    def documents(rows: Rows) -> Rows:
        pairs = [question(row) for row in rows]
        return [
            {
                "context": prompts.exam(instruction, body),
                "target": gold,
                "as_long_as": pairs[index - index % OFFICIAL_BATCH][1],
            }
            for index, (body, gold) in enumerate(pairs)
        ]

    def grade(document: dict[str, Any], responses: list[str]) -> Outcome:
        answer = score.exam_answer(responses[0], kind)
        return Outcome(answer, point(answer == document["target"].lower()), answer in choices)

    config = {
        "output_type": "generate_until",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "length_of": "as_long_as",
            "unmasked": "tokenizer's end token pads",
        },
    }
    return Form(documents, lambda: config, grade)


def builtin(
    file: str, adapt: Callable[[dict[str, Any]], dict[str, Any]], about: str | None = None
) -> Form:
    """lm-eval's own multiple-choice task, on rows of this package.

    Args:
        file: its YAML file under lm-eval's `tasks` folder.
        adapt: a row with the columns that task expects.
        about: a Jinja text to put in front of the prompt, for what lm-eval calls the description.
    """

    def config() -> dict[str, Any]:
        task = _builtin_task(file)
        keys = ("output_type", "doc_to_text", "doc_to_target", "doc_to_choice")
        config = {key: task[key] for key in keys}
        return config if about is None else {**config, "doc_to_text": about + config["doc_to_text"]}

    def grade(document: dict[str, Any], responses: list[Likelihood]) -> Outcome:
        choices = _builtin_task(file)["doc_to_choice"]
        return most_likely(choices, document["target"], responses)

    return Form(each(adapt), config, grade)


@cache
def _builtin_task(file: str) -> dict[str, Any]:
    # lm-eval takes seconds to import, which a mistyped command need not wait for.
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(Path(lm_eval.tasks.__path__[0]) / file)


def most_likely(choices: list[str], target: str, responses: list[Likelihood]) -> Outcome:
    """The choice with the highest log-likelihood; the first of them where several are equal."""
    likelihoods = [likelihood for likelihood, _ in responses]
    answer = choices[likelihoods.index(max(likelihoods))]
    return Outcome(answer, point(answer == target))
