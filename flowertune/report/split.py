"""How rows are dealt out to clients, as flwr-datasets counts and draws it."""

import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from flowertune.base.text import one_line
from flowertune.config.partitioners import Scheme, scheme_of
from flowertune.config.settings import Settings, placeholders
from flowertune.report.svg import STYLE, inline_svg

MOST_LABELS, MOST_LETTERS = 20, 40
LABEL = "Rows of each label in each partition"


@dataclass(frozen=True)
class Split:
    """Rows by partition and label; ``column`` has the labels, and is None where there are none.

    Without labels ``why`` says so, as a clause.
    """

    scheme: Scheme
    partitioner: Any
    rows: int  # of the dataset
    sizes: list[int]
    column: str | None
    why: str = ""

    @property
    def said(self) -> str:
        """One sentence on the split."""
        left = self.rows - sum(self.sizes)
        unused = f", {left:,} of {self.rows:,} rows in none" if left else ""
        return (
            f"{self.scheme}: {min(self.sizes):,} to {max(self.sizes):,} rows in a partition{unused}"
        )

    def table(self) -> str:
        """Return the rows of each label in each partition as lines of text."""
        from flwr_datasets.metrics import compute_counts  # late, as in ``figure``

        counts = compute_counts(self.partitioner, self.column or "")
        counts.columns = [_short(label) for label in counts.columns]
        return counts.to_string()

    def figure(self) -> Figure:
        """Return flwr-datasets' bars: a bar for each partition, a color for each label."""
        # Late: it takes a second, and most pages have no such plot.
        from flwr_datasets.visualization import plot_label_distributions

        # A label may hold dollar signs, which are no formula.
        with matplotlib.rc_context({**STYLE, "text.parse_math": False}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels that are texts and no numbers with names
            figure = Figure(figsize=(9, 4), layout="constrained")
            axes = figure.add_subplot()
            plot_label_distributions(
                self.partitioner, self.column or "", axis=axes, title="", verbose_labels=False
            )
            axes.set(xlabel="partition", ylabel="rows")
            names = [_short(label) for label in axes.get_legend_handles_labels()[1]]
            handles = axes.get_legend_handles_labels()[0]
            figure.legend(handles[::-1], names[::-1], title=_short(self.column),
                          loc="outside right center", frameon=False)  # fmt: skip
        return figure

    def svg(self) -> Markup:
        """Return the figure as an element of a page."""
        figure = self.figure()
        with matplotlib.rc_context({"text.parse_math": False}):
            return inline_svg(figure, LABEL, {})


def split_of(cfg: Settings, partitions: int) -> Split:
    """Return how the rows of a run are dealt out to so many partitions.

    Labels are the column by which they are, or else that of the answers, where it has few values.

    Raises
    ------
    UserError
        If the rows cannot be had, or cannot be dealt out so.
    """
    # Late: it imports datasets, which takes a second, and most pages do without.
    from flowertune.data.rows import dealt_rows

    dataset, scheme = cfg.static.dataset, scheme_of(cfg)
    partitioner = dealt_rows(dataset.name, dataset.revision, cfg.app_dir, partitions, scheme)
    sizes = [len(partitioner.load_partition(number)) for number in range(partitions)]
    rows = partitioner.dataset
    columns = [scheme.column] if scheme.column else []
    columns += sorted(placeholders(dataset.answer))
    why = ""
    for column in (c for c in columns if c in rows.column_names):
        values = len(set(map(str, rows[column])))
        if values <= MOST_LABELS:
            return Split(scheme, partitioner, len(rows), sizes, column)
        why = why or f"{column!r} has {values:,} values, too many to draw"
    return Split(scheme, partitioner, len(rows), sizes, None, why or "there is no column of labels")


def _short(label: Any) -> str:
    return one_line(str(label), MOST_LETTERS)
