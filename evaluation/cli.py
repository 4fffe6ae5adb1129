"""The command line that all challenges share."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import challenges
from evaluation import checkpoint as checkpoints
from evaluation import data, machine, sets
from evaluation.errors import EvaluationError

_DESCRIPTION = """\
Score a checkpoint of the {title} challenge on {titles}, with the prompts, decoding and answer
rules of the leaderboard's own scorer ("suite official"), and write everything that is needed to
repeat the result to results.json.

The base model is the one the checkpoint names. A checkpoint that was not made under the locked
values is refused unless you say --unofficial; the result then says so, too.
"""
_EPILOG = """\
examples:
  # the official score, as the leaderboard's scorer loads the model (4-bit; needs the hub)
  python -m {module} results/<run>/peft_200
  # how much did fine-tuning help?
  python -m {module} results/<run>/peft_200 --compare base
  # no GPU, no hub, the small sample: what the quickstart does
  python -m {module} results/<run>/peft_10 --sample --quantization 0 --compare base --unofficial
  # any model, without a checkpoint
  python -m {module} --model mistralai/Mistral-7B-v0.3

A table marks what keeps its numbers from being comparable with the leaderboard: partial data,
another quantisation or dtype, an unofficial checkpoint.
"""


def parser(challenge: str) -> argparse.ArgumentParser:
    """The options of one challenge's command."""
    facts = challenges.load(challenge)
    titles = ", ".join(entry["title"] for entry in facts["evaluation"]["sets"])
    module = sets.module_name(challenge)
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION.format(title=facts["title"], titles=titles),
        epilog=_EPILOG.format(module=module),
    )
    made.add_argument(
        "checkpoint", nargs="?", type=Path, metavar="CKPT", help="folder peft_<round> of a run"
    )
    what = made.add_argument_group("what to score")
    what.add_argument(
        "--model",
        help="base model (hub id or folder) instead of the one CKPT names; without CKPT, it alone",
    )
    what.add_argument(
        "--base-only", action="store_true", help="score CKPT's base model without the adapter"
    )
    what.add_argument(
        "--compare", choices=["base"], help="score the base model as well and show both"
    )
    what.add_argument(
        "--unofficial",
        action="store_true",
        help="score CKPT even if it breaks the rules; the result says so",
    )
    rows = made.add_argument_group("on which rows").add_mutually_exclusive_group()
    rows.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="read <set>.jsonl from DIR (one row a line, columns as on the hub) instead of the "
        "hub; a file with another "
        "number of rows than the hub's is scored as it is and the result marked partial",
    )
    rows.add_argument(
        "--sample",
        action="store_true",
        help="score the small sample in this package: no hub needed",
    )
    names = list(sets.of_challenge(challenge))
    made.add_argument(
        "--sets", metavar="A,B", help=f"only these sets, of {','.join(names)} (default: all)"
    )
    made.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="only the first N rows of each set (result marked partial)",
    )
    how = made.add_argument_group("how to compute")
    how.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="rows at a time; changes speed and memory, never an answer (default: %(default)s)",
    )
    how.add_argument(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="cut every answer after N tokens: much faster for "
        "models that ramble, but not the official rule, and the result says so",
    )
    how.add_argument(
        "--quantization",
        type=int,
        choices=[4, 8, 0],
        default=4,
        help="bits of the base model's weights; 0 loads them as they are (default: %(default)s, "
        "the official one)",
    )
    how.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="type to compute in; the official one is %(default)s, which is also the default",
    )
    how.add_argument("--device", help='such as "cuda:1" (default: the GPU if there is one)')
    how.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let the base model run its own Python code",
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: beside the adapter)",
    )
    return made  # fmt: skip


def main(challenge: str, argv: list[str] | None = None) -> None:
    """Run one challenge's command; exits with 1 and one sentence on stderr if it cannot be done."""
    made = parser(challenge)
    arguments = made.parse_args(argv)
    try:
        evaluate(challenge, arguments)
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def evaluate(challenge: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Check everything, score, print the table, write the results; returns results.json's content.

    Raises:
        EvaluationError: one sentence; raised before the model is loaded wherever that is possible.
    """
    started = time.time()
    facts = challenges.load(challenge)["evaluation"]
    chosen = _choose_sets(challenge, arguments.sets)
    _check_numbers(arguments)
    checkpoint = _read_checkpoint(challenge, arguments)
    models = _models(arguments, checkpoint)
    entries = {entry["set"]: entry for entry in facts["sets"]}
    source = _source(challenge, arguments)

    # Heavy imports wait until the cheap checks are done.
    from evaluation import model as loading

    base = arguments.model or (checkpoint.base if checkpoint else "")
    choice = loading.ModelChoice(
        base=base,
        revision=None if arguments.model or checkpoint is None else checkpoint.revision,
        adapter=checkpoint.path if checkpoint and "checkpoint" in models else None,
        quantization=arguments.quantization,
        dtype=arguments.dtype,
        device=arguments.device or loading.default_device(),
        trust_remote_code=arguments.trust_remote_code,
    )
    tokenizer = loading.tokenizer(choice)
    documents = {item.name: data.load(item, source, entries[item.name]["rows"]) for item in chosen}

    from evaluation import lm, report, run

    for item in chosen:
        contexts = [
            document["context"] for document in documents[item.name].documents[: arguments.limit]
        ]
        lm.check_lengths(item.name, contexts, item.generation, tokenizer)
    print(_heading(challenge, choice, models), file=sys.stderr)
    loaded = loading.load(choice)
    with run.quiet():
        scorer = lm.RowwiseLM(
            loaded,
            tokenizer,
            arguments.batch_size,
            recheck_ties=choice.dtype == "float32",
            answer_tokens=arguments.answer_tokens,
        )
    passes = {}
    for name in models:
        options: dict[str, Any] = {"limit": arguments.limit, "label": report.NAMES[name]}
        if name == "base":
            with loading.without_adapter(loaded):
                passes[name] = run.score(scorer, challenge, chosen, documents, **options)
        else:
            passes[name] = run.score(scorer, challenge, chosen, documents, **options)

    departures = _departures(arguments)
    unofficial = [] if checkpoint is None or "checkpoint" not in models else checkpoint.reasons
    full = arguments.limit is None and all(documents[item.name].full for item in chosen)
    published = full and not departures
    results = {
        "format": 1,
        "suite": "official",
        "challenge": challenge,
        "models": models,
        "unofficial": unofficial,
        "departures": departures,
        "sets": {
            item.name: report.set_result(
                item,
                entries[item.name],
                documents[item.name],
                {name: passes[name].answers[item.name] for name in models},
                published,
            )
            for item in chosen
        },
    }
    results["average"] = report.averages(results["sets"], models)
    results["published-average"] = (
        facts["average"] if published and len(chosen) == len(entries) else None
    )
    results["recipe"] = _recipe(arguments, checkpoint, choice, passes, started)
    print(report.aligned(report.table(results)))
    print("\n".join(report.notes(results)))
    if checkpoint and "checkpoint" in models and checkpoint.older_rules:
        print(checkpoint.older_rules)
    folder = _output_folder(challenge, arguments)
    _write(folder / "results.json", results)
    print(f"Results: {folder / 'results.json'}")
    return results


def _choose_sets(challenge: str, wanted: str | None) -> list[sets.EvalSet]:
    known = sets.of_challenge(challenge)
    names = (
        list(known)
        if wanted is None
        else [name.strip() for name in wanted.split(",") if name.strip()]
    )
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise EvaluationError(f"--sets {wanted} names no such set: choose from {','.join(known)}")
    return [known[name] for name in known if name in names]


def _check_numbers(arguments: argparse.Namespace) -> None:
    given = (
        ("--limit", arguments.limit),
        ("--batch-size", arguments.batch_size),
        ("--answer-tokens", arguments.answer_tokens),
    )
    wrong = [f"{name} {value}" for name, value in given if value is not None and value < 1]
    if wrong:
        raise EvaluationError(
            f"{', '.join(wrong)}: these count rows or tokens and have to be at least 1"
        )


def _read_checkpoint(
    challenge: str, arguments: argparse.Namespace
) -> checkpoints.Checkpoint | None:
    if arguments.checkpoint is None:
        if arguments.model is None:
            raise EvaluationError(
                "nothing to score: give a checkpoint folder, or a model with --model"
            )
        if arguments.compare or arguments.base_only:
            raise EvaluationError(
                "--compare and --base-only speak of a checkpoint: give one, or leave them out"
            )
        return None
    if arguments.compare and arguments.base_only:
        raise EvaluationError(
            "--base-only leaves nothing to --compare base with: use one of the two"
        )
    found = checkpoints.read(arguments.checkpoint, challenge)
    if found.reasons and not (arguments.unofficial or arguments.base_only):
        raise EvaluationError(
            f"{arguments.checkpoint} is not an official {challenge} checkpoint: "
            f"{'; '.join(found.reasons)}; "
            "score it all the same with --unofficial"
        )
    return found


def _models(arguments: argparse.Namespace, checkpoint: checkpoints.Checkpoint | None) -> list[str]:
    if checkpoint is None:
        return ["model"]
    if arguments.base_only:
        return ["base"]
    return ["base", "checkpoint"] if arguments.compare else ["checkpoint"]


def _source(challenge: str, arguments: argparse.Namespace) -> data.Source:
    if arguments.sample:
        return data.Source("sample", data.SAMPLES / challenge)
    if arguments.data_dir is not None:
        if not arguments.data_dir.is_dir():
            raise EvaluationError(
                f"--data-dir {arguments.data_dir} is no folder: it holds one file <set>.jsonl for "
                "each set"
            )
        return data.Source("folder", arguments.data_dir)
    return data.Source("hub")


def _departures(arguments: argparse.Namespace) -> list[str]:
    found = []
    if arguments.quantization != 4:
        found.append(f"quantization {arguments.quantization} (official: 4)")
    if arguments.dtype != "float32":
        found.append(f"computed in {arguments.dtype} (official: float32)")
    if arguments.answer_tokens is not None:
        found.append(f"answers cut after {arguments.answer_tokens} tokens (official: not)")
    return found


def _heading(challenge: str, choice: Any, models: list[str]) -> str:
    bits = f"{choice.quantization}-bit" if choice.quantization else "unquantised"
    adapter = f" with {choice.adapter}" if choice.adapter else ""
    return (
        f"Scoring {' and '.join(models)} for {challenge}: {choice.base}{adapter}, "
        f"{bits}, {choice.dtype}, {choice.device}"
    )


def _recipe(
    arguments: argparse.Namespace,
    checkpoint: Any,
    choice: Any,
    passes: dict[str, Any],
    started: float,
) -> dict:
    first = next(iter(passes.values())).lm_eval
    manifest = (checkpoint.manifest if checkpoint else None) or {}
    static = manifest.get("static") or {}
    return {
        "base-model": {"name": choice.base, "revision": choice.revision},
        "adapter": None
        if choice.adapter is None
        else {
            "folder": str(choice.adapter),
            "sha256": checkpoint.sha256,
            "manifest-sha256": manifest.get("manifest-sha256"),
        },
        "rules": {"name": static.get("rules"), "version": static.get("rules-version")},
        "quantization": choice.quantization,
        "dtype": choice.dtype,
        "device": choice.device,
        "batch-size": arguments.batch_size,
        "limit": arguments.limit,
        "answer-tokens": arguments.answer_tokens,
        "seed": first["config"]["torch_seed"],
        "decoding": "greedy, each row as if alone",
        "tasks": {name: config["generation_kwargs"] for name, config in first["configs"].items()},
        "task-versions": first["versions"],
        "task-hashes": first.get("task_hashes"),
        "versions": machine.versions(),
        "hardware": machine.hardware(choice.device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": {
            **{name: round(one.seconds, 1) for name, one in passes.items()},
            "total": round(time.time() - started, 1),
        },
        "command-line": sys.argv[1:],
    }


def _output_folder(challenge: str, arguments: argparse.Namespace) -> Path:
    if arguments.output is not None:
        return arguments.output
    if arguments.checkpoint is None:
        return Path(f"evaluation-{challenge}-official")
    return arguments.checkpoint / (
        "evaluation-official-base" if arguments.base_only else "evaluation-official"
    )


def _write(path: Path, results: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"the results cannot be written to {path} ({error.strerror}): choose a folder with "
            "--output"
        ) from None
