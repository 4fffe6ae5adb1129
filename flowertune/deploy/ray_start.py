"""Ray, as a simulation on one machine needs it.

``ray.init`` starts helpers that this needs nothing of, each a Python process that imports Ray, and
waits for one of them: the server of a dashboard that Flower leaves out, and the autoscaler's
monitor. It starts a worker for every core, and because Flower passes the environment on (that all
of them inherit anyway) the workers of clients are started anew. On two cores that is a third of the
time to the first step. Where Ray joins a cluster, or has no such parts, nothing changes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

from flowertune.deploy.flower_parts import replaced

BACKEND = "flwr.server.superlink.fleet.vce.backend.raybackend"
PRESTART = "RAY_prestart_worker_first_driver"
UNUSED = ("start_monitor", "start_api_server")  # of ray._private.node.Node


def start_lean(backend: Any) -> None:
    """Let Flower's Ray backend (its module) start Ray with what a run needs."""
    backend.RayBackend.init_ray = _lean(backend.RayBackend.init_ray)


def _lean(init_ray: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(init_ray)
    def starts(*args: Any, **options: Any) -> Any:
        with ExitStack() as changed:
            with suppress(Exception):  # a part of Ray that another release lacks
                if starts_here():
                    changed.enter_context(_without_the_unused())
            return init_ray(*args, **options)

    return starts


def starts_here() -> bool:
    """Whether ``ray.init`` would start Ray on this machine; it joins a cluster that is there."""
    from ray._private import services

    return services.canonicalize_bootstrap_address(None) is None  # type: ignore[arg-type]


@contextmanager
def _without_the_unused() -> Iterator[None]:
    # Late: of all of Flower's processes, only that of a simulation has Ray.
    import ray
    from ray._private.node import Node

    before = os.environ.get(PRESTART)
    os.environ.setdefault(PRESTART, "0")
    try:
        with ExitStack() as changed:
            for name in UNUSED:
                changed.enter_context(replaced(Node, name, _unless_asked_for))
            changed.enter_context(replaced(ray, "init", _without_inherited))
            yield
    finally:
        if before is None:
            del os.environ[PRESTART]


def _unless_asked_for(start: Callable[..., Any]) -> Callable[..., Any]:
    """Return a starter of a helper that does so with ``include_dashboard`` only."""

    @wraps(start)
    def starts(*args: Any, **options: Any) -> Any:
        if options.get("include_dashboard"):
            return start(*args, **options)

    return starts


def _without_inherited(init: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``ray.init`` without a runtime environment that its processes inherit anyway."""

    @wraps(init)
    def starts(*args: Any, **options: Any) -> Any:
        given = (options.get("runtime_env") or {}).get("env_vars", {})
        inherited = all(os.environ.get(name) == value for name, value in given.items())
        if options.get("runtime_env", {}).keys() <= {"env_vars"} and inherited:
            options.pop("runtime_env", None)
        return init(*args, **options)

    return starts
