"""Only the answer is trained on, whatever the tokenizer."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false

import pytest
import torch

from flowertune.data.tokens import IGNORED, collate, cut
from flowertune.data.tokens import encode as encode_all
from tests import tokenizers

TOKENIZERS = pytest.mark.parametrize("tokenizer", [tokenizers.mistral, tokenizers.smollm2])
ALPACA = "Below is an instruction.\n### Instruction:\nWhat is 2 + 2?\n### Response:"
SCORER = "Instruction: Which?\nInput: Profit rose .\nAnswer: "


def encode(tokenizer, prompt, answer, seq_length):
    (example,) = encode_all(tokenizer, [(prompt, answer)])
    return cut(example, seq_length)


def decoded(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True)


@TOKENIZERS
@pytest.mark.parametrize("prompt", [ALPACA, SCORER])
@pytest.mark.parametrize("answer", ["positive", "Four.\nIt is even.", "### Response: yes", "é 数"])
def test_prompt_tokens_are_the_scorers_and_the_answer_is_what_is_left(tokenizer, prompt, answer):
    tokenizer = tokenizer()
    example = encode(tokenizer, prompt, answer, 512)
    start = example.answer_start
    assert list(example.ids[:start]) == tokenizer(prompt)["input_ids"]
    assert decoded(tokenizer, example.ids[start:-1]).strip() == answer
    assert example.ids[-1] == tokenizer.eos_token_id


@TOKENIZERS
def test_alpaca_text_reads_as_one_text(tokenizer):
    tokenizer = tokenizer()
    example = encode(tokenizer, ALPACA, "positive", 512)
    assert decoded(tokenizer, example.ids).strip() == ALPACA + " positive"


def test_an_answer_after_a_space_keeps_the_scorers_seam():
    tokenizer = tokenizers.smollm2()
    # " positive" as one token would never be asked for after a prompt that ends in a space.
    assert (
        encode(tokenizer, SCORER, "positive", 512).ids[-2:-1].tolist()
        == (tokenizer("positive")["input_ids"])
    )


@TOKENIZERS
def test_a_row_without_room_for_its_answer_is_none(tokenizer):
    tokenizer = tokenizer()
    prompt_tokens = len(tokenizer(ALPACA)["input_ids"])
    assert encode(tokenizer, ALPACA, "positive", prompt_tokens) is None
    cut = encode(tokenizer, ALPACA, "a long answer indeed", prompt_tokens + 2)
    assert len(cut.ids) - cut.answer_start == 2


def test_collate_pads_on_the_left_and_supervises_only_answers():
    tokenizer = tokenizers.smollm2()
    short = encode(tokenizer, "Two?", "2", 64)
    long = encode(tokenizer, "How many is one and one and one?", "three of them", 64)
    batch = collate([short, long], pad_id=0)
    pad = len(long.ids) - len(short.ids)
    assert pad > 0
    assert batch["attention_mask"][0].tolist() == [0] * pad + [1] * len(short.ids)
    assert batch["position_ids"][0, pad:].tolist() == list(range(len(short.ids)))
    for row, example in enumerate((short, long)):
        supervised = batch["labels"][row] != IGNORED
        assert batch["input_ids"][row][supervised].tolist() == list(
            example.ids[example.answer_start :]
        )
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
