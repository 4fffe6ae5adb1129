"""Compiling and Liger's kernels: where a setting asks, and one sentence where they cannot be."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from flowertune.base.errors import UserError
from flowertune.models import faster
from flowertune.models.faster import make_faster, unrepeatable
from tests.apps import settings


def model(device="cuda", kind="llama"):
    compiled = []
    return SimpleNamespace(
        device=SimpleNamespace(type=device),
        config=SimpleNamespace(model_type=kind),
        compile=lambda **given: compiled.append(given),
        compiled=compiled,
    )


@pytest.fixture
def liger(monkeypatch):
    """Liger is installed, and knows Llama; returns what it was applied to."""
    applied = []
    patches = ModuleType("liger_kernel.transformers.monkey_patch")
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, patches.__name__, patches)
    monkeypatch.setattr(faster, "find_spec", lambda name: name)
    monkeypatch.setattr(
        "transformers.integrations.liger.apply_liger_kernel",
        lambda model, kernels: applied.append(kernels),
    )
    return applied


def test_what_is_outside_the_promise_of_the_same_bits():
    assert unrepeatable(settings({})) == []
    changes = {"model.compile": True, "model.liger-kernels": True, "train.deterministic": False}
    assert unrepeatable(settings(changes)) == [
        "model.compile=true", "model.liger-kernels=true", "train.deterministic=false"
    ]  # fmt: skip


def test_nothing_is_done_by_default(liger):
    given = model()
    make_faster(settings({}), given)
    assert given.compiled == liger == []


def test_compile_is_for_batches_of_any_size():
    given = model("cpu")
    make_faster(settings({"model.compile": True}), given)
    assert given.compiled == [{"dynamic": True}]


def test_the_loss_stays_the_apps_own(liger):
    make_faster(settings({"model.liger-kernels": True}), model())
    assert liger == [{"cross_entropy": False, "fused_linear_cross_entropy": False}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (model("cpu"), "there is no GPU here"),
        (model(kind="mamba"), "none for models of type mamba"),
    ],
)
def test_where_liger_cannot_be_used_a_sentence_says_so(liger, given, said):
    with pytest.raises(UserError, match=f"^model.liger-kernels is true, and .*{said}"):
        make_faster(settings({"model.liger-kernels": True}), given)
    assert liger == []


def test_liger_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(faster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="liger-kernel is not installed here"):
        make_faster(settings({"model.liger-kernels": True}), model())
