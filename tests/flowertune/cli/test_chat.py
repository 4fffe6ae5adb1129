"""`python test.py`: ask a checkpoint, once or in a conversation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import challenges
from flowertune.base.errors import UserError
from flowertune.chat import forms
from flowertune.chat.answer import Listener, shown
from flowertune.chat.checkpoint import find_checkpoint
from flowertune.chat.forms import form_of, own, trained, vicuna, what_fits
from flowertune.chat.model import precision
from flowertune.cli import chat as command
from flowertune.run.checkpoint import save_checkpoint
from template.app.models import initial_adapter
from tests.apps import ROOT, default_settings, rendered
from tests.tiny import save_tiny_llama
from tests.tokenizers import smollm2

QUESTION = "What is a good day in London?"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def checkpoint(folder: Path, model: Path, challenge: str = "finance", scale: float = 1.0) -> Path:
    """A checkpoint of random weights, as a run of the challenge saves it."""
    cfg = {**default_settings(challenge), "model.name": str(model), "model.quantization": 0}
    adapter, config = initial_adapter(cfg)
    torch.manual_seed(1)
    adapter = {name: scale * torch.randn_like(tensor) for name, tensor in adapter.items()}
    manifest = {
        "base-model": {"name": str(model), "revision": "main", "path": str(model)},
        "prompt-template": cfg["prompt.template"],
        "settings": cfg,
    }
    return save_checkpoint(folder, adapter, config, manifest)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("run") / "peft_7", model)


def ask(*arguments: object) -> int:
    return command.main([*map(str, arguments), "--device", "cpu"])


def test_vicuna_writes_what_vicuna_was_tuned_on():
    text = vicuna("</s>").write([("Hello!", "Hi!"), ("Who are you?", "A model.")], "Goodbye.")
    assert text == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
        "USER: Hello! ASSISTANT: Hi!</s>USER: Who are you? ASSISTANT: A model.</s>"
        "USER: Goodbye. ASSISTANT:"
    )


@pytest.mark.parametrize("name", challenges.names())
def test_alpaca_is_the_official_prompt(name):
    official = default_settings(name)["prompt.template"]
    assert forms.alpaca().write([], QUESTION) == official.format(question=QUESTION)
    assert trained(official).write([], QUESTION) == official.format(question=QUESTION)
    assert (
        forms.alpaca()
        .write([("a", "b")], "c")
        .endswith("\n### Instruction:\na\n### Response: b\n### Instruction:\nc\n### Response:")
    )


@pytest.mark.parametrize("name", [n for n in challenges.names() if n != "flowertune-llm"])
def test_the_form_of_training_takes_the_question_once(name):
    text = trained(challenges.load(name)["scorer-prompt"]).write([], "Why?")
    assert text.count("Why?") == 1


def test_a_template_without_a_question_fills_every_column():
    assert trained("Q: {input}\nA:").write([("a", "b")], "c") == "Q: a\nA: b\n\nQ: c\nA:"
    assert trained("In: {input} Do: {instruction} ").write([], "c") == "In:  Do: c "


def test_the_models_own_form_is_its_chat_template(model):
    text = own(smollm2()).write([("Hello", "Hi")], "Bye")
    assert text.endswith(
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(UserError, match="no chat template; choose another form with --template"):
        own(AutoTokenizer.from_pretrained(model))


def test_a_checkpoint_trained_in_the_chat_form_is_asked_in_it():
    manifest = {"prompt-template": "unused", "settings": {"model.chat-template": True}}
    text = form_of("trained", smollm2(), manifest).write([], "Hello")
    assert text.startswith("<|im_start|>system")


def test_old_turns_make_room():
    turns = [("1", "one"), ("2", "two"), ("3", "three")]
    assert what_fits(turns, lambda some: len(some) <= 2) == turns[1:]
    assert what_fits(turns, lambda some: False) == []


@pytest.mark.parametrize(
    ("text", "seen", "ended"),
    [
        ("Go to the Tower", "Go to the Tower", False),
        ("Go. U", "Go.", False),  # may become USER:
        ("Go. USER", "Go.", False),
        ("Go. USER: And", "Go.", True),
        ("Go. USEFUL", "Go. USEFUL", False),
        ("caf\ufffd", "caf", False),  # half a character
        ("Go. \n", "Go.", False),
    ],
)
def test_what_may_be_a_stop_text_is_held_back(text, seen, ended):
    assert shown(text, ("USER:",)) == (seen, ended)


def test_what_was_held_back_is_shown_at_the_end():
    assert shown("Ask the U", ("USER:",), final=True) == ("Ask the U", True)


def test_an_answer_comes_in_pieces_that_add_up():
    tokenizer, pieces = smollm2(), []
    listener = Listener(tokenizer, ("USER:",), pieces.append)
    listener.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for token in tokenizer(" Café Zoë 🌸, then USER: no", add_special_tokens=False)["input_ids"]:
        listener.put(torch.tensor([token]))
        if listener(torch.zeros(1, 1), None).all():
            break
    listener.end()
    assert "".join(pieces) == listener.text == "Café Zoë 🌸, then"
    assert len(pieces) > 3 and not any("\ufffd" in piece for piece in pieces)


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


def test_a_conversation_goes_on_until_exit(saved, capsys, monkeypatch):
    lines = iter(["Hello", "", "And then?", "exit", "never asked"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    seen = []
    monkeypatch.setattr(command, "answer", lambda *a: seen.append(a[2]) or a[5]("Hi.") or "Hi.")
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
        command.converse(reply, at_a_terminal=False)
    assert asked == [([], "a"), ([("a", "!")], "b")]


def test_a_base_model_that_moved_is_found_by_its_name(saved, model, tmp_path):
    """The path in adapter_config.json is another machine's; the manifest has the name."""
    copy = tmp_path / "peft_1"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/another/machine/model"
    (copy / "adapter_config.json").write_text(json.dumps(config))
    assert choose(copy, None).base == str(model)
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"there is no folder /another.*Say where it is with --mod"):
        choose(copy, None)
    assert choose(copy, str(model)).base == str(model)


def test_the_newest_checkpoint_of_a_run(saved, tmp_path):
    for number in (5, 10, 100):
        (tmp_path / f"peft_{number}").symlink_to(saved)
    (tmp_path / ".peft_200.part").mkdir()
    assert find_checkpoint(tmp_path).name == "peft_100"


def test_errors_come_before_any_model(saved, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "load", None)  # would fail
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
        ((), "Say what to talk to: --peft-path results/<run id>/peft_<round>"),
        (("--peft-path", tmp_path / "none"), "there is no such folder; give one like results/"),
        (("--peft-path", tmp_path), "no PEFT checkpoint and no run with one"),
        (("--peft-path", model), f"There is a whole model: --model {model}"),
        (("--peft-path", averaged), f"There is a whole model: --model {averaged / 'model_1'}"),
        (("--peft-path", tmp_path / "half"), "it holds no adapter_model.safetensors"),
        (("--peft-path", saved, "--model", "./none"), "--model cannot be had"),
        (("--peft-path", saved, "--question", " "), "--question is empty"),
        (("--peft-path", lone, "--template", "trained"), "There is no manifest.json that says"),
    ):
        assert command.main([*map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize("device", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_there(device, saved):
    with pytest.raises(UserError, match=f"--device is '{device}'"):
        precision(device, None, "auto", choose(saved, None))


@pytest.mark.parametrize(
    ("option", "value"), [("--max-new-tokens", "0"), ("--temperature", "-1"), ("--template", "x")]
)
def test_a_wrong_option_is_named(option, value, capsys):
    with pytest.raises(SystemExit):
        ask(option, value)
    assert option in capsys.readouterr().err


def test_an_adapter_of_another_model_is_one_sentence(model, tmp_path, capsys):
    other = checkpoint(tmp_path / "peft_1", save_tiny_llama(tmp_path / "other"))
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    assert config["hidden_size"] == 32
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(small).save_pretrained(tmp_path / "small")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "small")
    assert ask("--peft-path", other, "--model", tmp_path / "small", "--question", "x") == 1
    assert "does not fit the model" in capsys.readouterr().err.splitlines()[-1]


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
