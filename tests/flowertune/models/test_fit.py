"""An adapter is used whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from flowertune.base.errors import UserError
from flowertune.models.fit import misfit, unusable
from flowertune.models.loader import with_adapter

WEIGHTS = "adapter_model.safetensors"


def tensors(**shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tensors(a=(2, 3), b=(3, 2)), None),
        (tensors(a=(2, 3)), "lacks 1 of 2 tensors (b) of the adapter"),
        (tensors(a=(2, 3), b=(3, 2), c=(1,)), "no place for 1 of 3 tensors (c)"),
        (tensors(x=(2, 3), b=(3, 2)), "lacks 1 of 2 tensors (a) .*holds 1 of 2 tensors (x)"),
        (tensors(a=(2, 3), b=(2, 3)), "its b has the shape (2, 3), and the model's has (3, 2)"),
    ],
)
def test_every_tensor_is_used_and_none_is_missing(given, said):
    found = misfit(tensors(a=(2, 3), b=(3, 2)), given)
    if said is None:
        assert found is None
    else:
        assert found is not None and all(part in found for part in said.split(".*"))


def test_values_are_finite():
    assert unusable({"a": torch.ones(2)}) is None
    assert unusable({}) == "it holds no tensors"
    broken = {"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")])}
    assert unusable(broken) == "it holds values that are not finite, in 1 of 2 tensors (b)"


def test_a_name_out_of_the_file_is_short_and_moves_no_cursor():
    found = unusable({"\x1b[2J\n" + "x" * 10**6: torch.tensor(float("nan"))})
    assert found is not None
    assert found.isprintable()
    assert len(found) < 250


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_are_floats(dtype):
    assert unusable({"a": torch.ones(2, dtype=dtype)}) is None


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.bool, torch.complex64],
)
def test_values_of_another_type_are_not_used(dtype):
    found = unusable({"a": torch.ones(2), "b": torch.ones(2).to(dtype)})
    assert found == (
        f"it holds values of the type {str(dtype).removeprefix('torch.')}, in 1 of 2 tensors (b), "
        "and an adapter's are float16, bfloat16, float32 or float64"
    )


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    """Returns a folder with an adapter of a tiny model, saved by PEFT."""
    place = tmp_path_factory.mktemp("adapters")

    def saved(config, rows: int | None = None) -> Path:
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        if rows:
            base.resize_token_embeddings(rows)
        folder = place / str(len(list(place.iterdir())))
        get_peft_model(base, config).save_pretrained(folder)
        return folder

    return saved


def lora(**options):
    return LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **options)


def on_tiny(tiny_model, folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    return with_adapter(model, folder)


def change(tensors_to_tensors=None, **config):
    """Returns what changes an adapter's folder: its tensors, or values of its configuration."""

    def apply(folder: Path) -> None:
        if tensors_to_tensors:
            save_file(tensors_to_tensors(load_file(folder / WEIGHTS)), folder / WEIGHTS)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change(lambda t: {f"base_model.model.{k}": v for k, v in t.items()}), "lacks 8 of 8"),
        (change(lambda t: {k.split(".", 2)[2]: v for k, v in t.items()}), "lacks 8 of 8"),
        (change(lambda t: {k: v for k, v in t.items() if "layers.1" in k}), "lacks 4 of 8"),
        (change(lambda t: {k: v[:2].clone() for k, v in t.items()}), "does not fit the base model"),
        (change(lambda t: {k: v / 0 for k, v in t.items()}), "not finite, in 8 of 8"),
        (change(lambda t: {}), "holds no tensors"),
        (change(target_modules=["q_proj", "k_proj", "v_proj"]), "lacks 4 of 12"),
        (change(lora_alpha=float("nan")), "scales .* by nan"),
        (change(r=0), "does not fit the base model"),
        (change(peft_type="NOPE"), "cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x08"), "cannot be read"),
    ],
)
def test_a_damaged_adapter_is_one_sentence(adapters, tiny_model, damage, said):
    folder = adapters(lora())
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        on_tiny(tiny_model, folder)
    text = str(caught.value)
    assert text.startswith(f"the adapter in {folder} cannot be used: ") and "\n" not in text


def test_the_folder_that_was_given_is_named(adapters, tiny_model):
    for damage in (
        change(lambda t: {k: v / 0 for k, v in t.items()}),
        lambda folder: (folder / WEIGHTS).unlink(),
    ):
        copy = adapters(lora())
        damage(copy)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        with pytest.raises(UserError, match="the adapter in given/peft_2 cannot be used") as caught:
            with_adapter(model, copy, named="given/peft_2")
        assert str(copy) not in str(caught.value)


def test_a_name_that_is_no_text_is_not_blamed_on_the_files(adapters, tiny_model):
    folder = adapters(lora())
    folder = folder.rename(folder.with_name("peft_\udcff"))
    with pytest.raises(UserError, match=r"peft_\\udcff' .* is no UTF-8 text") as caught:
        on_tiny(tiny_model, folder)
    assert str(caught.value).isprintable()


def test_an_adapter_of_a_resized_vocabulary_is_one_sentence(adapters, tiny_model):
    folder = adapters(lora(modules_to_save=["lm_head"]), rows=260)
    with pytest.raises(UserError, match=r"does not fit the base model .*embed_tokens"):
        on_tiny(tiny_model, folder)


def test_a_prompt_that_is_learned_is_no_adapter_here(adapters, tiny_model):
    folder = adapters(PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    with pytest.raises(UserError, match="PROMPT_TUNING adds tokens to every prompt"):
        on_tiny(tiny_model, folder)


@pytest.mark.parametrize(
    "config",
    [
        lora(modules_to_save=["lm_head"]),
        lora(use_dora=True),
        lora(bias="lora_only"),
        IA3Config(task_type="CAUSAL_LM", init_ia3_weights=False),
    ],
    ids=["modules_to_save", "dora", "bias", "ia3"],
)
def test_other_whole_adapters_are_used(adapters, tiny_model, config):
    model = on_tiny(tiny_model, adapters(config)).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        tuned = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
    assert bool(torch.isfinite(tuned).all())
    if config.peft_type == "IA3" or getattr(config, "bias", "none") == "none":
        assert not torch.equal(tuned, base)
