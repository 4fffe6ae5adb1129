"""FLoRA and FedEx-LoRA: what is merged is the clients' mean product, exactly; what is exported says
what it leaves out; and a model's base follows from what came alone."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false, reportOptionalOperand=false

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from flowertune.base.errors import UserError
from flowertune.methods.registry import problems
from flowertune.models.merging import LEFT, RIGHT, SUM, merge
from tests.apps import settings
from tests.flowertune.methods.small import (
    ALPHA,
    FLOAT32,
    MODULE,
    RANK,
    SHARES,
    A,
    B,
    Rounds,
    one_round,
    problem,
    relative,
    shape,
)

METHODS = ("flora", "fedex-lora")
S = ALPHA / RANK
a0, b0, a, b = problem()
MEAN_PRODUCT = sum(p * bk @ ak for p, ak, bk in zip(SHARES, a, b, strict=True))
MEAN_A, MEAN_B = np.tensordot(SHARES, a, 1), np.tensordot(SHARES, b, 1)
SHAPES = [(4, 5, 2, 3), (16, 8, 4, 1), (7, 31, 5, 12), (3, 40, 3, 6), (64, 48, 3, 5), (9, 4, 6, 2)]
norm = np.linalg.norm


def next_message(rounds: Rounds) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """What the next round starts from, as a client has it: the sum of merges, B A, and the sum as
    it is sent."""
    rounds.ask()
    sent, start = rounds.sent[0]["merged"], rounds.sent[0]["arrays"]
    return of(sent), start[B].astype(float) @ start[A], sent


def of(sent: dict[str, Any]) -> Any:
    """The sum; 0 where there is none."""
    if not sent:
        return 0.0
    if MODULE + SUM in sent:
        return sent[MODULE + SUM].astype(float)
    return sent[MODULE + LEFT].astype(float) @ sent[MODULE + RIGHT]


def test_flora_is_the_reference_number():
    _, rounds = one_round("flora")
    total, start, sent = next_message(rounds)
    # Six ranks would have more values than the 4 x 5 weights, so their product is sent.
    assert set(sent) == {MODULE + SUM} and not start.any()
    assert norm(total) == pytest.approx(3.8733386094, rel=FLOAT32)
    assert relative(total, MEAN_PRODUCT) < FLOAT32
    wrong = sum(p * p * bk @ ak for p, ak, bk in zip(SHARES, a, b, strict=True))
    assert norm(wrong) == pytest.approx(1.8368453623, rel=1e-9)  # shares on both factors


def test_fedex_is_the_reference_number():
    _, rounds = one_round("fedex-lora")
    residual, start, _ = next_message(rounds)
    assert norm(residual) == pytest.approx(0.8663867002, rel=1e-6)
    assert norm(S * residual + S * start - S * MEAN_PRODUCT) < 5 * FLOAT32 * norm(MEAN_PRODUCT)
    without_s = residual + S * start - S * MEAN_PRODUCT
    assert norm(without_s) == pytest.approx(0.866387, rel=1e-6)
    assert relative(start, MEAN_B @ MEAN_A) < 2 * FLOAT32


@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_every_round_adds_the_mean_product_and_the_export_says_what_it_lacks(name, size):
    """Through the change from stacked factors to one matrix, which the small shapes pass."""
    m, n, r, clients = size
    rounds = Rounds(name, clients=clients, adapter={A: shape(*size)[0], B: np.zeros((m, r))})
    before, trained_from, forms, nbytes = np.zeros((m, n)), None, set(), None
    for number in range(4):
        _, _, a, b, examples = shape(*size, seed=number)
        made = rounds.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], examples)
        if trained_from is not None:  # the message was the one that the round before promised
            assert np.array_equal(of(rounds.sent[0]["merged"]), trained_from)
        shares = np.array(examples) / sum(examples)
        product = sum(p * y @ x for p, x, y in zip(shares, a, b, strict=True))
        total, start, sent = next_message(rounds)
        rounds.done -= 1
        assert relative(total + start, before + product) < 10 * FLOAT32
        own = rounds.server.made()[MODULE]
        assert relative(own[0] @ own[1], product) < 10 * FLOAT32
        # The export is the nearest adapter, and off by what is said.
        u, s, vt = np.linalg.svd(total + start)
        nearest = (u[:, : min(r, len(s))] * s[:r]) @ vt[: min(r, len(s))]
        assert relative(made[B] @ made[A], nearest) < 1e-5
        off = norm(total + start - made[B] @ made[A]) / norm(total + start)
        said = rounds.server.facts()
        assert said["export-error"] == pytest.approx(off, rel=1e-4, abs=1e-6)
        assert said["export-errors"] == {MODULE: said["export-error"]}
        # No message has more values than the weights, and the next one was announced.
        assert sum(values.size for values in sent.values()) <= m * n
        now = sum(4 * values.size + 128 + len(key) for key, values in sent.items())
        assert nbytes is None or now - nbytes <= rounds.server.growth()
        forms, nbytes = forms | {tuple(sent)}, now
        before, trained_from = total, total
    assert size != (64, 48, 3, 5) or len(forms) == 2


def test_one_client_leaves_nothing_to_merge():
    rounds = Rounds("fedex-lora", clients=1, adapter={A: a0, B: b0})
    rounds.round([{A: a[0], B: b[0]}], [7])
    assert next_message(rounds)[2] == {}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_are_refused_in_a_sentence(name, bits):
    cfg = settings({"strategy.name": name, "model.quantization": bits})
    (text,) = problems({**cfg, "aggregation.mode": "all_at_once"})
    assert f"'{name}'" in text and f"model.quantization is {bits}" in text
    assert text.count(". ") == 0 and text.endswith(").")
    cfg = settings({"strategy.name": name, "model.quantization": 0})
    assert problems({**cfg, "aggregation.mode": "all_at_once"}) == []


def test_a_first_adapter_out_of_the_base_is_refused_in_a_sentence():
    more = {"model.quantization": 0, "model.lora.init": "pissa"}
    cfg = settings({"strategy.name": "flora", **more})
    (text,) = problems({**cfg, "aggregation.mode": "all_at_once"})
    assert "'pissa'" in text and text.count(". ") == 0


def test_experts_are_refused_in_a_sentence():
    rounds = Rounds("flora", adapter={A: a0, B: b0})
    rounds.server.know_experts({})
    with pytest.raises(UserError, match="'flora', which works on one product"):
        rounds.server.know_experts({A: 2, B: 2})


def test_dora_is_refused_in_a_sentence():
    magnitude = f"{MODULE}.lora_magnitude_vector.weight"
    rounds = Rounds("flora", adapter={A: a0, B: b0, magnitude: np.ones(4)})
    with pytest.raises(UserError, match=r"'flora'.*lora_magnitude_vector.*DoRA"):
        rounds.ask()


@pytest.fixture
def make(tiny_model: Path):
    def model(seed: int = 3, **config: Any) -> Any:
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        how = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
        return get_peft_model(base, LoraConfig(**{**how, **config}))

    return model


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}


def layers(model: Any) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "lora_A")]


def drawn(model: Any, rank: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A sum to merge, of random stacked factors."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, layer in layers(model):
        n, m = layer.in_features, layer.out_features
        found[name + LEFT] = torch.randn((m, rank), generator=generator)
        found[name + RIGHT] = torch.randn((rank, n), generator=generator) / 100
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_merge_is_what_peft_makes_of_stacked_factors_with_alpha_times_k(make):
    """And with alpha alone PEFT would merge one third of it."""
    model = make()
    clean, merged = weights_of(model), drawn(model, 12)
    merge(model, merged)
    for alpha, share in ((8 * 3, 1.0), (8, 1 / 3)):
        stacked = make(r=12, lora_alpha=alpha)
        for name, layer in layers(stacked):
            layer.lora_A["default"].weight.data = merged[name + RIGHT]
            layer.lora_B["default"].weight.data = merged[name + LEFT]
            layer.merge()
        wanted = weights_of(stacked)
        for name, now in weights_of(model).items():
            change = (now - clean[name]) * share
            torch.testing.assert_close(change, wanted[name] - clean[name], rtol=0, atol=1e-6)


def test_the_base_follows_from_what_came_alone(make):
    """Whoever used the model before: the same bits as on a new one, and W0 again in the end."""
    model = make()
    clean = weights_of(model)
    first, second = drawn(model, 4), drawn(model, 9, seed=1)
    merge(model, first)
    merge(model, second)
    fresh = make()
    merge(fresh, second)
    assert same(weights_of(model), weights_of(fresh)) and not same(weights_of(model), clean)
    part = {name: tensor for name, tensor in first.items() if "q_proj" in name}
    merge(model, part)
    fresh = make()
    merge(fresh, part)
    assert same(weights_of(model), weights_of(fresh))
    merge(model, {})
    assert same(weights_of(model), clean)


def test_one_matrix_is_its_factors(make):
    model, other = make(), make()
    merged = drawn(model, 5)
    modules = {name.removesuffix(LEFT) for name in merged if name.endswith(LEFT)}
    merge(model, merged)
    merge(other, {m + SUM: merged[m + LEFT] @ merged[m + RIGHT] for m in modules})
    assert same(weights_of(model), weights_of(other))


def test_weights_that_are_stored_transposed_get_the_change_transposed():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    model = get_peft_model(GPT2LMHeadModel(config), lora)
    name = "base_model.model.transformer.h.0.attn.c_proj"  # square: nothing else would show it
    layer: Any = model.get_submodule(name)
    weight = layer.get_base_layer().weight
    clean, left, right = weight.detach().clone(), torch.randn(8, 3), torch.randn(3, 8)
    merge(model, {name + LEFT: left, name + RIGHT: right})
    torch.testing.assert_close(weight.detach() - clean, 4 * (left @ right).T, rtol=0, atol=1e-5)


def test_weights_that_cannot_take_a_change_are_refused(make):
    model = make()
    name, layer = layers(model)[0]
    merged = {name + LEFT: torch.ones(layer.out_features, 1), name + RIGHT:
              torch.ones(1, layer.in_features)}  # fmt: skip
    own = layer.get_base_layer()
    own.weight = torch.nn.Parameter(own.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"quantized \(torch.int8\)"):
        merge(model, merged)
    model = make()
    other = model.get_submodule(name.replace("layers.0", "layers.1")).get_base_layer()
    other.weight = model.get_submodule(name).get_base_layer().weight
    with pytest.raises(UserError, match="another module's as well"):
        merge(model, merged)
