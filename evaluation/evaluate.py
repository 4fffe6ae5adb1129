"""Check everything, score, print, write: the whole of a command."""

import argparse
import sys
import time
from contextlib import ExitStack
from typing import Any

import challenges
from evaluation import base_model, data, next_steps, output_folder, programs, sets
from evaluation import checkpoint as checkpoints
from evaluation import model as loading
from flowertune.base.errors import UserError

_MOST = 1_000_000  # more than any set has rows, or a row tokens


def evaluate(challenge: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Carry out a parsed command line; returns what results.json holds.

    Raises:
        UserError: one sentence; before the model is loaded wherever that is possible.
    """
    _check_options(arguments)
    with ExitStack() as opened:
        return _evaluate(challenge, arguments, opened)


def _evaluate(challenge: str, arguments: argparse.Namespace, opened: ExitStack) -> dict[str, Any]:
    started = time.time()
    known = sets.of_challenge(challenge)
    facts = challenges.load(challenge)["evaluation"]
    entries = {entry["set"]: entry for entry in facts["sets"]}
    suite = arguments.suite
    chosen = _choose_sets(known, arguments.sets)
    models = _models(arguments)
    checkpoint = _read_checkpoint(challenge, arguments, opened)
    base = base_model.choose(arguments.model, checkpoint)
    reasons = _unofficial(checkpoint, base, arguments)
    source = _source(challenge, arguments)
    folder = output_folder.choose(challenge, arguments, checkpoint)
    output_folder.check_writable(folder)
    languages = {item.form(suite).language for item in chosen} - {None}
    sandbox = _check_programs(languages, arguments) if languages else None

    choice = loading.ModelChoice(
        base=base.name,
        revision=base.revision,
        adapter=checkpoint.folder if checkpoint and "checkpoint" in models else None,
        quantization=arguments.quantization,
        dtype=arguments.dtype,
        device=arguments.device or loading.default_device(),
        adapter_named=str(checkpoint.path) if checkpoint else "",
        merge=known.merge,
        trust_remote_code=arguments.trust_remote_code,
    )
    if arguments.device is not None:
        loading.check_device(arguments.device)
    _quiet()
    tokenizer, how = loading.tokenizer(choice), loading.quantization(choice)
    on_record = data.on_record(challenge, checkpoint.rules if checkpoint else None)
    documents = {
        item.name: data.load(
            item, source, entries[item.name]["rows"], suite, on_record.get(item.name)
        )
        for item in chosen
    }

    # Late: lm-eval and torch take seconds to import, and what is refused need not wait for them.
    import torch

    from evaluation import (
        lm,
        lm_eval_files,
        model_settings,
        outputs,
        provenance,
        replay,
        report,
        run,
    )
    from evaluation.decoding.choice import NotFinite

    replayed = getattr(arguments, "official_batching", False)
    way = known.way(suite, replayed)
    settings = model_settings.decide(loading.generation_config(choice), way)
    scored = {item.name: documents[item.name].documents[: arguments.limit] for item in chosen}
    config, cut = loading.config(choice), []
    model_settings.check(settings, config.get_text_config().vocab_size)
    for item in chosen:
        contexts = [document.get("context", "") for document in scored[item.name]]
        kwargs = item.form(suite).config().get("generation_kwargs", {})
        lm.check_lengths(item.name, contexts, kwargs, tokenizer, settings.config.max_new_tokens)
        lm.check_positions(item.name, contexts, tokenizer, config)
        cut.append(lm.positions_departure(kwargs, config))
    settings.departures.extend(dict.fromkeys(filter(None, cut)))
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
    _say(provenance.heading(challenge, suite, choice, checkpoint, models, sandbox))
    if checkpoint and checkpoint.older_rules:
        _say(checkpoint.older_rules)
    for sentence in model_settings.sentences(settings):
        _say(sentence)
    if replayed:
        torch.manual_seed(known.seed)
    loaded = loading.load(choice)
    start = replay.Start(known.seed, loaded, tokenizer) if replayed else None
    loaded.generation_config = settings.config
    if not replayed:
        lm.check_vocabulary(loaded, tokenizer, scored)
    with run.suppress_logs():
        scorer = lm.RowwiseLM(
            loaded,
            tokenizer,
            arguments.batch_size,
            seed=known.seed,
            recheck_ties=choice.dtype == "float32",
            answer_tokens=arguments.answer_tokens,
        )
    scorer.replay_batch = known.replay_batch if replayed else None
    passes, stores = {}, []
    for name in models:
        facts_of_answers = provenance.answers_depend_on(plan, choice, checkpoint, name, arguments)
        scorer.store = provenance.open_store(facts_of_answers)
        stores.append(scorer.store)
        if scorer.store.known:
            _say(f"{report.NAMES[name]}: resuming after {len(scorer.store.known)} answers")
        if start is not None:
            start.prepare(as_loaded=name != "base" or choice.adapter is None)
        with loading.as_model(loaded, name, known.merge):
            adapter = str(arguments.checkpoint) if name == "checkpoint" else None
            model_args = lm_eval_files.model_arguments(choice, adapter)
            try:
                lm.check_scores(loaded, tokenizer, scored[chosen[0].name][0])
                passes[name] = run.score(scorer, plan, report.NAMES[name], model_args)
            except NotFinite:
                raise UserError(_not_finite(choice, adapter)) from None

    deviations = [*provenance.deviations(known, arguments, base, how), *settings.departures]
    full = arguments.limit is None and all(documents[item.name].full for item in chosen)
    published = suite == "official" and full and not deviations
    results: dict[str, Any] = {
        "format": 1,
        "challenge": challenge,
        "suite": suite,
        "models": models,
        "rules": provenance.rules(checkpoint),
        "unofficial": reasons if "checkpoint" in models else [],
        "deviations": deviations,
        "decoding": model_settings.record(settings, way, known.replay_batch),
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
    results["provenance"] = provenance.build(
        plan, choice, base, how, checkpoint, arguments, passes, started
    )
    outputs.write(folder, results, passes)
    for store in stores:
        store.remove()
    print(report.aligned(report.table(results)))
    print("\n".join(report.notes(results)))
    print(f"Results: {folder / 'results.json'}")
    for line in next_steps.lines(challenge, arguments, checkpoint):
        print(line)
    return results


def _not_finite(choice: loading.ModelChoice, adapter: str | None) -> str:
    what = f"the base model {choice.base}"
    if adapter is not None:
        what += f" with the adapter {adapter}"
    return (
        f"{what} rates the next token with NaN, with infinity, or all tokens the same, so there is "
        f"no answer to score: its weights are damaged, or too large for --dtype {choice.dtype}"
    )


def _quiet() -> None:
    """Leave out bars and remarks of libraries, but for the bars of downloads from the hub."""
    # Late: transformers takes seconds to import.
    from huggingface_hub.utils import enable_progress_bars

    from flowertune.base.progress_bars import quiet_models

    quiet_models()
    enable_progress_bars()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_options(arguments: argparse.Namespace) -> None:
    names = ("limit", "batch_size", "answer_tokens", "n_samples")
    given = {name: getattr(arguments, name, None) for name in names}
    wrong = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in given.items()
        if value is not None and not 1 <= value <= _MOST
    ]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)}: these count rows, tokens or answers and have to be from 1 to "
            f"{_MOST}"
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
    challenge: str, arguments: argparse.Namespace, opened: ExitStack
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
    path = checkpoints.find(arguments.checkpoint)
    if path != arguments.checkpoint:
        _say(f"Checkpoint: {path}, the last one in {arguments.checkpoint}")
    return opened.enter_context(checkpoints.read(path, challenge))


def _unofficial(
    checkpoint: checkpoints.Checkpoint | None,
    base: base_model.BaseModel,
    arguments: argparse.Namespace,
) -> list[str]:
    """Return why the score of a checkpoint is not official; refuse it unless that is wanted."""
    if checkpoint is None:
        return []
    reasons = [*checkpoint.reasons, *([base.difference] if base.difference else [])]
    if reasons and not (arguments.unofficial or arguments.base_only):
        raise UserError(
            f"{checkpoint.path} is not an official checkpoint of this challenge: "
            f"{'; '.join(reasons)}; score it all the same with --unofficial"
        )
    return reasons


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
