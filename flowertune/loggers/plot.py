"""A picture of a finished run: loss and communication over the rounds."""

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowertune.base.files import write_atomically

INK, LOSS, TRAFFIC = "#333333", "#1f6fb4", "#c8641e"


def plot_run(path: Path, losses: list[float], mib: list[float], title: str) -> None:
    """Draw loss (left axis) and MiB communicated so far (right axis) by round, as a PNG.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    rounds = range(1, len(losses) + 1)
    figure = Figure(figsize=(7.5, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rounds, losses, color=LOSS, marker="o" if len(losses) < 40 else None, markersize=4)
    axes.set_xlabel("round", color=INK)
    axes.set_ylabel("loss per answer token", color=LOSS)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    traffic = axes.twinx()
    traffic.plot(rounds, mib, color=TRAFFIC, linestyle="--")
    traffic.set_ylabel("communicated so far (MiB)", color=TRAFFIC)
    traffic.set_ylim(bottom=0)
    # A name may hold dollar signs, which are no formula.
    axes.set_title(title, color=INK, fontsize=11, parse_math=False)
    png = BytesIO()
    figure.savefig(png, format="png")
    write_atomically(path, png.getvalue())
