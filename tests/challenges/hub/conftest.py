"""One hub for all tests that only ask it something."""

from collections.abc import Iterator

import pytest

from tests.challenges.hub.running import PUBLIC, RunningHub, start, stop
from tests.templates import clone, commit


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on this checkout's files, with releases 1.0.0 and 1.1.0."""
    folder = tmp_path_factory.mktemp("hub")
    template = clone(folder / "template", "v1.0.0")
    (template / "template/NEW.md").write_text("New in 1.1.0.\n")
    commit(template, "v1.1.0")
    running = start(folder, template, "--public-url", PUBLIC)
    yield running
    assert stop(running) == 0
