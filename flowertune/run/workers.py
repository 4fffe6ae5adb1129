"""The Simulation Engine's workers: one that was killed is replaced.

Flower puts a worker back into its pool after every message, a dead one as well, and takes the
one that was put back last. A dead worker fails at once, so it would be given all later messages.
"""

import sys
from logging import WARNING
from typing import Any

from flwr.common import log
from flwr.serverapp import Grid


def in_simulation(grid: Grid) -> bool:
    """Whether this process is that of the Simulation Engine, which holds the clients' workers."""
    return type(grid).__name__ == "InMemoryGrid"


def replace_dead_workers() -> None:
    """Let Flower's pool of workers start a new one in place of one that died.

    The message that it was given is lost: what killed the worker may kill the next one, too.
    """
    # Late: Ray is there in the Simulation Engine only.
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    died = (RayActorError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)

    def add_actor_back_to_pool(pool: Any, future: Any) -> None:
        actor = pool._future_to_actor.pop(future)
        # Flower calls this after an answer, and while it handles what ended a message without one.
        if isinstance(sys.exc_info()[1], died):
            log(
                WARNING, "a client's worker process died (killed, or out of memory); a new one "
                "takes its place",
            )  # fmt: skip
            actor = pool.create_actor_fn()
        pool.pool.append(actor)

    setattr(BasicActorPool, "add_actor_back_to_pool", add_actor_back_to_pool)  # noqa: B010
