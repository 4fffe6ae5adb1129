"""Import what takes seconds while a process waits for something else."""

from collections.abc import Callable
from contextlib import suppress
from threading import Thread

STAYS = "FLOWERTUNE_PROCESS_STAYS"  # in the environment of a process that serves many messages


class Meanwhile:
    """A function that imports, run in a thread; ``done`` waits for it."""

    def __init__(self, imports: Callable[[], object]) -> None:
        def run() -> None:
            with suppress(Exception):  # whoever needs a module imports it again: the error is there
                imports()

        # Not a daemon: a process that ends within the import of an extension may crash.
        self._thread = Thread(target=run, name="imports")
        self._thread.start()

    def done(self) -> None:
        """Wait for it: two threads must not import modules that import each other."""
        self._thread.join()
