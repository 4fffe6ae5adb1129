"""Keep libraries' remarks out of a command's output."""

import logging


def quiet_libraries() -> None:
    """Leave out progress bars, and bitsandbytes' remark on a kernel it can do without."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from flowertune.base.quiet import disable_progress_bars

    disable_progress_bars()
