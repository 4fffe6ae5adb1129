"""A worker of the Simulation Engine that was killed: what is put back into Flower's pool."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

from typing import Any

import pytest
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.grid.inmemory_grid import InMemoryGrid
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from flowertune.run.workers import in_simulation, replace_dead_workers


@pytest.fixture
def pool(monkeypatch):
    """Flower's pool with one worker, which has been given a message."""
    monkeypatch.setattr(
        BasicActorPool, "add_actor_back_to_pool", BasicActorPool.add_actor_back_to_pool
    )
    replace_dead_workers()
    made: Any = BasicActorPool.__new__(BasicActorPool)
    made.pool, made.num_actors = ["first"], 1
    made._future_to_actor, made.create_actor_fn = {}, lambda: "second"
    assert made.submit(lambda *given: "future", (None, None, "0", None)) == "future"
    return made


@pytest.mark.parametrize(
    "error", [ActorDiedError(), OutOfMemoryError("memory"), WorkerCrashedError()]
)
def test_a_dead_worker_is_replaced(pool, error):
    try:
        raise error
    except Exception:
        pool.add_actor_back_to_pool("future")  # as RayBackend.process_message does
    assert pool.pool == ["second"] and pool._future_to_actor == {}


@pytest.mark.parametrize("error", [None, RayTaskError("run", "it raised", ValueError("bad"))])
def test_a_worker_that_answered_or_whose_app_raised_is_kept(pool, error):
    try:
        if error:
            raise error
        pool.add_actor_back_to_pool("future")
    except RayTaskError:
        pool.add_actor_back_to_pool("future")
    assert pool.pool == ["first"]


def test_the_simulation_engine_is_known_by_its_grid():
    assert in_simulation(InMemoryGrid.__new__(InMemoryGrid))
    assert not in_simulation(HttpGrid.__new__(HttpGrid))
