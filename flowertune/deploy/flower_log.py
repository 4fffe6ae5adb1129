"""What Flower and Ray say in a run that no reader can do anything about: kept out of its log.

Each line is left out by its exact text, and only because nothing else switches it off: Flower logs
them without a condition, and what Ray advises would change which GPUs a client sees. A release
that words them otherwise shows them again. An error that a user can mend is shown as its sentence,
without the way it took through Flower; any other error keeps its traceback.
"""

import logging
import re
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from flowertune.base.errors import UserError

LOGGER = "flwr"
RAISED = "%s raised an exception"  # Simulation, ServerApp
# What the Simulation Engine logs three times of a client's error; the run names it once itself.
IN_A_CLIENT = "An exception was raised when processing a message by %s"
USERS = re.compile(rf"\b{re.escape(UserError.__module__)}\.\w+: ")
EXIT_CODE = "Exit Code: "
SAYS_NOTHING = frozenset(
    {
        # Said in every simulation; how many there are is its next line.
        "Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.",
        # `flowertune connect` is the way.
        "To change federation size, use the following command:",
        "\tflwr federation simulation-config %s <superlink> --num-supernodes <N>",
        # How every worker ends.
        "Manually terminating %s",
        # The end of a run without an error.
        "",
    }
)
WARNINGS = (
    "Tip: In future versions of Ray, Ray will no longer override accelerator",
    "`torch.jit.script_method` is deprecated",  # said of torch's own code, by torch
)


class FlowerFilter(logging.Filter):
    """Leaves out lines that say nothing, and what Flower adds to the sentence of a user's error."""

    def __init__(self) -> None:
        super().__init__()
        self._said: str | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged; the one of a user's error becomes a sentence."""
        text = record.msg
        if text == RAISED and record.exc_info and isinstance(record.exc_info[1], UserError):
            self._said = str(record.exc_info[1])
            record.msg, record.args, record.exc_info = self._said, (), None
            return True
        if _of_a_client(text):
            return False
        if self._said is not None:
            # Flower's exit code has a code and no reason; a run repeats its own below that.
            return text != self._said and not str(text).startswith(EXIT_CODE)
        return text not in SAYS_NOTHING


def _of_a_client(text: object) -> bool:
    """Whether a record is one of a user's error in a client: its heading, itself, its traceback."""
    raised = sys.exc_info()[1]
    if raised is None or not USERS.search(str(raised)):
        return False
    return text == IN_A_CLIENT or text is raised or USERS.search(str(text)) is not None


def keep_readable() -> None:
    """Let this process's Flower log only what says something."""
    logger = logging.getLogger(LOGGER)
    if any(isinstance(each, FlowerFilter) for each in logger.filters):
        return
    logger.addFilter(FlowerFilter())
    # Not a filter of warnings: Flower puts one of its own in front of those that are there.
    warnings.showwarning = _without(warnings.showwarning)


def _without(show: Callable[..., None]) -> Callable[..., None]:
    @wraps(show)
    def shows(message: Warning | str, *where: Any, **more: Any) -> None:
        if not str(message).startswith(WARNINGS):
            show(message, *where, **more)

    return shows
