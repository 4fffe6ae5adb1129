"""Import what takes seconds while a process waits for something else."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

STAYS = "FLOWERTUNE_PROCESS_STAYS"  # in the environment of a process that serves many messages


@contextmanager
def uncollected() -> Iterator[None]:
    """Import within this context without looking for garbage: a fourth of the time of an import.

    What is imported is millions of objects that stay, and Python looks through them again and
    again; afterwards they are left out of every later look.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Meanwhile:
    """A function that imports, run in a thread; ``done`` waits for it."""

    def __init__(self, imports: Callable[[], object]) -> None:
        # Importing is all Python, and a thread that waits for Python's lock would wait 5 ms for it
        # each time: those that talk with other processes meanwhile do so thousands of times.
        before = sys.getswitchinterval()

        def run() -> None:
            sys.setswitchinterval(min(before, 0.0005))
            try:
                with uncollected():
                    imports()
            except Exception:  # whoever needs a module imports it again, and gets the error
                pass
            finally:
                sys.setswitchinterval(before)

        # Not a daemon: a process that ends within the import of an extension may crash.
        self._thread = Thread(target=run, name="imports")
        self._thread.start()

    def done(self) -> None:
        """Wait for it: two threads must not import modules that import each other."""
        self._thread.join()


_begun: dict[Callable[[], object], Meanwhile] = {}


def begin(imports: Callable[[], object]) -> None:
    """Begin to run a function that imports, once in a process."""
    if imports not in _begun:
        _begun[imports] = Meanwhile(imports)


def finish(imports: Callable[[], object]) -> None:
    """Wait for what was begun, if anything was."""
    if imports in _begun:
        _begun[imports].done()
