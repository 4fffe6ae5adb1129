"""A worker imports what training takes while the server prepares the run."""

import os
from types import SimpleNamespace

import pytest

from flowertune.base.imports import STAYS
from flowertune.cli import hook
from flowertune.client import app as module
from flowertune.client.app import MAX_STEPS, ClientApp


@pytest.fixture
def begun(monkeypatch):
    """Which imports a client begins."""
    found = []
    monkeypatch.setattr(module, "begin", found.append)
    monkeypatch.setattr(module, "answer_discovery", lambda *_: "answer")
    monkeypatch.delenv(STAYS, raising=False)
    return found


@pytest.mark.parametrize(
    ("stays", "steps", "expected"),
    [(1, 1, 1), (0, 1, 0), (1, 0, 0)],
    ids=["a worker", "one message only", "whole models"],
)
def test_it_does_so_where_it_serves_more_messages(stays, steps, expected, begun, monkeypatch):
    if stays:
        monkeypatch.setenv(STAYS, "1")
    functions = module.AppFunctions(*[None] * 4)  # type: ignore[arg-type]
    client = ClientApp(__file__, functions)
    context = SimpleNamespace(run_config={MAX_STEPS: steps})
    assert client._discovery(None, context) == "answer"  # type: ignore[arg-type]
    assert begun == [module._import_training] * expected


@pytest.mark.parametrize(
    ("program", "stays"), [("default_worker.py", True), ("flwr-simulation", False)]
)
def test_a_worker_of_ray_serves_more_messages(program, stays, monkeypatch):
    monkeypatch.setenv(STAYS, "1")  # so that it is as it was afterwards
    monkeypatch.delenv(STAYS)
    monkeypatch.setattr(hook, "_once_imported", lambda *_: None)
    monkeypatch.setattr("flowertune.deploy.flower_log.keep_readable", lambda: None)
    hook.install(program)
    assert (STAYS in os.environ) == stays
