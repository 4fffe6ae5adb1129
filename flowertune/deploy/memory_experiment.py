"""The Aggregation Memory Experiment: the same models averaged in both modes, one run a cell."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowertune.base.errors import UserError
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
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
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
    lines = run / "rounds.jsonl"
    if about["status"] != "finished" or not lines.is_file():
        return Cell(model, None, clients, mode, bucket_mib, reason=about["reason"] or "no round")
    line = json.loads(lines.read_text("utf-8").splitlines()[0])
    found: dict[str, Any] = line["aggregation"]
    return Cell(
        model,
        round(found["model-bytes"] / 1e9, 2),
        clients,
        mode,
        bucket_mib,
        found["peak-rss-mib"],
        found["peak-anonymous-mib"],
        found["before-anonymous-mib"],
        round(line["received-bytes"] / 1e9, 2),
        line["seconds"],
        found["gb-per-s"],
        found["sha256"],
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
    """Draw peak memory by the model's size, a line for each mode and number of clients."""
    figure = Figure(figsize=(9.5, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    done = [cell for cell in cells if cell.reason is None]
    for place, (name, key) in enumerate((("anonymous", "peak_anonymous"), ("RSS", "peak_rss"))):
        axes = figure.add_subplot(1, 2, place + 1)
        for mode in dict.fromkeys(cell.mode for cell in done):
            for i, clients in enumerate(sorted({cell.clients for cell in done})):
                line = sorted(
                    (cell.model_gb or 0, asdict(cell)[key])
                    for cell in done
                    if (cell.mode, cell.clients) == (mode, clients)
                )
                if line:
                    axes.plot(
                        *zip(*line, strict=True), color=COLORS.get(mode, INK), marker="o",
                        linestyle=("-", "--", ":", "-.")[i % 4], label=f"{mode}, {clients} clients",
                    )  # fmt: skip
        axes.set_xlabel("model (GB)", color=INK)
        axes.set_ylabel(f"peak {name} memory (MiB)", color=INK)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        if place == 0 and done:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def write(cells: Sequence[Cell], folder: Path) -> None:
    """Write the table, the plot and the numbers into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.md").write_text(f"{table(cells)}\n{WHAT}\n", "utf-8")
    lines = "".join(json.dumps(asdict(cell), sort_keys=True) + "\n" for cell in cells)
    (folder / "memory.jsonl").write_text(lines, "utf-8")
    plot(cells, folder / "memory.png")
