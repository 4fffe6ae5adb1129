"""A federation that runs: started, waited for, looked after, stopped."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flowertune.base.errors import UserError
from flowertune.base.text import counted
from flowertune.deploy import control
from flowertune.deploy.keys import public_of
from flowertune.deploy.layout import Layout
from flowertune.deploy.processes import Component, environment_with, stop_marked

Say = Callable[[str], None]
GRACE = 10.0
# A SuperLink refuses a SuperNode that comes back with its key until it has missed the old one,
# which takes it about a minute. One that ends this soon so many times would do so for ever.
SOON, PAUSE, TRIES = 20.0, 10.0, 12


@dataclass
class Federation:
    """A SuperLink and SuperNodes that were started together."""

    connection: str
    superlink: Component
    supernodes: list[Component]
    environment: dict[str, str]

    def look_after(self, say: Say, restart: bool) -> None:
        """Bring back SuperNodes that have ended, where ``restart`` says so.

        Raises
        ------
        UserError
            If the SuperLink has ended, or a SuperNode cannot be kept alive.
        """
        refuse_if_ended(self.superlink)
        for node in self.supernodes:
            how = node.ended()
            if how is None or node.given_up:
                continue
            now = time.monotonic()
            if not node.told:
                node.told = True
                node.short_lives = node.short_lives + 1 if now - node.started < SOON else 0
                then = "it stays away" if not restart else "it is started again"
                later = f" in {PAUSE:g} s" if restart and node.short_lives else ""
                say(f"{node.name} (pid {node.pid}) {how}; {then}{later}.")
            if not restart:
                node.given_up = True
            elif node.short_lives >= TRIES:
                raise UserError(f"{node.name} keeps failing ({how}); its log ends:\n{node.tail()}")
            elif not node.short_lives or now - node.started >= PAUSE:
                node.start()
                say(f"{node.name} runs again (pid {node.pid}).")


@contextmanager
def federation(layout: Layout, connection: str, timeout: float, say: Say) -> Iterator[Federation]:
    """Start a federation and wait until every SuperNode is there; stop all of it at the end.

    Parameters
    ----------
    connection
        The name of the connection to it in Flower's configuration, which must be written.
    timeout
        Seconds to wait for the SuperLink, and again for the SuperNodes.

    Raises
    ------
    UserError
        If a component ends early or does not come up, with the end of its log.
    """
    mark = uuid.uuid4().hex
    everyone = environment_with(mark, os.environ)
    layout.folder.mkdir(parents=True, exist_ok=True)
    superlink = _component(layout, "superlink", layout.superlink(), everyone)
    supernodes = [
        _component(
            layout,
            f"supernode-{number}",
            layout.supernode(number),
            {**everyone, **layout.environment(number)},
        )
        for number in range(len(layout.node_ports))
    ]
    running = Federation(connection, superlink, supernodes, everyone)
    try:
        superlink.start()
        ca = layout.certificates.ca if layout.certificates else None
        _wait(lambda: control.healthy(layout.address, ca), [superlink], superlink, timeout)
        say(f"SuperLink (pid {superlink.pid}) answers on {layout.address}, {layout.secured_by}.")
        for key in layout.keys:
            control.register(connection, public_of(key))
        for node in supernodes:
            node.start()
        _wait(
            lambda: control.supernodes(connection)["online"] >= len(supernodes),
            [superlink, *supernodes],
            supernodes[-1],
            timeout,
        )
        pids = ", ".join(str(node.pid) for node in supernodes)
        say(f"{counted(len(supernodes), 'SuperNode')} (pid {pids}) joined.")
        yield running
    finally:
        # SuperNodes first: they say goodbye to a SuperLink that is still there
        for node in supernodes:
            if node.process is not None and node.process.poll() is None:
                node.process.terminate()
        for component in (*supernodes, superlink):
            component.stop(GRACE)
        stop_marked(mark, GRACE)


def refuse_if_ended(component: Component) -> None:
    """Raise a UserError with the end of its log if a component has ended."""
    if how := component.ended():
        raise UserError(
            f"The {component.name} {how}; its log, {component.log}, ends:\n{component.tail()}"
        )


def _component(
    layout: Layout, name: str, command: list[str], environment: dict[str, str]
) -> Component:
    log = layout.folder / f"{name}.log"
    log.write_text("", "utf-8")
    return Component(name, command, environment, log)


def _wait(
    ready: Callable[[], bool], alive: list[Component], blamed: Component, timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        for component in alive:
            refuse_if_ended(component)
        if time.monotonic() > deadline:
            raise UserError(
                f"The federation is not complete after {timeout:g} s (--timeout); the log of "
                f"{blamed.name}, {blamed.log}, ends:\n{blamed.tail()}"
            )
        time.sleep(0.3)
