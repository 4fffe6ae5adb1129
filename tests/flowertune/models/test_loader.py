"""Whatever is wrong with a base model's files is one sentence; what is not wrong works."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    MistralConfig,
    MistralForCausalLM,
)

from flowertune.base.errors import UserError
from flowertune.models import resolve
from flowertune.models.config import read_config, read_generation_config
from flowertune.models.loader import load_base_model, load_tokenizer, pretrained, quantization_of
from flowertune.models.quantized import Quantization, own_quantization
from flowertune.models.source import Source, missing_package
from flowertune.models.tokenizer import read_tokenizer
from tests.apps import settings
from tests.tiny import save_tiny_llama
from tests.tokenizers import mistral_file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    """A copy of a tiny model, to damage."""
    resolve._resolve.cache_clear()
    return shutil.copytree(tiny_model, tmp_path / "model")


def settings_of(folder, **changes):
    return settings(
        {"model.name": str(folder), "model.quantization": 0, "model.dtype": "float32", **changes}
    )


def edit(name, **values):
    """Returns what changes values of a JSON file in a folder; None takes one out."""

    def apply(folder: Path) -> None:
        body = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps({k: v for k, v in body.items() if v is not None}))

    return apply


def write(name, content):
    def apply(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return apply


def shorten(name, length):
    def apply(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:length])

    return apply


def without_a_layer(folder: Path) -> None:
    kept = {k: v for k, v in load_file(folder / WEIGHTS).items() if "layers.1" not in k}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


def in_shards_that_are_not_there(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and no more")


WEIGHTS, CONFIG = "model.safetensors", "config.json"
DEEP = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write(WEIGHTS, POINTER), r"its model\.safetensors is a Git LFS pointer"),
        (write("tokenizer.json", POINTER), r"its tokenizer\.json is a Git LFS pointer"),
        (shorten(WEIGHTS, 70_000), r"is cut short \(70,000 of 130,248 bytes\)"),
        (shorten(WEIGHTS, 50), "is cut short .50 bytes, and its header alone"),
        (write(WEIGHTS, b""), "is no safetensors file"),
        (without_a_layer, "lack 9 of its weights .* drawn at random"),
        (in_shards_that_are_not_there, "names model-00001-of-00002.safetensors, which is not in"),
        (as_pickle, r"pytorch_model\.bin is cut short"),
        (edit(CONFIG, vocab_size=500), r"has the shape 258 x 32 in its files, and 500 x 32 by"),
        (write("generation_config.json", "[1]"), r"its generation_config\.json cannot be loaded"),
    ],
)
def test_damaged_weights_are_one_sentence(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        load_base_model(settings_of(folder))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model.name is '")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write(CONFIG, "["), r"its config\.json cannot be loaded"),
        (write(CONFIG, "null"), r"its config\.json cannot be loaded"),
        (write(CONFIG, DEEP), r"its config\.json cannot be loaded"),
        (write(CONFIG, " " * 9_000_000), r"its config\.json has 9,000,000 bytes"),
        (edit(CONFIG, model_type="nope"), "does not recognize this architecture"),
        (edit(CONFIG, model_type="t5"), "it is of type t5, which does not continue texts"),
        (
            edit(CONFIG, model_type="bert"),
            "it is of type bert, in which tokens see those that come after them, so that training "
            "would show it the answers; set is_decoder to true in its config.json if it was "
            "trained so, or name another",
        ),
        (edit(CONFIG, hidden_size="x"), "expected int, got str"),
        (edit(CONFIG, num_attention_heads=0), "ZeroDivisionError"),
        (edit(CONFIG, num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
        (edit(CONFIG, model_type="own", auto_map={"AutoConfig": "a.B"}), "code that comes with it"),
        (edit(CONFIG, quantization_config="x"), r"says quantization_config is 'x', not an object"),
    ],
)
def test_a_damaged_configuration_is_one_sentence(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        read_config(Source(str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer cannot be loaded"),
        (write("tokenizer.json", "{"), "its tokenizer cannot be loaded"),
        (write("tokenizer_config.json", "[1"), "its tokenizer cannot be loaded"),
        (edit("tokenizer_config.json", eos_token=None), "has no end-of-sequence token"),
        (edit(CONFIG, vocab_size=100), r"has 258 tokens, while its config\.json says"),
    ],
)
def test_a_damaged_tokenizer_is_one_sentence(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        load_tokenizer(settings_of(folder))
    assert "\n" not in str(caught.value)


def test_no_tokenizer_at_all_is_said(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(settings_of(folder))


@pytest.mark.parametrize(
    ("tokens", "pad"),
    [
        ({"pad_token": None}, "</s>"),
        ({"pad_token": None, "eos_token": None}, "<s>"),
        ({"pad_token": "[PAD]"}, "</s>"),  # the model has no row for it
    ],
)
def test_padding_is_a_token_of_the_model(folder, tokens, pad):
    edit("tokenizer_config.json", **tokens)(folder)
    source = Source(str(folder))
    assert read_tokenizer(source, read_config(source)).pad_token == pad


@pytest.fixture(scope="module")
def of_mistral(tmp_path_factory) -> Path:
    """A tiny model of Mistral's architecture, with no tokenizer yet."""
    folder = tmp_path_factory.mktemp("mistral")
    config = MistralConfig(
        vocab_size=32768, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_of_mistrals_loads_in_this_environment(of_mistral, tmp_path):
    folder = shutil.copytree(of_mistral, tmp_path / "model")
    shutil.copy(mistral_file(), folder / "tokenizer.model")
    own = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>",
           "eos_token": "</s>", "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    cfg = settings_of(folder)
    tokenizer, model = load_tokenizer(cfg), load_base_model(cfg)
    ids = tokenizer("The market rose.", return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id == 1 and tokenizer.pad_token == "</s>"
    assert model(ids).logits.shape == (1, ids.shape[1], 32768)


def test_mistrals_own_tokenizer_format_names_its_package(of_mistral, tmp_path):
    folder = shutil.copytree(of_mistral, tmp_path / "model")
    shutil.copy(mistral_file("tekken_240718.json"), folder / "tekken.json")
    with pytest.raises(UserError, match=r"needs the package mistral-common, .*pip install mistral"):
        load_tokenizer(settings_of(folder))


def test_a_damaged_sentencepiece_file_is_no_missing_package(of_mistral, tmp_path):
    folder = shutil.copytree(of_mistral, tmp_path / "model")
    (folder / "tokenizer.model").write_bytes(mistral_file().read_bytes()[:1000])
    with pytest.raises(UserError, match=r"its tokenizer\.model is damaged"):
        load_tokenizer(settings_of(folder))


def test_a_missing_package_is_named():
    assert missing_package(ModuleNotFoundError("No module named 'x.y'", name="x.y")) == "x"
    assert missing_package(ValueError("Install it with `pip install tiktoken`.")) == "tiktoken"
    assert missing_package(ValueError("pip install git+https://example.org/x")) is None
    assert missing_package(ValueError("bad value")) is None


def test_generation_settings_are_read_or_defaults(folder):
    source = Source(str(folder))
    edit("generation_config.json", num_beams=3)(folder)
    assert read_generation_config(source, read_config(source)).num_beams == 3
    (folder / "generation_config.json").unlink()
    assert read_generation_config(source, read_config(source)).eos_token_id == 1


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
             "bnb_4bit_use_double_quant": True},
            Quantization("bitsandbytes", 4, "nf4", True, True),
        ),
        ({"load_in_8bit": True}, Quantization("bitsandbytes", 8, "int8", False, True)),
        ({"quant_method": "gptq", "bits": 4}, Quantization("gptq", 4, "gptq", False, True)),
        ({"quant_method": "fp8"}, Quantization("fp8", 8, "fp8", False, True)),
        ({"quant_method": "awq", "bits": True}, Quantization("awq", None, "awq", False, True)),
        (None, None),
    ],
)  # fmt: skip
def test_how_a_model_comes_quantized(given, known):
    class Config:
        quantization_config = given

    assert own_quantization(Config()) == known


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> Path:
    """A tiny model that comes quantized: nf4, with double quantization."""
    plain, folder = (tmp_path_factory.mktemp(name) for name in ("plain", "nf4"))
    save_tiny_llama(plain, width=64)
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=how).save_pretrained(folder)
    AutoTokenizer.from_pretrained(plain).save_pretrained(folder)
    return folder


def test_a_model_that_comes_quantized_is_used_as_it_comes(quantized):
    cfg = settings_of(quantized, **{"model.quantization": 4})
    how = quantization_of(cfg)
    assert how is not None and how.record() == {
        "method": "bitsandbytes", "bits": 4, "type": "nf4", "double": True, "from-model": True,
    }  # fmt: skip
    source = Source(str(quantized))
    layer = pretrained(source, read_config(source), quantization=4).model.layers[0].mlp.up_proj
    assert layer.weight.quant_type == "nf4"
    assert layer.compute_dtype == torch.float32  # as asked for, whatever its files say


@pytest.mark.parametrize(
    ("bits", "values", "said"),
    [
        (0, {}, "to 4 bits .bitsandbytes nf4, double .*model.quantization is 0; set"),
        (8, {}, "but model.quantization is 8; set model.quantization to 4"),
        (4, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "4 bits .gptq., of"),
    ],
)  # fmt: skip
def test_a_model_that_comes_quantized_otherwise_is_refused_before_it_is_loaded(
    quantized, tmp_path, bits, values, said
):
    folder = shutil.copytree(quantized, tmp_path / "model")
    edit(CONFIG, **values)(folder)
    (folder / WEIGHTS).write_bytes(b"\x02" + bytes(7) + b"{}")  # nothing is read of it
    with pytest.raises(UserError, match=said):
        quantization_of(settings_of(folder, **{"model.quantization": bits}))


def test_what_is_not_quantized_is_quantized_as_asked(tiny_model):
    how = quantization_of(settings_of(tiny_model, **{"model.quantization": 4}))
    assert how == Quantization("bitsandbytes", 4, "fp4")
    assert quantization_of(settings_of(tiny_model)) is None
