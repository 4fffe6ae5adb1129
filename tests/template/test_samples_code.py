"""Every program among the code samples runs and does what its tests ask for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sample_sources import code

ROOT = Path(__file__).parents[2]
EVALUATION = ROOT / "evaluation" / "samples" / "code"
# MultiPL-E rows have no solution of their own.
REFERENCES = json.loads((ROOT / "tests" / "sample_references.json").read_text("utf-8"))
CPP_HEAD = "#include<assert.h>\n#include<bits/stdc++.h>\n"

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def run_cpp(program: str, folder: Path) -> None:
    source, binary = folder / "program.cpp", folder / "program"
    source.write_text(program)
    run("g++", source, "-o", binary, "-std=c++17")
    run(binary)


def run_js(program: str, folder: Path) -> None:
    source = folder / "program.js"
    source.write_text(program)
    run("node", source)


def cpp_value(value: Any) -> str:
    if isinstance(value, list):
        return f"std::vector<int>{{{', '.join(map(str, value))}}}"
    if isinstance(value, str):
        return f"std::string({json.dumps(value)})"
    return json.dumps(value)


def solved(rows: list[dict]) -> list[tuple[dict, str]]:
    assert {row["name"] for row in rows} <= set(REFERENCES)
    return [(row, row["prompt"] + REFERENCES[row["name"]]) for row in rows]


def test_python_training_rows_pass_the_test_they_show():
    rows = [row for row in read_rows(code_file()) if row["output"].startswith("def ")]
    assert len(rows) >= 300
    for row in rows:
        exec(row["output"] + "\n" + row["input"], {})


@needs_node
def test_javascript_training_rows_agree_with_python(tmp_path):
    program = ["const assert = require('node:assert');"]
    for task in code.tasks():
        program.append("{\n" + task.source("js"))
        for call, result in zip(task.calls, task.results(), strict=True):
            arguments = ", ".join(json.dumps(value) for value in call)
            program.append(
                f"assert.deepStrictEqual({task.name}({arguments}), {json.dumps(result)});"
            )
        program.append("}")
    assert len(program) > 300
    run_js("\n".join(program), tmp_path)


@needs_compiler
def test_cpp_training_rows_agree_with_python(tmp_path):
    functions, calls = [], []
    for number, task in enumerate(code.tasks()):
        functions.append(f"namespace task{number} {{\n{task.source('cpp')}\n}}")
        for call, result in zip(task.calls, task.results(), strict=True):
            arguments = ", ".join(map(cpp_value, call))
            calls.append(
                f"assert((task{number}::{task.name}({arguments}) == {cpp_value(result)}));"
            )
    assert len(calls) > 300
    body = "\n".join([*functions, "int main() {", *calls, "}"])
    run_cpp(CPP_HEAD + body, tmp_path)


def test_training_rows_hold_the_tasks():
    outputs = {row["output"] for row in read_rows(code_file())}
    sources = {task.source(language) for task in code.tasks() for language in ("py", "js", "cpp")}
    assert outputs == sources


def code_file() -> Path:
    return ROOT / "challenges" / "samples" / "code.jsonl"


def test_mbpp_solutions_pass():
    rows = read_rows(EVALUATION / "mbpp.jsonl")
    assert len(rows) >= 8
    for row in rows:
        exec("\n".join([row["code"], *row["test_list"]]), {})


def test_humaneval_solutions_pass():
    rows = read_rows(EVALUATION / "humaneval.jsonl")
    assert len(rows) >= 8
    for row in rows:
        check = f"check({row['entry_point']})"
        exec("\n".join([row["prompt"] + row["canonical_solution"], row["test"], check]), {})


@needs_node
def test_javascript_solutions_pass(tmp_path):
    rows = read_rows(EVALUATION / "multiple_js.jsonl")
    assert len(rows) >= 8
    for row, program in solved(rows):
        run_js(program + "\n" + row["tests"], tmp_path)


@needs_compiler
def test_cpp_solutions_pass(tmp_path):
    rows = read_rows(EVALUATION / "multiple_cpp.jsonl")
    assert len(rows) >= 8
    programs = []
    for number, (row, program) in enumerate(solved(rows)):
        headless = program.removeprefix(CPP_HEAD) + "\n" + row["tests"]
        # One compiler run for all: each program in its own namespace, each main under its own name.
        programs.append(f"namespace sample{number} {{\n{headless}\n}}")
    calls = "".join(f"sample{number}::main();" for number in range(len(rows)))
    text = "\n".join(programs).replace("int main()", "void main()")
    run_cpp(f"{CPP_HEAD}{text}\nint main() {{ {calls} }}", tmp_path)


def test_the_runner_notices_a_wrong_program():
    with pytest.raises(AssertionError, match="wrong"):
        run(sys.executable, "-c", "raise SystemExit('wrong')")
