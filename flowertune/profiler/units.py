"""Seconds and bytes in few characters: three significant digits and a unit."""

NONE = "-"


def seconds(value: float | None) -> str:
    """Return a duration in µs, ms or s."""
    if value is None:
        return NONE
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        # The next unit takes over where rounding would show four digits.
        if value < 999.5 * factor or unit == "s":
            break
    return f"{_digits(value / factor)} {unit}"


def size(value: float | None) -> str:
    """Return bytes in kB, MB, GB or TB (powers of 1000, as GB/s)."""
    if value is None:
        return NONE
    for factor, unit in ((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")):
        if value < 999.5 * factor or unit == "TB":
            break
    return f"{_digits(value / factor) if factor > 1 else int(value)} {unit}"


def number(value: float | None) -> str:
    """Return a number without a unit."""
    if value is None:
        return NONE
    return f"{value:.2g}" if value < 0.995 else _digits(value)


def percent(value: float | None) -> str:
    """Return a share (0 to 1) in percent."""
    return NONE if value is None else f"{100 * value:.1f} %"


def _digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
