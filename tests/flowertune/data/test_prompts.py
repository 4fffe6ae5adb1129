"""Prompts from a tokenizer's own chat template."""

import pytest
from transformers import AutoTokenizer

from flowertune.base.errors import UserError
from flowertune.data.prompts import chat_prompt
from flowertune.data.tokens import encode
from tests.tiny import save_tiny_llama
from tests.tokenizers import mistral, smollm2

# The form of Mistral's instruction models.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture
def with_template(monkeypatch):
    tokenizer = mistral()
    monkeypatch.setattr(tokenizer, "chat_template", INST)
    return tokenizer


def test_the_prompt_is_the_templates():
    prompt = chat_prompt(smollm2(), "What is 2 + 2?")
    assert prompt.startswith("<|im_start|>system\n")
    assert prompt.endswith("<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n")


def test_there_is_one_beginning_of_sequence(with_template):
    prompt = chat_prompt(with_template, "Hello")
    assert prompt == "[INST] Hello[/INST]"
    (example,) = encode(with_template, [(prompt, "Hi")])
    assert example.ids.count(with_template.bos_token_id) == 1
    assert example.ids[0] == with_template.bos_token_id


def test_a_row_is_tokenized_as_a_conversation_is():
    tokenizer, question, answer = smollm2(), "Name a color.", "Red."
    (example,) = encode(tokenizer, [(chat_prompt(tokenizer, question), answer)])
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("\n")
    assert list(example.ids) == tokenizer(whole)["input_ids"]
    assert tokenizer.decode(list(example.ids[example.answer_start :])) == "Red.<|im_end|>"


def test_a_tokenizer_without_a_template_is_one_sentence(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_llama(tmp_path))
    with pytest.raises(UserError, match="has no chat template; set it to false"):
        chat_prompt(tokenizer, "Hello")


def test_a_template_that_fails_is_one_sentence(monkeypatch):
    tokenizer = mistral()
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no such role') }}")
    with pytest.raises(UserError, match="no such role"):
        chat_prompt(tokenizer, "Hello")
