"""The Aggregation Memory Experiment: the same models averaged in both modes, one run a cell."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowertune.base.errors import UserError
from flowertune.base.files import read_jsonl, write_atomically, write_jsonl
from flowertune.config.settings import ALL_AT_ONCE, LAYERWISE

INK = "#333333"
COLORS = {LAYERWISE: "#1f6fb4", ALL_AT_ONCE: "#c8641e"}
WHAT = (
    "Peak memory is that of the process in which the ServerApp runs, from the first question of a "
    "round to the mean's last byte. In the Simulation Engine that process is Flower's "
    "`flwr-simulation`, which holds the engine and the messages on their way as well. RSS counts "
    'pages of mapped files and of Ray\'s shared memory, anonymous memory does not; "before" is '
    "the anonymous memory when the round began."
)


@dataclass(frozen=True)
class Cell:
    """One run, and what it took; MiB, GB and seconds. None where it did not come to it."""

    model: str
    model_gb: float | None
    clients: int
    mode: str
    bucket_mib: float
    peak_rss: float | None = None
    peak_anonymous: float | None = None
    before: float | None = None
    received_gb: float | None = None
    seconds: float | None = None
    gb_per_s: float | None = None
    sha256: str | None = None
    reason: str | None = None


def settings_of(
    model: str, mode: str, results: Path, bucket_mib: float, more: Sequence[str]
) -> str:
    """Return the run-config of one run."""
    return " ".join(
        [
            f"model.name='{model}'",
            f"aggregation.mode='{mode}'",
            f"aggregation.bucket-mb={bucket_mib}",
            f"results-dir='{results}'",
            "train.training-arguments.max-steps=0 model.quantization=0 num-server-rounds=1",
            "strategy.fraction-train=1.0",
            *more,
        ]
    )


def run_cell(
    app: Path,
    superlink: str | None,
    model: str,
    clients: int,
    mode: str,
    bucket_mib: float,
    results: Path,
    more: Sequence[str],
) -> Cell:
    """Run one cell with ``flwr run`` and read what the run recorded.

    Raises
    ------
    UserError
        If flwr itself fails, with the end of what it said.
    """
    results.mkdir(parents=True, exist_ok=True)
    before = set(results.iterdir())
    words = ["flwr", "run", ".", *([superlink] if superlink else []), "--stream"]
    words += ["--run-config", settings_of(model, mode, results.resolve(), bucket_mib, more)]
    words += ["--federation-config", f"num-supernodes={clients} client-resources-num-cpus=1"]
    # the flwr of this environment, whether or not it is activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": path}
    done = subprocess.run(
        words, cwd=app, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False,
    )  # fmt: skip
    new = sorted(set(results.iterdir()) - before)
    if not new or not (new[0] / "run.json").is_file():
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise UserError(f"{shlex.join(words[:3])} failed; it said:\n{tail}")
    return read_cell(new[0], model, clients, mode, bucket_mib)


def read_cell(run: Path, model: str, clients: int, mode: str, bucket_mib: float) -> Cell:
    """Return what a run's folder says."""
    about = json.loads((run / "run.json").read_text("utf-8"))
    rounds = read_jsonl(run / "rounds.jsonl")
    if about["status"] != "finished" or not rounds:
        return Cell(model, None, clients, mode, bucket_mib, reason=about["reason"] or "no round")
    line = rounds[0]
    result: dict[str, Any] = line["aggregation"]
    return Cell(
        model,
        round(result["model-bytes"] / 1e9, 2),
        clients,
        mode,
        bucket_mib,
        result["peak-rss-mib"],
        result["peak-anonymous-mib"],
        result["before-anonymous-mib"],
        round(line["received-bytes"] / 1e9, 2),
        line["seconds"],
        result["gb-per-s"],
        result["sha256"],
    )


def table(cells: Iterable[Cell]) -> str:
    """Return the cells as a Markdown table."""
    head = (
        "| model | GB | clients | mode | peak RSS (MiB) | peak anonymous (MiB) | before (MiB) | "
        "received (GB) | seconds | GB/s |\n"
        "| :---- | -: | ------: | :--- | -------------: | -------------------: | -----------: | "
        "------------: | ------: | ---: |\n"
    )
    return head + "".join(_row(cell) for cell in cells)


def _row(cell: Cell) -> str:
    start = f"| {cell.model} | {_n(cell.model_gb, 2)} | {cell.clients} | {cell.mode} | "
    if cell.reason is not None:
        return f"{start}{cell.reason} | | | | | |\n"
    numbers = [
        _n(cell.peak_rss, 0), _n(cell.peak_anonymous, 0), _n(cell.before, 0),
        _n(cell.received_gb, 2), _n(cell.seconds, 1), _n(cell.gb_per_s, 2),
    ]  # fmt: skip
    return f"{start}{' | '.join(numbers)} |\n"


def _n(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Draw the peak memory of every run: a group of bars for each model, a bar for each run."""
    done = [cell for cell in cells if cell.reason is None]
    kinds = list(dict.fromkeys((cell.mode, cell.clients) for cell in done))
    counts = sorted({clients for _, clients in kinds})
    models = list(dict.fromkeys((cell.model, cell.model_gb) for cell in done))
    height = 1.6 + 0.35 * len(done)
    figure = Figure(figsize=(9.5, max(3.2, height)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, key) in enumerate((("anonymous", "peak_anonymous"), ("RSS", "peak_rss"))):
        axes = figure.add_subplot(1, 2, place + 1)
        for number, kind in enumerate(kinds):
            bars = {
                models.index((cell.model, cell.model_gb)): asdict(cell)[key]
                for cell in done
                if (cell.mode, cell.clients) == kind
            }
            drawn = axes.barh(
                [model + 0.8 * ((number + 0.5) / len(kinds) - 0.5) for model in bars],
                list(bars.values()),
                height=0.8 / len(kinds),
                color=COLORS.get(kind[0], INK),
                alpha=1 - 0.7 * counts.index(kind[1]) / len(counts),
                label=f"{kind[0]}, {kind[1]} clients",
            )
            axes.bar_label(drawn, fmt="{:,.0f}", padding=2, fontsize=7, color=INK)
        axes.set_yticks(
            range(len(models)), [f"{model.split('/')[-1]}\n{gb:g} GB" for model, gb in models]
        )
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_xlabel(f"peak {name} memory (MiB)", color=INK)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        if place == 0 and done:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4,
                          frameon=False, fontsize=8)  # fmt: skip
    figure.savefig(path)


def write(cells: Sequence[Cell], folder: Path) -> None:
    """Write the table, the plot and the numbers into ``folder``."""
    write_atomically(folder / "memory.md", f"{table(cells)}\n{WHAT}\n")
    write_jsonl(folder / "memory.jsonl", map(asdict, cells))
    plot(cells, folder / "memory.png")
