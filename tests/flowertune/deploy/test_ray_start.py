"""flowertune.deploy.ray_start: Ray without helpers; here a stand-in for Ray and flwr's backend."""

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flowertune.deploy.ray_start import PRESTART, start_lean


class Rays:
    """What a start of Ray did."""

    def __init__(self) -> None:
        self.helpers: list[str] = []
        self.options: dict[str, Any] = {}
        self.prestart: str | None = None


@pytest.fixture
def ray(monkeypatch):
    """A Ray of which ``ray.init`` starts a node, on this machine where ``joins`` is None."""
    did = Rays()

    class Node:
        def start_monitor(self):
            did.helpers.append("monitor")

        def start_api_server(self, *, include_dashboard, raise_on_failure):
            did.helpers.append("dashboard")

    def init(**options):
        did.options, did.prestart = options, os.environ.get(PRESTART)
        node = Node()
        node.start_monitor()
        node.start_api_server(
            include_dashboard=options.get("include_dashboard"), raise_on_failure=False
        )

    modules: dict[str, Any] = {n: ModuleType(n) for n in ("ray", "ray._private")}
    services = SimpleNamespace(joins=None)
    services.canonicalize_bootstrap_address = lambda address: services.joins
    modules["ray"].init = init
    modules["ray._private"].services = services
    modules |= {"ray._private.services": services, "ray._private.node": SimpleNamespace(Node=Node)}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PYTHONPATH", "/app:/packages")
    monkeypatch.delenv(PRESTART, raising=False)

    class RayBackend:
        def init_ray(self, environment, dashboard=False):
            modules["ray"].init(
                include_dashboard=dashboard, runtime_env={"env_vars": environment}, num_cpus=2
            )

    start_lean(SimpleNamespace(RayBackend=RayBackend))
    return SimpleNamespace(did=did, services=services, backend=RayBackend(), module=modules["ray"])


SAME = {"PYTHONPATH": "/app:/packages"}


def test_helpers_of_no_use_and_a_second_start_of_workers_are_left_out(ray):
    init = ray.module.init
    ray.backend.init_ray(SAME)
    assert ray.did.helpers == []
    assert ray.did.options == {"include_dashboard": False, "num_cpus": 2}
    assert ray.did.prestart == "0"
    assert ray.module.init is init and PRESTART not in os.environ


def test_what_is_asked_for_or_not_inherited_stays(ray, monkeypatch):
    monkeypatch.setenv(PRESTART, "1")
    ray.backend.init_ray({"PYTHONPATH": "/other"}, dashboard=True)
    assert ray.did.helpers == ["dashboard"]
    assert ray.did.options["runtime_env"] == {"env_vars": {"PYTHONPATH": "/other"}}
    assert ray.did.prestart == "1" and os.environ[PRESTART] == "1"


def test_a_cluster_that_ray_joins_is_left_as_it_is(ray):
    ray.services.joins = "10.0.0.1:6379"
    ray.backend.init_ray(SAME)
    assert ray.did.helpers == ["monitor", "dashboard"]
    assert ray.did.options["runtime_env"] == {"env_vars": SAME}


def test_a_ray_without_these_parts_starts_all_the_same(ray, monkeypatch):
    monkeypatch.delitem(sys.modules, "ray._private.node")
    ray.backend.init_ray(SAME)
    assert ray.did.options["num_cpus"] == 2


def test_the_installed_ray_has_the_parts_that_are_left_out():
    pytest.importorskip("ray")
    from inspect import signature

    from ray._private import services
    from ray._private.node import Node

    assert list(signature(Node.start_monitor).parameters) == ["self"]
    assert "include_dashboard" in signature(Node.start_api_server).parameters
    assert callable(services.canonicalize_bootstrap_address)
