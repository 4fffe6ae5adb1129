"""How long ``flowertune plan`` takes beside a process that only imports what it needs.

Alternating, each in a process of its own: the imports, a plan whose shapes are worked out, and the
same plan again, from kept shapes. Prints the medians of wall time: ``python -m benchmarks.plan``.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import copier

ROOT = Path(__file__).parent.parent
IMPORTS = (
    "import torch, peft; from transformers import AutoConfig, AutoModelForCausalLM; "
    "peft.LoraConfig, peft.get_peft_model"
)


def main(repeats: int = 7) -> None:
    """Measure, and print."""
    with TemporaryDirectory(prefix="plan-") as name:
        folder = Path(name)
        copier.run_copy(
            str(ROOT),
            folder / "app",
            data={"challenge": "finance"},
            vcs_ref="HEAD",
            defaults=True,
            quiet=True,
        )
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "FLOWERTUNE_CACHE": str(folder / "cache")}
        plan = [sys.executable, "-m", "flowertune", "plan", "--app", str(folder / "app")]
        times: dict[str, list[float]] = {"imports": [], "plan": [], "plan again": []}
        for _ in range(repeats):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            times["imports"].append(seconds([sys.executable, "-c", IMPORTS], env))
            times["plan"].append(seconds(plan, env))
            times["plan again"].append(seconds(plan, env))
    for what, taken in times.items():
        print(f"{what:12} {median(taken):6.2f} s   ({min(taken):.2f} to {max(taken):.2f})")
    beyond = median(a - b for a, b in zip(times["plan"], times["imports"], strict=True))
    print(f"plan beyond the imports: {beyond:.2f} s")


def seconds(words: Sequence[str], env: Mapping[str, str]) -> float:
    """Return how long a command takes."""
    start = time.perf_counter()
    subprocess.run(words, env=env, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
