"""A tiny model with an adapter, made once."""

import pytest

from tests.evaluation.checkpoints import save_checkpoint
from tests.tiny import save_tiny_llama


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny random Llama."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finance_checkpoint(tmp_path_factory, tiny):
    """An official finance checkpoint of the tiny model; tests must not change it."""
    return save_checkpoint(tmp_path_factory.mktemp("run") / "peft_2", tiny)
