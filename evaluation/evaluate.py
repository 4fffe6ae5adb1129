"""Check everything, score, print, write: the whole of a command."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import challenges
from evaluation import checkpoint as checkpoints
from evaluation import data, programs, sets
from evaluation import model as loading
from flowertune.base.errors import UserError


def evaluate(challenge: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Carry out a parsed command line; returns what results.json holds.

    Raises:
        UserError: one sentence; before the model is loaded wherever that is possible.
    """
    started = time.time()
    known = sets.of_challenge(challenge)
    facts = challenges.load(challenge)["evaluation"]
    entries = {entry["set"]: entry for entry in facts["sets"]}
    suite = arguments.suite
    _check_options(arguments)
    chosen = _choose_sets(known, arguments.sets)
    checkpoint = _read_checkpoint(challenge, arguments)
    models = _models(arguments)
    source = _source(challenge, arguments)
    folder = _output_folder(challenge, arguments)
    _check_writable(folder)
    languages = {item.form(suite).language for item in chosen} - {None}
    sandbox = _check_programs(languages, arguments) if languages else None

    choice = loading.ModelChoice(
        base=arguments.model or (checkpoint.base if checkpoint else ""),
        revision=None if arguments.model or checkpoint is None else checkpoint.revision,
        adapter=checkpoint.path if checkpoint and "checkpoint" in models else None,
        quantization=arguments.quantization,
        dtype=arguments.dtype,
        device=arguments.device or loading.default_device(),
        merge=known.merge,
        trust_remote_code=arguments.trust_remote_code,
    )
    tokenizer = loading.tokenizer(choice)
    documents = {
        item.name: data.load(item, source, entries[item.name]["rows"], suite) for item in chosen
    }

    # Late: lm-eval and torch take seconds to import, and what is refused need not wait for them.
    from evaluation import lm, outputs, provenance, replay, report, run

    for item in chosen:
        contexts = [d.get("context", "") for d in documents[item.name].documents[: arguments.limit]]
        kwargs = item.form(suite).config().get("generation_kwargs", {})
        lm.check_lengths(item.name, contexts, kwargs, tokenizer)
    plan = run.Plan(
        challenge,
        suite,
        chosen,
        documents,
        known.seed,
        limit=arguments.limit,
        samples=getattr(arguments, "n_samples", 1),
        allow_unsandboxed=getattr(arguments, "allow_unsandboxed", False),
    )
    _say(provenance.heading(challenge, suite, choice, models, sandbox))
    if checkpoint and checkpoint.older_rules:
        _say(checkpoint.older_rules)
    loaded = loading.load(choice)
    with run.suppress_logs():
        scorer = lm.RowwiseLM(
            loaded,
            tokenizer,
            arguments.batch_size,
            seed=known.seed,
            recheck_ties=choice.dtype == "float32",
            answer_tokens=arguments.answer_tokens,
        )
    if getattr(arguments, "official_batching", False):
        replay.prepare(loaded, tokenizer)
        scorer.replay_batch = known.replay_batch
    passes, stores = {}, []
    for name in models:
        facts_of_answers = provenance.answers_depend_on(plan, choice, checkpoint, name, arguments)
        scorer.store = provenance.open_store(folder, facts_of_answers)
        stores.append(scorer.store)
        if scorer.store.known:
            _say(f"{report.NAMES[name]}: resuming after {len(scorer.store.known)} answers")
        with loading.as_model(loaded, name, known.merge):
            passes[name] = run.score(scorer, plan, label=report.NAMES[name])

    deviations = provenance.deviations(known, arguments)
    full = arguments.limit is None and all(documents[item.name].full for item in chosen)
    published = suite == "official" and full and not deviations
    results: dict[str, Any] = {
        "format": 1,
        "challenge": challenge,
        "suite": suite,
        "models": models,
        "rules": provenance.rules(checkpoint),
        "unofficial": checkpoint.reasons if checkpoint and "checkpoint" in models else [],
        "deviations": deviations,
        "sets": {
            item.name: report.set_result(
                item,
                suite,
                entries[item.name],
                documents[item.name],
                {name: passes[name].answers[item.name] for name in models},
                published,
            )
            for item in chosen
        },
    }
    results["average"] = report.averages(results["sets"], models)
    everything = published and len(chosen) == len(entries)
    results["published-average"] = facts["average"] if everything else None
    results["provenance"] = provenance.build(plan, choice, checkpoint, arguments, passes, started)
    outputs.write(folder, results, passes)
    for store in stores:
        store.remove()
    print(report.aligned(report.table(results)))
    print("\n".join(report.notes(results)))
    print(f"Results: {folder / 'results.json'}")
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_options(arguments: argparse.Namespace) -> None:
    names = ("limit", "batch_size", "answer_tokens", "n_samples")
    given = {name: getattr(arguments, name, None) for name in names}
    wrong = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in given.items()
        if value is not None and value < 1
    ]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)}: these count rows, tokens or answers and have to be at least 1"
        )
    if getattr(arguments, "official_batching", False):
        if arguments.suite != "official":
            raise UserError(
                "--official-batching belongs to the official suite: leave out --suite standard"
            )
        if arguments.answer_tokens is not None:
            raise UserError(
                "--official-batching replays the official answers, which --answer-tokens would "
                "cut: use one of the two"
            )


def _choose_sets(known: sets.Challenge, wanted: str | None) -> list[sets.EvalSet]:
    named = known.named()
    parts = [] if wanted is None else [name.strip() for name in wanted.split(",")]
    names = list(named) if wanted is None else [name for name in parts if name]
    wrong = [name for name in names if name not in named]
    if wrong or not names:
        raise UserError(
            f"--sets {wanted} names no such set: {', '.join(wrong) or 'nothing given'}; "
            f"choose from {','.join(named)}"
        )
    return [item for name, item in named.items() if name in names]


def _read_checkpoint(
    challenge: str, arguments: argparse.Namespace
) -> checkpoints.Checkpoint | None:
    if arguments.checkpoint is None:
        if arguments.model is None:
            raise UserError("nothing to score: give a checkpoint folder, or a model with --model")
        if arguments.compare or arguments.base_only:
            raise UserError(
                "--compare and --base-only speak of a checkpoint: give one, or leave them out"
            )
        return None
    if arguments.compare and arguments.base_only:
        raise UserError("--base-only leaves nothing to --compare base with: use one of the two")
    checkpoint = checkpoints.read(arguments.checkpoint, challenge)
    if checkpoint.reasons and not (arguments.unofficial or arguments.base_only):
        raise UserError(
            f"{arguments.checkpoint} is not an official {challenge} checkpoint: "
            f"{'; '.join(checkpoint.reasons)}; score it all the same with --unofficial"
        )
    return checkpoint


def _models(arguments: argparse.Namespace) -> list[str]:
    if arguments.checkpoint is None:
        return ["model"]
    if arguments.base_only:
        return ["base"]
    return ["base", "checkpoint"] if arguments.compare else ["checkpoint"]


def _source(challenge: str, arguments: argparse.Namespace) -> data.Source:
    if arguments.sample:
        return data.Source("sample", data.SAMPLES / challenge)
    if arguments.data_dir is not None:
        if not arguments.data_dir.is_dir():
            raise UserError(
                f"--data-dir {arguments.data_dir} is no folder: it holds one file <set>.jsonl for "
                "each set"
            )
        return data.Source("folder", arguments.data_dir)
    return data.Source("hub")


def _check_programs(languages: set[Any], arguments: argparse.Namespace) -> str:
    return str(programs.check(languages, allow_unsandboxed=arguments.allow_unsandboxed))


def _output_folder(challenge: str, arguments: argparse.Namespace) -> Path:
    if arguments.output is not None:
        return arguments.output
    if arguments.checkpoint is None:
        return Path(f"evaluation-{challenge}-{arguments.suite}")
    suffix = "-base" if arguments.base_only else ""
    return arguments.checkpoint / f"evaluation-{arguments.suite}{suffix}"


def _check_writable(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        # A command that is refused further on leaves no empty folders behind.
        for path in missing:
            path.rmdir()
    except OSError as error:
        raise UserError(
            f"results cannot be written to {folder} ({error.strerror}): choose another folder with "
            "--output"
        ) from None
