"""A user's machine: a fresh environment, an app rendered and installed, a connection."""

from pathlib import Path

import pytest

from tests.flower import ROOT, make_shell
from tests.tiny import save_tiny_llama

SMALL = (
    "model.quantization=0 model.dtype='float32' static.dataset.name='./samples/finance.jsonl' "
    "num-server-rounds=2 train.training-arguments.max-steps=1 train.save-every-round=1 "
    "train.training-arguments.per-device-train-batch-size=2"
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    return make_shell(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="module")
def supernodes() -> int:
    """How many SuperNodes are connected; a file that needs no official number has fewer."""
    return 50


@pytest.fixture(scope="module")
def small(model, supernodes) -> str:
    """The settings of a run of two rounds of one step."""
    fraction = "" if supernodes == 50 else " strategy.fraction-train=0.5"
    return f"model.name='{model}' {SMALL}{fraction}"


@pytest.fixture(scope="module")
def app(shell, supernodes, tmp_path_factory):
    """From `pip install` to a running connection."""
    work = tmp_path_factory.mktemp("work")
    shell.type(f"pip install --quiet '{ROOT}[template,scoring]'", work)
    shell.type(
        f"copier copy --quiet --defaults --vcs-ref HEAD --data challenge=finance {ROOT} my-finance",
        work,
    )
    app = work / "my-finance"
    shell.type("pip install --quiet -e .", app)
    number = "" if supernodes == 50 else f" --num-supernodes {supernodes}"
    assert str(supernodes) in shell.type(f"flowertune connect{number}", app)
    yield app
    assert "Stopped" in shell.type("flowertune connect --stop", app)
