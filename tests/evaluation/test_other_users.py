"""The sandboxes of a user without rights, and of root in a namespace that has no other user.

The tests of test_sandbox.py run as whoever runs the tests: root in CI.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evaluation.sandbox.identity import is_master
from tests.evaluation.kernel import MEMORY, attempts
from tests.evaluation.machine import LAYERS, as_user, why_not

ROOT = Path(__file__).parents[2]
USER = 54321
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes are Linux's"),
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0,
        reason="only root can become others; the tests of test_sandbox.py run as this user",
    ),
]
PROGRAMS = {
    "honest": "from multiprocessing.pool import ThreadPool\n"
    "with ThreadPool(2) as pool: assert pool.map(len, ['a']) == [1]",
    "closed": attempts(0 if platform.machine() == "x86_64" else 1),
    "who": "import os\nassert os.getuid() != 0 and os.getgid() != 0, os.getuid()\n"
    "assert 'CapEff:\\t' + 16 * '0' in open('/proc/self/status').read()",
    "hides": MEMORY["hides its mappings"],
    "kills": "import posix\nfor pid in (1, -1):\n    try: posix.kill(pid, 9)\n"
    "    except OSError: pass\nassert False",
}
SCRIPT = """
import json, sys
from evaluation import programs
from evaluation.sandbox import job, layers
job.MEMORY = 200 * 2**20
found = {}
for name in json.loads(sys.argv[1]):
    ready = programs.Readiness(getattr(layers, name)(()), {})
    programs.check = lambda *given, **more: ready
    given = [programs.Program("python", code) for code in json.load(open(sys.argv[2])).values()]
    found[name] = [[one.status, one.detail] for one in programs.run_all(given)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place():
    """A copy of the code that anybody may read, and a Python that anybody may run."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("evaluation", "flowertune"):
            shutil.copytree(ROOT / name, Path(folder, name))
        Path(folder, "programs.json").write_text(json.dumps(PROGRAMS))
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        for python in (sys.executable, "/usr/bin/python3"):
            command = [python, "-c", "import sys; assert sys.version_info >= (3, 11)"]
            try:
                if subprocess.run(command, **as_user(USER), capture_output=True).returncode == 0:
                    yield folder, python
                    return
            except OSError:
                continue
        pytest.skip("no Python 3.11 here that another user may run")


def check(place, before, user):
    folder, python = place
    reasons = {name: why_not(name, user) for name in LAYERS}
    possible = [name for name, reason in reasons.items() if reason is None]
    if not possible:
        pytest.skip(str(reasons))
    done = subprocess.run(
        [*before, python, "-c", SCRIPT, json.dumps(possible), f"{folder}/programs.json"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        **as_user(user),
    )
    assert done.returncode == 0, done.stderr
    for name, outcomes in json.loads(done.stdout).items():
        found = dict(zip(PROGRAMS, outcomes, strict=True))
        assert found["honest"][0] == found["who"][0] == "passed", (name, found)
        assert found["closed"][1] == "Exception: open:", (name, found)
        assert found["hides"][0] == "memory", (name, found)
        assert found["kills"][0] == "failed", (name, found)


def test_a_user_without_rights(place):
    check(place, [], USER)


def test_root_of_a_namespace_with_one_user(place):
    check(place, ["unshare", "--user", "--map-root-user"], None)


def test_who_may_give_programs_users_of_their_own(tmp_path):
    def found(capabilities, *maps):
        status = tmp_path / "status"
        status.write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
        for kind in ("uid", "gid"):
            (tmp_path / f"{kind}_map").write_text("\n".join(maps))
        return is_master(str(status), str(tmp_path / "{}_map"))

    everything = 0x1FFFFFFFFFF
    assert found(everything, "0 0 4294967295")
    assert found(everything, "0 1000 1", "1 100000 65536")
    assert not found(everything, "0 1000 1")
    assert not found(everything, "0 0 55000")
    # of a container: no CAP_SYS_ADMIN
    assert not found(0xA80425FB, "0 0 4294967295")
