"""An answer is shown while it is generated, without the text that ends it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flowertune.chat.answer import Answer, Sampling, answer, answer_streamer, visible
from tests.tiny import save_tiny_llama
from tests.tokenizers import mistral, smollm2

STOPS = ("USER:", "### Instruction:")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Go to the Tower", "Go to the Tower"),
        ("Go. U", "Go."),  # may become USER:
        ("Go. USER", "Go."),
        ("Go. USER: And", "Go."),
        ("Go. USEFUL", "Go. USEFUL"),
        ("Go.\n### Instr", "Go."),
        ("Go. \n", "Go."),
    ],
)
def test_what_may_be_a_stop_text_is_held_back(text, shown):
    assert visible(text, STOPS) == shown


def test_what_was_held_back_is_shown_at_the_end():
    assert visible("Ask the U", STOPS, final=True) == "Ask the U"


@pytest.mark.parametrize("tokenizer", [mistral, smollm2])
def test_an_answer_comes_in_pieces_that_add_up(tokenizer):
    code = "Café Zoë 🌸, then\n    return 1\n  # 花 done"
    pieces: list[str] = []
    streamer = answer_streamer(tokenizer(), STOPS, pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for token in tokenizer()(f"{code}\nUSER: no", add_special_tokens=False)["input_ids"]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == streamer.answer == code
    assert len(pieces) > 3 and not any("\ufffd" in piece for piece in pieces)


class Scripted(torch.nn.Module):
    """A model's last layer, replaced: it generates the tokens of a text, one after the other."""

    def __init__(self, tokens: list[int], vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.vocabulary, self.steps = tokens, vocabulary, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros((*hidden.shape[:2], self.vocabulary))
        logits[..., self.tokens[min(self.steps, len(self.tokens) - 1)]] = 9.0
        self.steps += 1
        return logits


@pytest.fixture
def scripted(tmp_path):
    """A tokenizer, and a model that says a given text."""
    folder = save_tiny_llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)

    def says(text: str) -> tuple:
        model.lm_head = Scripted(tokenizer(text)["input_ids"], len(tokenizer))
        return tokenizer, model

    return says


def test_a_stop_text_ends_the_generation(scripted):
    tokenizer, model = scripted("Go. USER: and so on and on")
    pieces: list[str] = []
    said = answer(tokenizer, model, "Where? ", STOPS, Sampling(40, temperature=0), pieces.append)
    assert said == Answer("".join(pieces)) == Answer("Go.")
    assert model.lm_head.steps == len(tokenizer("Go. USER:")["input_ids"])


def test_an_answer_ends_at_its_greatest_length(scripted):
    tokenizer, model = scripted("and so on and on and on")
    said = answer(tokenizer, model, "Where? ", STOPS, Sampling(9, temperature=0), lambda _: None)
    assert said == Answer("and so on", cut=True) and model.lm_head.steps == 9


def test_an_interrupt_keeps_what_was_said(scripted):
    tokenizer, model = scripted("one two three four five")

    def interrupted(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    pieces: list[str] = []
    said = answer(tokenizer, model, "Count. ", (), Sampling(20, temperature=0), interrupted)
    assert said.text.startswith("one ") and said.text == "".join(dict.fromkeys(pieces))


def greedy(tokenizer, model, prompt: str, count: int) -> str:
    """The most likely tokens, one after the other, without `generate`."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(ids[0, start:])


def test_the_models_own_generation_settings_change_nothing(tmp_path):
    folder = save_tiny_llama(tmp_path)
    own = {
        "num_beams": 4, "repetition_penalty": 1.9, "top_k": 1, "no_repeat_ngram_size": 1,
        "min_length": 90, "max_new_tokens": 1, "do_sample": True, "temperature": 5.0,
    }  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(own))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)

    def said(model, temperature):
        sampling = Sampling(12, temperature, seed=3)
        return answer(tokenizer, model, "Why? ", (), sampling, lambda _: None).text

    assert said(model, 0.0) == greedy(tokenizer, plain, "Why? ", 12).lstrip()
    assert said(model, 0.9) == said(plain, 0.9) != said(plain, 0.0)
