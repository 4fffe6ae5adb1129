"""evaluation.sandbox: what hostile programs can do in each sandbox, and what is left of them."""

import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from evaluation import programs
from evaluation.programs import Outcome, Program, Readiness, run_one
from evaluation.sandbox import job, layers
from evaluation.sandbox.shown import shown_paths, tool_folder
from tests.evaluation.hostile import HOSTILE, fill
from tests.evaluation.kernel import MEMORY, attempts
from tests.evaluation.machine import LAYERS, TOOLS, built, why_not

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes are Linux's")

# what the official rule lets pass; with strict it does not
PASSES = {
    ("leaves early", "js"),
    ("leaves early", "cpp"),
    ("patches the harness", "js"),
    ("patches the harness", "cpp"),
    ("looks for the token", "js"),
    ("looks for the token", "cpp"),
}
HARMLESS = {"leaves children", "prints a gigabyte"}
# these run until the time is over, and get little of it
WAITED_FOR = {"endless loop", "sleeper"}
EXPECTED = {
    "endless loop": {"timed out"},
    "sleeper": {"timed out"},
    # a program that runs into a limit either gives up by itself or is stopped
    "fork bomb": {"processes", "memory", "timed out", "failed"},
    "memory hog": {"memory", "failed"},
    "disk filler": {"disk", "failed"},
    **{name: {"memory"} for name in MEMORY},
    "makes many files": {"disk"},
}


@dataclass
class Host:
    """This machine, as a hostile program would find it, and what it did to it."""

    folders: list[str]
    secret: Path
    word: str
    mark: str
    port: int
    visits: list[object] = field(default_factory=list)
    outcomes: dict[tuple[str, str, bool], Outcome] = field(default_factory=dict)
    left_running: list[int] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    def program(self, name: str, language: str, strict: bool = False) -> Program:
        code = fill(
            HOSTILE[name][language],
            secret=self.secret,
            word=self.word,
            port=self.port,
            mark=self.mark,
            folders=self.folders,
        )
        return Program(language, code, strict)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def tag():
    """A word in the environment of every program started here, so that others' do not count."""
    word = f"/nonexistent-{secrets.token_hex(8)}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "_PATH", f"{programs._PATH}:{word}")
        yield word


def running(tag: str) -> set[int]:
    """Processes of this machine that a program with this tag started, or that hold its sandbox."""
    pids = {child.pid for child in psutil.Process().children(recursive=True)}
    found = set(filter(in_sandbox, pids))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if tag.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(int(pid))
    return found


def in_sandbox(pid: int) -> bool:
    """Whether a process is in a process namespace below ours."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) > 2
    return False


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    word = secrets.token_hex(8)
    (home / "secret").write_text(word)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERTUNE_TEST_SECRET", word)
        patch.setenv("HOME", str(home))
        # a folder that anybody may write, in a place that the sandboxes show
        shared = Path(sys.prefix, f"flowertune-test-{word}")
        with suppress(OSError):
            shared.mkdir()
            shared.chmod(0o777)
        folders = [
            str(home),
            str(shared),
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/",
            os.getcwd(),
            sys.prefix,
            "/usr",
        ]
        facts = Host(folders, home / "secret", word, f"mark-{word}", listener.getsockname()[1])
        threading.Thread(target=answer, args=(listener, facts.visits), daemon=True).start()
        yield facts
        for folder in folders:
            Path(folder, facts.mark).unlink(missing_ok=True)
        if shared.exists():
            shared.rmdir()


def answer(listener, visits):
    while True:
        try:
            visits.append(listener.accept())
        except OSError:
            return


@contextmanager
def seconds(number):
    """Let programs have this much CPU time, and twice as much wall time."""
    with pytest.MonkeyPatch.context() as patch:
        for language in ("PYTHON", "JS", "CPP"):
            patch.setattr(programs, f"{language}_SECONDS", number)
        patch.setattr(programs, "WALL_FACTOR", 2)
        yield


@pytest.fixture(scope="module")
def short_limits():
    with pytest.MonkeyPatch.context() as patch, seconds(3):
        patch.setattr(job, "MEMORY", 400 * 2**20)
        patch.setattr(job, "DISK", 40 * 2**20)
        yield


def tools():
    missing = [name for name in TOOLS if shutil.which(name) is None]
    assert not missing, f"these tests need {' and '.join(missing)} on PATH"
    return {"js": str(shutil.which("node")), "cpp": str(shutil.which("g++"))}


@pytest.fixture(scope="module", params=LAYERS)
def contained(request, host, short_limits, tag):
    """All hostile programs in one kind of sandbox: two at a time, or all that take their time."""
    ready = Readiness(built(request.param), tools())
    keys = [
        (name, language, strict)
        for name, versions in HOSTILE.items()
        for language in versions
        for strict in ([False, True] if (name, language) in PASSES else [False])
    ]
    waited_for = [key for key in keys if key[0] in WAITED_FOR]
    others = [key for key in keys if key[0] not in WAITED_FOR]

    def run(keys, at_once):
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [
                pool.submit(run_one, host.program(*key), ready, number)
                for number, key in enumerate(keys)
            ]
        return dict(zip(keys, [job.result() for job in jobs], strict=True))

    host.visits.clear()
    with seconds(1):
        host.outcomes = run(waited_for, len(waited_for))
    host.outcomes |= run(others, 2)
    host.left_running = sorted(running(tag))
    host.left_behind = [path for path in host.folders if Path(path, host.mark).exists()]
    return host


def test_every_attack_fails(contained):
    assert len(contained.outcomes) >= 13 * 3
    passed = {key for key, outcome in contained.outcomes.items() if outcome.passed}
    let_pass = {(*key, False) for key in PASSES}
    assert {key for key in passed if key[0] not in HARMLESS} == let_pass
    assert {key for key in contained.outcomes if key[0] in HARMLESS} <= passed


@pytest.mark.parametrize("name", EXPECTED)
def test_the_limit_that_stopped_it_is_named(contained, name):
    for language in HOSTILE[name]:
        outcome = contained.outcomes[name, language, False]
        assert outcome.status in EXPECTED[name], (language, outcome)
        # the sandbox itself stops it; that the sandbox is given up on is for sandboxes that hang
        assert "did not answer" not in outcome.detail, (language, outcome)


def test_leaving_early_is_called_so(contained):
    for language, strict in (("python", False), ("js", True), ("cpp", True)):
        assert contained.outcomes["leaves early", language, strict].status == "exited early"


def test_the_token_is_in_no_file_and_no_variable(contained):
    for language, strict in (("python", False), ("js", True), ("cpp", True)):
        outcome = contained.outcomes["looks for the token", language, strict]
        assert outcome.status == "exited early", (language, outcome)


def test_nothing_is_left_running(contained):
    assert contained.left_running == []


def test_nothing_is_left_behind_and_nothing_was_reached(contained):
    assert contained.left_behind == []
    assert contained.visits == []


def test_what_is_said_of_a_gigabyte_is_short(contained):
    for language in ("python", "js", "cpp"):
        assert len(contained.outcomes["prints a gigabyte", language, False].detail) <= 500


@pytest.mark.parametrize("language", ["python", "js", "cpp"])
def test_without_a_sandbox_the_same_attacks_work(host, short_limits, language):
    """The control: these programs fail in a sandbox because of the sandbox."""
    ready = Readiness(layers.unsandboxed(), tools())
    host.visits.clear()
    assert run_one(host.program("reads home and environment", language), ready).passed
    assert run_one(host.program("network", language), ready).passed
    assert len(host.visits) == 1
    home = [str(host.secret.parent)]
    host.folders, before = home, host.folders
    try:
        assert not run_one(host.program("writes outside", language), ready).passed
    finally:
        host.folders = before
    mark = host.secret.parent / host.mark
    assert mark.exists()
    mark.unlink()


def test_without_a_sandbox_limits_hold_and_nothing_stays(host, short_limits, tag):
    ready = Readiness(layers.unsandboxed(), tools())
    with seconds(1):
        assert run_one(host.program("endless loop", "python"), ready).status == "timed out"
    for name, status in {"memory hog": "memory", "leaves children": "passed"}.items():
        assert run_one(host.program(name, "python"), ready).status == status
    assert running(tag) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="CI, where both sandboxes are tested, runs as root")
def test_no_sandbox_is_left_out():
    """Where this fails, the tests of a sandbox were skipped: CI has to give what it needs."""
    assert {name: why_not(name) for name in LAYERS} == dict.fromkeys(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_the_kernel_is_closed(name):
    column = 0 if platform.machine() == "x86_64" else 1
    outcome = run_one(Program("python", attempts(column)), Readiness(built(name), {}))
    assert outcome.detail == "Exception: open:", outcome


def test_the_kernel_is_open_without_a_sandbox():
    """The control: these calls are closed by the sandbox, not by this machine."""
    column = 0 if platform.machine() == "x86_64" else 1
    script = Path(__file__).with_name("kernel.py")
    done = subprocess.run(
        [sys.executable, str(script), str(column)], capture_output=True, text=True, timeout=60
    )
    found = done.stderr.rpartition("open: ")[2]
    for name in (
        "memfd_create",
        "semget",
        "shmget",
        "vmsplice",
        "much shared memory",
        "AF_NETLINK",
    ):
        assert name in found


def test_some_sandbox_works_here():
    """Where this fails, model-written code cannot be scored safely: CI has to provide one."""
    assert programs.check(()).layer.private


def test_all_sandboxes_can_be_ended_at_once(tag):
    sandboxes = job.Sandboxes()
    ready = programs.check(())
    with ThreadPoolExecutor(1) as pool:
        program = Program("python", "while True: pass")
        running_one = pool.submit(run_one, program, ready, 0, sandboxes)
        assert wait_until(lambda: running(tag))
        sandboxes.end()
        with pytest.raises(programs.UserError, match=r"sandbox .* failed"):
            running_one.result(timeout=5)
    assert wait_until(lambda: not running(tag), seconds=4)


def test_a_sandbox_ends_with_the_process_that_started_it(tag):
    code = (
        "from evaluation import programs\n"
        f"programs._PATH = {tag!r}\n"
        "programs.run_all([programs.Program('python', 'import time; time.sleep(1000)')])"
    )
    scorer = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        # the trial of the sandbox comes first and is soon over
        assert wait_until(lambda: any(map(asleep, running(tag))))
    finally:
        scorer.kill()
        scorer.wait()
    assert wait_until(lambda: not running(tag), seconds=4)


def asleep(pid):
    """Whether a process is a Python program that sleeps."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/wchan").read_text()
        return b"Runs one Python program" in command and "nanosleep" in state
    return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_only_tools_and_libraries_are_shown(tmp_path, monkeypatch):
    shown = shown_paths(TOOLS)
    assert "/usr" in shown.binds
    homes = {str(Path.home()), *map(str, Path.home().parents), "/home", "/etc", "/var", "/tmp"}
    assert homes.isdisjoint(shown.binds)
    assert all(Path(path).exists() for path in shown.binds)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/opt/node/bin/node", "/opt/node"),
        ("/home/me/.nvm/v20/bin/node", "/home/me/.nvm/v20"),
        ("/home/me/bin/node", "/home/me/bin/node"),
        ("/home/me/node", "/home/me/node"),
        ("/home/bin/node", "/home/bin/node"),
        ("/opt/tools/node", "/opt/tools"),
    ],
)
def test_a_tool_is_shown_with_its_installation_but_never_a_home(program, shown):
    assert tool_folder(Path(program), Path("/home/me")) == Path(shown)
