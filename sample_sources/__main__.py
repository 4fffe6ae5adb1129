"""Write the generated training samples: ``python -m sample_sources [--check]``."""

import argparse
import importlib
import json
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_TRAINING = _ROOT / "challenges" / "samples"
NAMES = ("finance", "general-nlp", "medical", "code", "flowertune-llm")


def training_file(name: str) -> tuple[Path, bytes]:
    """Path and exact content of one challenge's generated training sample."""
    module = importlib.import_module(f"sample_sources.{name.replace('-', '_')}")
    lines = [json.dumps(row, ensure_ascii=False) for row in module.rows()]
    return _TRAINING / f"{name}.jsonl", ("\n".join(lines) + "\n").encode()


def main() -> int:
    """Write the files, or with --check say which differ from what would be written."""
    parser = argparse.ArgumentParser(prog="python -m sample_sources", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare only")
    check = parser.parse_args().check
    stale = []
    for name in NAMES:
        path, content = training_file(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif not path.exists() or path.read_bytes() != content:
            stale.append(str(path.relative_to(_ROOT)))
    if stale:
        print(f"{', '.join(stale)}: not what sample_sources makes; run python -m sample_sources")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
