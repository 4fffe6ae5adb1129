"""What the tests of runs share."""

from pathlib import Path

import pytest

from tests.tiny import save_tiny_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama; do not change it."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))
