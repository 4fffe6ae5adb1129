"""A score that was asked for, checked: everything that can be wrong before a model is loaded."""

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import challenges
from evaluation import (
    base_model,
    contamination,
    data,
    output_folder,
    programs,
    sets,
    vllm_backend,
)
from evaluation import checkpoint as checkpoints
from evaluation import model as loading
from flowertune.base.errors import UserError

_MOST = 1_000_000  # more than any set has rows, or a row tokens


@dataclass
class Job:
    """One checkpoint or model, to be scored on the sets of one challenge.

    Attributes:
        challenge: its name.
        arguments: the options it was asked for with.
        started: when, in seconds since the epoch.
        known: how the official scorer of the challenge works.
        facts: the part "evaluation" of the challenge's file.
        models: what is scored: "base", "checkpoint", "model".
        checkpoint: None where a model alone is scored.
        base: the base model.
        reasons: why the score of the checkpoint is not official.
        folder: where the result is written.
        sandbox: what runs the model's programs, None where there are none.
        choice: what to load.
        tokenizer: the base model's.
        how: how its weights are quantized once they are loaded.
        way: how the official scorer calls `generate`.
        settings: what is done with the model's generation_config.
        scored: the documents of each set that are scored.
        plan: the same for every model.
        contamination: what of the scored rows is also in the training rows, as results.json has it.
    """

    challenge: str
    arguments: argparse.Namespace
    started: float
    known: sets.Challenge
    facts: dict[str, Any]
    models: list[str]
    checkpoint: checkpoints.Checkpoint | None
    base: base_model.BaseModel
    reasons: list[str]
    folder: Any
    sandbox: str | None
    choice: loading.ModelChoice
    tokenizer: Any
    how: Any
    way: Any
    settings: Any
    scored: dict[str, list[dict[str, Any]]]
    plan: Any
    contamination: dict[str, Any]

    @property
    def replayed(self) -> bool:
        """Whether answers are decided in the official scorer's batches."""
        return getattr(self.arguments, "official_batching", False)

    @property
    def name(self) -> str:
        """What a message calls it."""
        what = self.checkpoint.path if self.checkpoint else self.base.name
        return f"{what} on {self.challenge}"


def prepare(challenge: str, arguments: argparse.Namespace, opened: ExitStack) -> Job:
    """Check a parsed command line; the checkpoint can be read until ``opened`` is closed.

    Raises:
        UserError: one sentence on what is wrong.
    """
    started = time.time()
    _check_options(arguments)
    known = sets.of_challenge(challenge)
    facts = challenges.load(challenge)["evaluation"]
    rows = {entry["set"]: entry["rows"] for entry in facts["sets"]}
    suite = arguments.suite
    chosen = choose_sets(known, arguments.sets)
    models = _models(arguments)
    checkpoint = _read_checkpoint(challenge, arguments, opened)
    base = base_model.choose(arguments.model, checkpoint)
    reasons = _unofficial(checkpoint, base, arguments)
    source = source_of(challenge, arguments)
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
        dequantize=arguments.dequantize,
    )
    if arguments.backend == vllm_backend.NAME and choice.adapter is not None:
        vllm_backend.check_adapter(choice.adapter, choice.adapter_named)
    if arguments.device is not None:
        loading.check_device(arguments.device)
    _quiet()
    tokenizer, how = loading.tokenizer(choice), loading.quantization(choice)
    under = checkpoint.rules if checkpoint else None
    on_record, commits = data.on_record(challenge, under), data.pinned_revisions(challenge, under)
    documents = {
        item.name: data.load(
            item,
            source,
            rows[item.name],
            suite,
            on_record.get(item.name),
            commits.get(item.name),
        )
        for item in chosen
    }

    # Late: lm-eval and torch take seconds to import, and what is refused need not wait for them.
    from evaluation import lm, model_settings, run

    way = known.way(suite, getattr(arguments, "official_batching", False))
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
    return Job(
        challenge, arguments, started, known, facts, models, checkpoint, base, reasons, folder,
        sandbox, choice, tokenizer, how, way, settings, scored, plan,
        _contamination(challenge, arguments, checkpoint, documents),
    )  # fmt: skip


def _contamination(
    challenge: str,
    arguments: argparse.Namespace,
    checkpoint: checkpoints.Checkpoint | None,
    documents: dict[str, data.Documents],
) -> dict[str, Any]:
    rules = checkpoint.rules if checkpoint else None
    training = contamination.find(challenge, arguments.training_data, arguments.sample, rules)
    if isinstance(training, contamination.TrainingRows):
        _say("Comparing the training rows with the evaluation sets ...")
    texts = {name: one.texts[: arguments.limit] for name, one in documents.items()}
    return contamination.compare(training, texts)


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
        if value not in (None, "auto") and not 1 <= value <= _MOST
    ]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)}: these count rows, tokens or answers and have to be from 1 to "
            f"{_MOST}"
        )
    vllm_backend.check(arguments)
    if arguments.screen in ("bfloat16", "tf32") and arguments.dtype != "float32":
        raise UserError(
            f"--screen {arguments.screen} saves float32 computation, and --dtype is "
            f"{arguments.dtype}: leave one of the two out"
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


def choose_sets(known: sets.Challenge, wanted: str | None) -> list[sets.EvalSet]:
    """Return the sets that `--sets` names, in the challenge's order; all for None.

    Raises:
        UserError: it names none, or one that is not there.
    """
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


def source_of(challenge: str, arguments: argparse.Namespace) -> data.Source:
    """Return where `--sample` and `--data-dir` say that the rows are.

    Raises:
        UserError: the folder is not there.
    """
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
