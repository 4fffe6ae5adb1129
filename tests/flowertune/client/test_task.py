"""One round as the app sees it: what a worker keeps, and what it makes anew."""

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from flowertune.base.errors import UserError
from tests.apps import default_settings, rendered
from tests.local_grid import load


def own_scale(cfg) -> float:
    return cfg["my-scale"]


def task_of(**changes):
    """The first round of partition 0 under changed settings."""
    config = ConfigRecord({"server-round": 1, "state-key": "run"})
    content = RecordDict({"arrays": ArrayRecord({}), "config": config})
    context = Context(
        run_id=1,
        node_id=1000,
        node_config={"partition-id": 0, "num-partitions": 6},
        state=RecordDict(),
        run_config={**default_settings("finance"), "my-scale": 1.0, **changes},
    )
    client: object = load(rendered("finance"))[1]
    return client.task(Message(content, 1000, "train"), context)  # type: ignore[attr-defined]


def test_what_a_worker_keeps_depends_on_a_participants_own_settings():
    made = [task_of(**{"my-scale": scale}).cached(own_scale) for scale in (1.0, 2.0, 2.0)]
    assert made == [1.0, 2.0, 2.0]


def test_a_setting_that_no_model_depends_on_makes_nothing_anew():
    made = []

    def load_something(cfg) -> int:
        made.append(cfg.train.learning_rate_max)
        return len(made)

    for rate in (1e-4, 2e-4):
        task_of(**{"train.learning-rate-max": rate}).cached(load_something)
    assert len(made) == 1


def test_training_has_one_order_of_sums_and_says_what_cannot_have_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        with task_of().phase("load"):
            assert not torch.are_deterministic_algorithms_enabled()
        said = r"^train.deterministic is true.*\(scatter does not have"
        with pytest.raises(UserError, match=said), task_of().phase("train"):
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("scatter does not have a deterministic implementation")
        with task_of(**{"train.deterministic": False}).phase("train"):
            assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
