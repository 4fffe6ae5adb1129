"""The table that a person pastes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["passed", "failed", "skipped"]
_SHORT: dict[Status, str] = {"passed": "✓", "failed": "✗", "skipped": "-"}


@dataclass(frozen=True)
class Row:
    """One check: seconds, the most memory of tensors in GB where it was measured, and what it
    found."""

    check: str
    status: Status
    seconds: float
    peak: float | None
    result: str

    def to_json(self) -> str:
        """Return it as a line that ``from_json`` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Row":
        """Read what ``to_json`` wrote."""
        return Row(**json.loads(text))


def markdown(card: str, model: str, version: str, rows: Sequence[Row]) -> str:
    """Return the table, with what it was measured on above it."""
    lines = [
        f"Card: {card}",
        f"Model: {model}",
        f"Version: {version}",
        "",
        "| check | | seconds | peak, GB | result |",
        "| :-- | :-: | --: | --: | :-- |",
    ]
    for row in rows:
        peak = "" if row.peak is None else f"{row.peak:.2f}"
        # A bar or a line's end would break the table.
        result = " ".join(row.result.split()).replace("|", "\\|")
        lines.append(
            f"| {row.check} | {_SHORT[row.status]} | {row.seconds:,.0f} | {peak} | {result} |"
        )
    counts = {status: sum(row.status == status for row in rows) for status in _SHORT}
    seconds = sum(row.seconds for row in rows)
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join([*lines, "", f"{said}; {seconds / 60:.1f} minutes in all"]) + "\n"
