"""evaluation.sandbox.output: what a program leaves comes out by name, and up to a size."""

import sys
from pathlib import Path

import pytest

from evaluation.sandbox.job import Limits, Verdict, run_job
from evaluation.sandbox.layers import FOLDER, Room, python_path
from evaluation.sandbox.output import Output
from tests.evaluation.machine import LAYERS, why_not

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes are Linux's")


def left(name: str, code: str, target: Path, room: Room | None = None, **limits: int) -> Verdict:
    """Run a program that writes into the folder ``out``; its files come to ``target``."""
    from evaluation.sandbox import layers

    if reason := why_not(name):
        pytest.skip(f"{name}: {reason}")
    layer = getattr(layers, name)([], room)
    program = f"import os\\nos.mkdir('out')\\nos.chdir('out')\\n{code}".replace("\\n", "\n")
    step = {
        "argv": [python_path(), "-I", "-S", "-c", program], "stdin": None, "cpu": 10, "wall": 20,
        "space": None, "env": {}, "token": None, "until_end": True,
    }  # fmt: skip
    output = Output(f"{FOLDER}/out", target, most=1000, files=3)
    return run_job(layer, {}, [step], limits=Limits(**limits), output=output)


@pytest.mark.parametrize("name", LAYERS)
def test_regular_files_come_out(name, tmp_path):
    code = "open('a.bin', 'wb').write(bytes(range(256)) * 2)\nopen('b', 'w')\nos.mkdir('c')"
    assert left(name, code, tmp_path / "new").status == "passed"
    assert {p.name: p.stat().st_size for p in (tmp_path / "new").iterdir()} == {
        "a.bin": 512,
        "b": 0,
    }
    assert (tmp_path / "new" / "a.bin").read_bytes() == bytes(range(256)) * 2


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("open('a', 'w').write('x' * 1001)", "more than 1,000 bytes"),
        ("[open(n, 'w').write('x' * 400) for n in 'abc']", "more than 1,000 bytes"),
        ("[open(n, 'w') for n in 'abcd']", "more than 3 files"),
        ("open('A B', 'w')", "a file named"),
        ("open('.hidden', 'w')", "a file named"),
        ("open('x' * 101, 'w')", "a file named"),
        ("os.chdir('..'); os.rmdir('out')", "No such file"),
        ("os.chdir('..'); os.rmdir('out'); os.symlink('/etc', 'out')", ""),
    ],
)
def test_anything_else_is_refused(tmp_path, code, says):
    verdict = left("bubblewrap", code, tmp_path / "new")
    if says:
        assert verdict.status == "output"
        assert says in verdict.detail
    # Nothing of this machine is in there: /etc of the sandbox holds what it shows anybody.
    names = [path.name for path in (tmp_path / "new").iterdir()]
    assert "passwd" not in names
    assert sum(path.stat().st_size for path in (tmp_path / "new").iterdir()) <= 1000


def test_links_are_not_followed(tmp_path):
    code = "os.symlink('/proc/1/environ', 'a')\nos.symlink('/usr/bin/env', 'b')\nos.mkfifo('c')"
    assert left("bubblewrap", code, tmp_path / "new").status == "passed"
    assert list((tmp_path / "new").iterdir()) == []


def test_a_program_that_fails_says_so_and_not_its_files(tmp_path):
    verdict = left("bubblewrap", "open('A B', 'w')\nraise SystemExit('oh')", tmp_path / "new")
    assert (verdict.status, verdict.detail.strip()) == ("failed", "oh")


@pytest.mark.parametrize("name", LAYERS)
def test_a_path_of_ones_own_is_shown_and_cannot_be_written(name, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "x").write_text("hello")
    code = (
        "text = open('/here/there/x').read()\n"
        "try:\n    open('/here/there/x', 'w')\nexcept OSError:\n    open('a', 'w').write(text)"
    )
    room = Room({"/here/there": str(tmp_path / "given")})
    assert left(name, code, tmp_path / "new", room).status == "passed"
    assert (tmp_path / "new" / "a").read_text() == "hello"
    assert (tmp_path / "given" / "x").read_text() == "hello"


def test_limits_of_ones_own(tmp_path):
    code = "b = [bytes(2**20) * 100 for _ in range(3)]\nimport time\ntime.sleep(1)"
    assert left("bubblewrap", code, tmp_path / "one", memory=100 * 2**20).status == "memory"
    assert left("bubblewrap", code, tmp_path / "two").status == "passed"
