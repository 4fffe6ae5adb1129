"""`python test.py`: ask a checkpoint, once or in a conversation."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from flowertune.chat.answer import Answer
from flowertune.cli import chat as command
from flowertune.cli import conversation
from flowertune.models.adapter import adapter_shapes, initial_adapter
from flowertune.run.checkpoint import checkpoint_config, save_checkpoint
from template.app.models import lora_config
from tests.apps import ROOT, default_settings, rendered, settings
from tests.tiny import save_tiny_llama

QUESTION = "What is a good day in London?"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def checkpoint(folder: Path, model: Path, challenge: str = "finance") -> Path:
    """A checkpoint of random weights, as a run of the challenge saves it."""
    flat = {**default_settings(challenge), "model.name": str(model), "model.quantization": 0}
    cfg = settings(flat)
    config = lora_config(cfg)
    adapter, _ = initial_adapter(cfg, config, adapter_shapes(cfg, config))
    torch.manual_seed(1)
    manifest = {
        "base-model": {"name": str(model), "revision": "main", "path": str(model)},
        "prompt-template": flat["prompt.template"],
        "settings": flat,
    }
    weights = {name: torch.randn_like(tensor) for name, tensor in adapter.items()}
    config.base_model_name_or_path = str(model)
    return save_checkpoint(folder, weights, checkpoint_config(config, weights), manifest)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("run") / "peft_7", model)


def ask(*arguments: object) -> int:
    return command.ask([*map(str, arguments), "--device", "cpu"])


def test_one_question_one_answer(saved, capsys):
    assert ask("--peft-path", saved, "--question", QUESTION, "--max-new-tokens", 8) == 0
    first = capsys.readouterr()
    assert first.out.strip() and f"{saved}: on " in first.err
    assert ask("--peft-path", saved.parent, "--question", QUESTION, "--max-new-tokens", 8) == 0
    assert capsys.readouterr().out == first.out  # same seed; a run's folder is its checkpoint
    ask("--peft-path", saved, "--question", QUESTION, "--max-new-tokens", 8, "--seed", 1)
    assert capsys.readouterr().out != first.out


def test_the_adapter_counts(saved, model, capsys):
    words = ("--question", QUESTION, "--max-new-tokens", 12, "--temperature", 0)
    ask("--peft-path", saved, *words)
    tuned = capsys.readouterr().out
    ask("--model", model, *words)
    assert capsys.readouterr().out != tuned


def test_half_an_adapter_gives_no_answer(saved, tmp_path, capsys):
    half = shutil.copytree(saved, tmp_path / "peft_7")
    file = half / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.0" in k}, file)
    assert ask("--peft-path", half, "--question", QUESTION) == 1
    said = capsys.readouterr()
    assert said.out == "" and "it lacks 4 of 8 tensors (" in said.err.splitlines()[-1]


def test_an_answer_is_as_long_as_those_of_the_training_rows():
    assert conversation.longest_answer({"longest-answer-tokens": 300}) == 300
    assert conversation.longest_answer({"longest-answer-tokens": 2}) == 16
    for manifest in ({}, {"longest-answer-tokens": None}, {"longest-answer-tokens": True}):
        assert conversation.longest_answer(manifest) == 512


def test_an_answer_that_was_cut_says_so(saved, capsys):
    ask("--peft-path", saved, "--question", QUESTION, "--max-new-tokens", 3, "--temperature", 0)
    assert "(cut after 3 tokens; --max-new-tokens changes that)" in capsys.readouterr().err


def test_a_question_that_the_model_has_no_room_for_is_one_sentence(model, capsys):
    assert ask("--model", model, "--question", "x" * 1100) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "tokens as the model reads it, and the model takes at most 1024" in error


def test_a_conversation_goes_on_until_exit(saved, capsys, monkeypatch):
    lines = iter(["Hello", "", "And then?", "exit", "never asked"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    seen = []
    monkeypatch.setattr(
        conversation, "answer", lambda *a: seen.append(a[2]) or a[5]("Hi.") or Answer("Hi.")
    )
    assert ask("--peft-path", saved) == 0
    assert capsys.readouterr().out == "Hi.\nHi.\n"
    assert seen[0].endswith(" USER: Hello ASSISTANT:")
    assert seen[1].endswith(" USER: Hello ASSISTANT: Hi.</s>USER: And then? ASSISTANT:")


def test_a_conversation_ends_with_its_input():
    asked = []

    def reply(turns, question):
        asked.append((list(turns), question))
        return "!"

    with pytest.MonkeyPatch.context() as patch:
        lines = iter(["a", "b"])

        def line(_):
            for text in lines:
                return text
            raise EOFError

        patch.setattr("builtins.input", line)
        conversation.converse(reply, at_a_terminal=False)
    assert asked == [([], "a"), ([("a", "!")], "b")]


def test_errors_come_before_any_model(saved, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conversation, "load", None)  # would fail
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    averaged = tmp_path / "run"
    averaged.mkdir()
    (averaged / "model_1").symlink_to(model)
    lone = tmp_path / "lone"
    lone.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (lone / name).write_bytes((saved / name).read_bytes())
    for arguments, said in (
        ((), "use --peft-path results/<run id>/peft_<round>"),
        (("--peft-path", tmp_path / "none"), "there is no such folder; give one like results/"),
        (("--peft-path", tmp_path), "no PEFT checkpoint and no run with one"),
        (("--peft-path", model), f"There is a whole model: --model {model}"),
        (("--peft-path", averaged), f"There is a whole model: --model {averaged / 'model_1'}"),
        (("--peft-path", tmp_path / "half"), "adapter_model.safetensors is missing"),
        (("--peft-path", saved, "--model", "./none"), "--model is '"),
        (("--peft-path", saved, "--question", " "), "--question is empty"),
        (("--peft-path", lone, "--template", "trained"), "There is no manifest.json that says"),
    ):
        assert command.ask([*map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--max-new-tokens", "0"), ("--temperature", "-1"), ("--template", "x")]
)
def test_a_wrong_option_is_named(option, value, capsys):
    assert ask(option, value) == 2
    assert option in capsys.readouterr().err


def test_an_adapter_of_another_model_is_one_sentence(model, tmp_path, capsys):
    other = checkpoint(tmp_path / "peft_1", save_tiny_llama(tmp_path / "other"))
    small = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(small).save_pretrained(tmp_path / "small")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "small")
    assert ask("--peft-path", other, "--model", tmp_path / "small", "--question", "x") == 1
    assert "does not fit the base model" in capsys.readouterr().err.splitlines()[-1]


def test_the_documents_command_in_a_rendered_app(model, tmp_path):
    """`python test.py` where it lies; and pytest does not take it for a test."""
    app = rendered("flowertune-llm")
    saved = checkpoint(tmp_path / "trained-model-dir", model, "flowertune-llm")
    done = subprocess.run(
        [sys.executable, "test.py", f"--peft-path={saved}/", f"--question={QUESTION}",
         "--max-new-tokens", "4"],
        cwd=app, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider",
         str(ROOT / "template")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "no tests" in found.stdout, found.stdout
