"""A worker imports what training takes while the server prepares the run."""

import sys
from types import SimpleNamespace

import pytest

from flowertune.base.imports import STAYS
from flowertune.client import app as module
from flowertune.client.app import MAX_STEPS, ClientApp


@pytest.fixture
def begun(monkeypatch):
    """Which imports a client begins."""
    found = []
    monkeypatch.setattr(module, "begin", found.append)
    monkeypatch.setattr(module, "answer_discovery", lambda *_: "answer")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv(STAYS, raising=False)
    return found


@pytest.mark.parametrize(
    ("ray", "stays", "steps", "expected"),
    [(1, 0, 1, 1), (0, 1, 1, 1), (0, 0, 1, 0), (1, 1, 0, 0)],
    ids=["simulation", "kept", "one message only", "whole models"],
)
def test_it_does_so_where_it_serves_more_messages(ray, stays, steps, expected, begun, monkeypatch):
    if ray:
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    if stays:
        monkeypatch.setenv(STAYS, "1")
    functions = module.AppFunctions(*[None] * 4)  # type: ignore[arg-type]
    client = ClientApp(__file__, functions)
    context = SimpleNamespace(run_config={MAX_STEPS: steps})
    assert client._discovery(None, context) == "answer"  # type: ignore[arg-type]
    assert begun == [module._import_training] * expected
