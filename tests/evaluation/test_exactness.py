"""Every row gets the answer that the plain official loop gives it, whatever the batch."""

import functools

import pytest

from evaluation import data, lm, run, sets
from evaluation.data import Source
from tests.evaluation import official
from tests.evaluation.wordy import wordy_llama
from tests.tokenizers import mistral, smollm2

TOKENIZERS = {"mistral": mistral, "smollm2": smollm2}
BATCHES = [1, 3, 8]
SAY_LABELS = ["positive", "negative", "Negative", "neutral", "Answer: ", "no", "\n", "."]
SAY_LETTERS = ["A", "B", "C", "D", " b", "yes", "no", "maybe", "The", "\n", "("]
SAY_CODE = ["    return", "\n", "x", " +", "1", "\ndef", "\n#", "}", "\nprint", "(", ")"]


@functools.cache
def speaker(name, words):
    """A tiny model and its tokenizer; cached, so that all batch sizes see the same one."""
    tokenizer = TOKENIZERS[name]()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return wordy_llama(tokenizer, list(words), seed=3), tokenizer


def rows_of(challenge, item, count):
    return data.read_jsonl(data.SAMPLES / challenge / item.file)[:count]


def scored(challenge, names, suite, speaks, batch_size, count):
    """Answers by set, from the whole package."""
    model, tokenizer = speaks
    known = sets.of_challenge(challenge)
    chosen = [known.named()[name] for name in names]
    source = Source("sample", data.SAMPLES / challenge)
    documents = {item.name: data.load(item, source, 1, suite) for item in chosen}
    plan = run.Plan(challenge, suite, chosen, documents, known.seed, limit=count)
    with run.suppress_logs():
        scorer = lm.RowwiseLM(model, tokenizer, batch_size)
    return run.score(scorer, plan).answers


@functools.cache
def finance_expected(name, item_name, count):
    model, tokenizer = speaker(name, tuple(SAY_LABELS))
    item = sets.of_challenge("finance").named()[item_name]
    rows = [official.FINANCE[item_name](row) for row in rows_of("finance", item, count)]
    prompts = [official.finance_prompt(kind, text) for kind, text, _ in rows]
    texts, labels = official.finance_answers(model, tokenizer, prompts)
    return (
        texts,
        labels,
        [label == target for label, (_, _, target) in zip(labels, rows, strict=True)],
    )


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_finance_decisions(name, batch_size):
    count = 4
    speaks = speaker(name, tuple(SAY_LABELS))
    found = scored("finance", ["fpb", "fiqa", "tfns"], "official", speaks, batch_size, count)
    decided_early = 0
    seen = set()
    for item_name, answers in found.items():
        texts, labels, correct = finance_expected(name, item_name, count)
        assert [answer.outcome.answer for answer in answers] == labels
        assert [answer.outcome.points == 1 for answer in answers] == correct
        for answer, text in zip(answers, texts, strict=True):
            early = len(answer.responses[0]) < len(text)
            assert text.startswith(answer.responses[0])
            tail = answer.responses[0].split("Answer: ", 1)[1]
            assert not early or "ositive" in tail or "Answer: " in tail
            decided_early += early
        seen.update(labels)
    assert len(seen) == 3, "the model should give every label"
    assert decided_early


def exam_rows(challenge, item, count):
    rows = rows_of(challenge, item, count)
    if challenge == "general-nlp":
        instruction = "Answer the following multiple choice question."
        pairs = [
            (official.lettered(r["question"], r["choices"]), "ABCD"[r["answer"]]) for r in rows
        ]
    elif item.name == "pubmedqa":
        instruction = (
            "As an expert doctor in clinical science and medical knowledge, can you tell me if the "
            "following statement is correct? Answer yes, no, or maybe."
        )
        pairs = [
            ("\n".join(r["context"]["contexts"]) + "\n" + r["question"], r["final_decision"])
            for r in rows
        ]
    else:
        options = {
            "medmcqa": lambda r: [r["opa"], r["opb"], r["opc"], r["opd"]],
            "medqa": lambda r: [r["options"][letter] for letter in "ABCD"],
            "careqa": lambda r: [r["op1"], r["op2"], r["op3"], r["op4"]],
        }[item.name]
        gold = {
            "medmcqa": lambda r: "ABCD"[r["cop"]],
            "medqa": lambda r: next(k for k, v in r["options"].items() if v == r["answer"]),
            "careqa": lambda r: "ABCD"[r["cop"] - 1],
        }[item.name]
        pairs = [(official.lettered(r["question"], options(r)), gold(r)) for r in rows]
        context = item.form("official").documents(rows[:1])[0]["context"]
        instruction = context.split("\n")[1]
    prompts = [official.exam_prompt(instruction, body) for body, _ in pairs]
    return prompts, [gold for _, gold in pairs]


EXAMS = [
    (challenge, item.name)
    for challenge in ("general-nlp", "medical")
    for item in sets.of_challenge(challenge).sets
]


@functools.cache
def exam_expected(name, challenge, item_name, count):
    model, tokenizer = speaker(name, tuple(SAY_LETTERS))
    item = sets.of_challenge(challenge).named()[item_name]
    prompts, golds = exam_rows(challenge, item, count)
    boolean = item_name == "pubmedqa"
    answers = official.exam_answers(model, tokenizer, prompts, golds, boolean)
    return answers, [gold.lower() for gold in golds]


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("challenge", ["general-nlp", "medical"])
def test_multiple_choice_decisions(challenge, name, batch_size):
    count = 20  # more than one official batch of 16
    names = [item for of, item in EXAMS if of == challenge]
    speaks = speaker(name, tuple(SAY_LETTERS))
    found = scored(challenge, names, "official", speaks, batch_size, count)
    seen = set()
    for item_name, answers in found.items():
        expected, golds = exam_expected(name, challenge, item_name, count)
        assert [answer.outcome.answer for answer in answers] == expected
        points = [answer.outcome.points == 1 for answer in answers]
        assert points == [a == gold for a, gold in zip(expected, golds, strict=True)]
        seen.update(expected)
    assert len(seen) > 3, "the model should give several answers"


@functools.cache
def code_expected(name, item_name, count):
    model, tokenizer = speaker(name, tuple(SAY_CODE))
    item = sets.of_challenge("code").named()[item_name]
    prompts = [row["prompt"].strip() for row in rows_of("code", item, count)]
    stops = item.form("standard").config()["generation_kwargs"]["until"]
    return official.completions(model, tokenizer, prompts, stops, 1024)


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_code_completions(name, batch_size, monkeypatch):
    """Greedy completions (the standard suite), cut where the official scorer cuts."""
    monkeypatch.setattr(
        "evaluation.programs.run_all",
        lambda programs, **_: [Passed() for _ in programs],
    )
    count = 4
    speaks = speaker(name, tuple(SAY_CODE))
    found = scored("code", ["humaneval", "multiple-js"], "standard", speaks, batch_size, count)
    for item_name, answers in found.items():
        expected = code_expected(name, item_name, count)
        assert [answer.responses[0] for answer in answers] == expected
        assert any(expected)


class Passed:
    """An outcome that needs no program to run."""

    passed, status, detail = True, "passed", ""
