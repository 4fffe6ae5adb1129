"""One check: ``python -m tests.gpu.one CHECK BENCH RESULT``."""

import sys
import time
import traceback
from pathlib import Path

from tests.gpu.bench import Bench, Failed, Skipped, forget, peak
from tests.gpu.checks import CHECKS
from tests.gpu.table import Row, Status


def run(name: str, bench: Bench) -> Row:
    """Run a check, whatever comes of it."""
    begin = time.monotonic()
    status: Status
    try:
        status, result = "passed", CHECKS[name](bench)
    except Skipped as error:
        status, result = "skipped", f"skipped: {error}"
    except Failed as error:
        status, result = "failed", str(error)
    except Exception as error:
        traceback.print_exc()
        status, result = "failed", f"{type(error).__name__}: {str(error)[:400]}"
    row = Row(name, status, time.monotonic() - begin, peak(), result)
    forget()
    return row


if __name__ == "__main__":
    check, bench, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    output.write_text(run(check, Bench.load(bench)).to_json(), "utf-8")
