"""Early stopping of finance rows, against answers made to mislead it."""

import pytest
from lm_eval.api.instance import Instance

from evaluation import finance, generation, lm, run
from tests.evaluation import official
from tests.evaluation.wordy import wordy_llama
from tests.tokenizers import mistral, smollm2

ANSWERS = [
    "not positive",
    "negative, and only much later after many words positive",
    "negative\nAnswer: positive",
    "POSITIVE and nothing else",
    "",
    "neutral. " * 30 + "Positive",
    "Answer: Answer: negative",
    "pos itive",
    "Negative\nAnswer:\nAnswer: x positive",
    "{negative/neutral/positive}",
]
KWARGS = finance.CHALLENGE.sets[0].form("official").config()["generation_kwargs"]


@pytest.mark.parametrize("load", [mistral, smollm2])
def test_misleading_answers_get_their_official_label(load, monkeypatch):
    tokenizer = load()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    prompts = [official.finance_prompt("news", f"Row {n} .") for n in range(len(ANSWERS))]
    script = {}
    for prompt, answer in zip(prompts, ANSWERS, strict=True):
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        script[tuple(tokenizer(prompt)["input_ids"])] = [*tokens, tokenizer.eos_token_id]
    taken = {}

    def scripted(model, rows, *, end_ids, on_done, **_):
        for row in rows:
            answer = script[tuple(row.prompt)]
            while not row.done and len(row.new) < len(answer):
                row.take(answer[len(row.new)], end_ids)
            taken[row.index] = len(row.new), len(answer)
            on_done(row)

    monkeypatch.setattr(generation, "decode", scripted)
    with run.suppress_logs():
        scorer = lm.RowwiseLM(wordy_llama(tokenizer, ["x"]), tokenizer, 4)
    requests = [
        Instance("generate_until", {}, (prompt, KWARGS), 0, ("t", n, 1), resps=[])
        for n, prompt in enumerate(prompts)
    ]
    found = scorer.generate_until(requests)
    for n, (response, answer) in enumerate(zip(found, ANSWERS, strict=True)):
        tokens = next(t for p, t in script.items() if list(p) == tokenizer(prompts[n])["input_ids"])
        ids = tokenizer(prompts[n])["input_ids"] + tokens
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        parts = whole.split("Answer: ")
        expected = official.change_target(parts[1] if len(parts) > 1 else "None")
        assert finance.grade({"target": ""}, [response]).answer == expected, answer
    stopped = {ANSWERS[n] for n, (new, length) in taken.items() if new < length - 1}
    assert "{negative/neutral/positive}" in stopped
    assert not stopped & {"POSITIVE and nothing else", "", "pos itive"}


def test_a_loaded_model_is_not_tied_again(monkeypatch):
    # In a model whose layers share a block, it would give all of them the adapter of the first.
    def tie(*given, **named):
        raise AssertionError("tied again")

    tokenizer = smollm2()
    model = wordy_llama(tokenizer, ["x"])
    monkeypatch.setattr(type(model), "tie_weights", tie)
    with run.suppress_logs():
        lm.RowwiseLM(model, tokenizer, 4)
    assert model.tie_weights.__func__ is tie
