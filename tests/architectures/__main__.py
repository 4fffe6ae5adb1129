"""Write the record of the sweep anew: ``python -m tests.architectures [ARCHITECTURE ...]``.

Two architectures at a time; those that are not named stay as they are on record. `scripts/generate`
then writes docs/models.md from it.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.apps import rendered
from tests.architectures.processes import run
from tests.architectures.result import Result, record
from tests.architectures.tiny import causal_architectures


def main() -> int:
    """Check the architectures that are named, or all; returns the exit status."""
    every = causal_architectures()
    names = sys.argv[1:] or every
    if unknown := sorted({*names} - {*every}):
        print(f"transformers has no causal architecture {unknown[0]!r}", file=sys.stderr)
        return 2
    rendered("finance")  # once, before threads ask for it
    start = time.monotonic()
    results: dict[str, Result] = {}

    def one(name: str) -> None:
        results[name] = result = run(name)
        print(f"{len(results)}/{len(names)} {name}: {result.outcome} {result.text}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, names))
    minutes = round((time.monotonic() - start) / 60) if not sys.argv[1:] else None
    record(results, minutes)
    return any(result.outcome == "fault" for result in results.values())


if __name__ == "__main__":
    raise SystemExit(main())
