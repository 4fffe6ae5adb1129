"""A run goes on only under the settings it was started with."""

from collections.abc import Mapping
from typing import Any

from flowertune.errors import UserError

# These may differ between a run and its continuation: they change nothing of the result.
MAY_DIFFER = ("resume-from", "results-dir", "profile.enabled")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on under other settings.

    Raises
    ------
    UserError
        With every setting that differs.
    """
    keys = sorted((before.keys() | now.keys()) - set(MAY_DIFFER))
    found = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in keys
        if before.get(key) != now.get(key)
    ]
    if found:
        raise UserError(
            "a run goes on only with the settings it was started with: "
            + "; ".join(found)
            + " (resume-from)."
        )
