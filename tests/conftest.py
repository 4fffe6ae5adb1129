"""What all tests share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests build Flower messages, which want to know the run and node they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)


@pytest.fixture(autouse=True, scope="module")
def rendered_apps_stay_as_they_are() -> Iterator[None]:
    """Fail a file of tests that writes into an app that all tests of this process share."""
    from tests.apps import strangers

    yield
    assert strangers() == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests begin first: two workers then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
