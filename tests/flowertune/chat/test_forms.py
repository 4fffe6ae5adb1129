"""How a conversation becomes a prompt."""

import pytest
from transformers import AutoTokenizer

import challenges
from flowertune.base.errors import UserError
from flowertune.chat import forms
from flowertune.chat.forms import form_of, own, trained, vicuna, what_fits
from tests.apps import default_settings
from tests.tiny import save_tiny_llama
from tests.tokenizers import smollm2

QUESTION = "What is a good day in London?"


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


def test_alpaca_repeats_the_turns_before():
    text = forms.alpaca().write([("a", "b")], "c")
    assert text.endswith(
        "\n### Instruction:\na\n### Response: b\n### Instruction:\nc\n### Response:"
    )


@pytest.mark.parametrize("name", [n for n in challenges.names() if n != "flowertune-llm"])
def test_the_format_of_training_takes_the_question_once(name):
    text = trained(challenges.load(name)["scorer-prompt"]).write([], "Why?")
    assert text.count("Why?") == 1


def test_a_template_without_a_question_fills_every_column():
    assert trained("Q: {input}\nA:").write([("a", "b")], "c") == "Q: a\nA: b\n\nQ: c\nA:"
    assert trained("In: {input} Do: {instruction} ").write([], "c") == "In:  Do: c "


def test_the_models_own_format_is_its_chat_template(tmp_path):
    text = own(smollm2()).write([("Hello", "Hi")], "Bye")
    assert text.endswith(
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(UserError, match=r"no chat template; choose another .* --template"):
        own(AutoTokenizer.from_pretrained(save_tiny_llama(tmp_path)))


def test_a_checkpoint_trained_in_the_chat_format_is_asked_in_it():
    manifest = {"prompt-template": "unused", "settings": {"model.chat-template": True}}
    text = form_of("trained", smollm2(), manifest).write([], "Hello")
    assert text.startswith("<|im_start|>system")


def test_old_turns_make_room():
    turns = [("1", "one"), ("2", "two"), ("3", "three")]
    assert what_fits(turns, lambda some: len(some) <= 2) == turns[1:]
    assert what_fits(turns, lambda some: False) == []
