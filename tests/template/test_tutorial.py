"""The diffs of the tutorial: short, they apply to an app as it is rendered, and they act."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowertune.base.errors import UserError
from tests.apps import tiny_settings
from tests.methods import Run, apply, changed, copy_of_app, diffs, run
from tests.tiny import save_tiny_llama

HEADINGS = [
    "FedProx", "FedAvgM", "DoRA", "Another optimizer", "Your own loss", "A method with a name",
]  # fmt: skip
NODES, RATE = 4, 1e-2


def test_the_page_has_a_diff_for_each_method_and_none_is_long():
    found = diffs()
    assert list(found) == HEADINGS
    for diff in found.values():
        lines = [x for x in diff.splitlines() if x[:1] in "+-" and x[:3] not in ("+++", "---")]
        assert 1 <= len(lines) <= 30


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def both(model, tmp_path, monkeypatch) -> Callable[..., tuple[Run, Run]]:
    """Two rounds of the app as it is, and of the app with a diff."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))

    def runs(heading: str, nodes: int = NODES, **changes: Any) -> tuple[Run, Run]:
        folder = tmp_path / "runs"
        folder.mkdir()
        settings = {
            "strategy.fraction-train": 0.5,
            "num-server-rounds": 2,
            "train.save-every-round": 1,
            "train.learning-rate-min": RATE,
            "train.learning-rate-max": RATE,
            "train.training-arguments.per-device-train-batch-size": 2,
            "train.training-arguments.max-steps": 2,
            "prompt.template": "{question} ",
            **changes,
        }
        cfg = tiny_settings(folder, model, 40, settings)
        before = run(copy_of_app(folder), cfg, 1, nodes)
        changed_app = copy_of_app(tmp_path / "changed")
        apply(changed_app, diffs()[heading])
        return before, run(changed_app, cfg, 2, nodes)

    return runs


def moved_b(one: Run) -> torch.Tensor:
    """All values of lora_B after round 1; they start from zero."""
    return torch.cat([t.flatten() for n, t in one.adapter(1).items() if "lora_B" in n])


def test_fedprox_acts_from_the_second_step_on(both):
    fedavg, fedprox = both("FedProx")
    assert changed(fedavg, fedprox, [1, 2]) == [1, 2]
    assert moved_b(fedprox).norm() < moved_b(fedavg).norm()


def test_fedprox_changes_nothing_in_a_single_step(both):
    fedavg, fedprox = both("FedProx", **{"train.training-arguments.max-steps": 1})
    assert changed(fedavg, fedprox, [1, 2]) == []


def test_fedavgm_adds_what_the_last_round_did(both):
    fedavg, fedavgm = both("FedAvgM")
    plain = [fedavg.adapter(n) for n in (1, 2)]
    with_momentum = [fedavgm.adapter(n) for n in (1, 2)]
    for name in plain[0]:
        torch.testing.assert_close(with_momentum[0][name], plain[0][name], rtol=1e-5, atol=1e-6)
        if "lora_B" in name:  # it starts from zero: the change of round 1 is its value
            wanted = plain[1][name] + 0.9 * plain[0][name]
            torch.testing.assert_close(with_momentum[1][name], wanted, rtol=1e-3, atol=1e-4)


def test_dora_trains_magnitudes(both):
    lora, dora = both("DoRA")
    added = dora.adapter(1).keys() - lora.adapter(1).keys()
    assert added and all("magnitude" in name for name in added)
    assert all(not torch.equal(dora.adapter(1)[n], dora.adapter(2)[n]) for n in added)


def test_sgd_steps_by_the_gradient_and_adam_by_the_rate(both):
    one_step = {"train.training-arguments.max-steps": 1}
    adam, sgd = (moved_b(one).abs() for one in both("Another optimizer", 1, **one_step))
    assert adam.median() == pytest.approx(RATE, rel=0.01)
    assert sgd.std() / sgd.mean() > 0.5 > adam.std() / adam.mean()


def test_another_loss_trains_another_adapter(both):
    plain, smoothed = both("Your own loss")
    assert changed(plain, smoothed, [1, 2]) == [1, 2]
    losses = [[line["train-loss"] for line in one.rounds] for one in (plain, smoothed)]
    assert losses[0] != losses[1]


def test_a_method_with_a_name_acts_where_it_is_named(both):
    named = {"strategy.name": "long-steps"}
    with pytest.raises(UserError, match="is 'long-steps', which is neither"):
        both("A method with a name", **named)


def test_a_method_with_a_name_leaves_the_others_as_they_are(both):
    fedavg, beside = both("A method with a name")
    assert changed(fedavg, beside, [1, 2]) == []


def test_the_named_method_takes_longer_steps(model, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    app = copy_of_app(tmp_path)
    apply(app, diffs()["A method with a name"])
    changes = {
        "num-server-rounds": 1,
        "train.save-every-round": 1,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 2,
    }
    (tmp_path / "rows").mkdir()
    cfg = tiny_settings(tmp_path / "rows", model, 40, changes)
    plain, longer = (
        moved_b(run(app, {**cfg, "strategy.name": name}, number, NODES)).norm()
        for number, name in enumerate(("fedavg", "long-steps"), start=1)
    )
    # One step of Adam has the size of the rate, whatever the gradient's.
    assert float(longer / plain) == pytest.approx(1.5, rel=0.1)
