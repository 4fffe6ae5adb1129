"""What verifying a bundle as large as a real one takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from submissions.verify.check import verify
from tests.submissions.large import large_bundle, large_rules

# The published rules know other folders than the tests'; every check is made all the same.
_MEASURED = """
import json, sys, time
from submissions.verify import cli
began = time.perf_counter()
cli.main([sys.argv[1], "--format", "json"])
# Not ru_maxrss, which begins with what the parent had when it started this process.
(used,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
heavy = [name for name in ("torch", "transformers", "datasets", "lm_eval") if name in sys.modules]
seconds = time.perf_counter() - began
print(json.dumps([seconds, int(used) / 2**20, heavy]), file=sys.stderr)
"""


@pytest.mark.full
def test_two_hundred_rounds_take_seconds_and_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "bundle.zip"
    file.write_bytes(large_bundle(tmp_path).zip())
    with large_rules():
        report = verify(file)
    assert report.valid, report.text()
    assert not [f for f in report.findings if f.level == "warning"], report.text()
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(file)], capture_output=True, text=True, check=True
    )
    seconds, gib, heavy = json.loads(ran.stderr.splitlines()[-1])
    assert seconds < 10
    assert gib < 1
    assert heavy == []
