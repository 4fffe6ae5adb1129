"""A tiny model with an adapter, made once.

The fixtures import what takes seconds to import: a process that only hands out tests to others
reads this file, too.
"""

import functools

import pytest

from challenges import record


@pytest.fixture(scope="session", autouse=True)
def this_machine_is_described_once():
    """lm-eval notes what is installed with every score, and runs pip and others to find out."""
    from torch.utils import collect_env

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_env, "get_env_info", functools.cache(collect_env.get_env_info))
        yield


@pytest.fixture(autouse=True)
def a_release_is_on_record(monkeypatch):
    """A checkpoint can be official only with a library whose release is on record."""
    from tests.evaluation.checkpoints import RELEASES

    monkeypatch.setattr(record, "library", lambda: RELEASES)


@pytest.fixture(autouse=True)
def unfinished_answers_are_kept_apart(monkeypatch, tmp_path_factory):
    """No test finds the answers of another one."""
    from evaluation import store

    folder = tmp_path_factory.mktemp("kept")
    monkeypatch.setattr(store, "answers_folder", lambda: folder / "answers")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny random Llama."""
    from tests.tiny import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finance_checkpoint(tmp_path_factory, tiny):
    """An official finance checkpoint of the tiny model; tests must not change it."""
    from tests.evaluation.checkpoints import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("run") / "peft_2", tiny)
