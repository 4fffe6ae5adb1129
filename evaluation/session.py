"""The model between one score and the next: loaded once for all that share it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from evaluation import model as loading
from evaluation import vllm_backend
from evaluation.job import Job


class Session:
    """Loads models; the base model of one job stays for the next, with another adapter on it."""

    def __init__(self) -> None:
        """Begin with no model."""
        self.loads = 0
        self.stores: list[Any] = []  # answers that are kept until all scores are made
        self._job: Job | None = None
        self._start: Any = None
        self._base: Any = None
        self._model: Any = None
        self._of: tuple[Any, ...] | None = None
        self._drew = False  # whether loading the base model drew random numbers

    def scorer(self, job: Job) -> Any:
        """Return the lm-eval model that answers for a job.

        Raises:
            UserError: the model cannot be loaded, or does not know tokens of the documents.
        """
        # Late: lm-eval takes seconds to import.
        from evaluation import lm, run

        arguments = job.arguments
        if arguments.backend == vllm_backend.NAME:
            self.close()
            self.loads, self._job = self.loads + 1, job
            with run.suppress_logs():
                self._model = vllm_backend.load(job.choice, arguments.answer_tokens, job.known.seed)
            return self._model
        loaded = self.load(job)
        if not job.replayed:
            lm.check_vocabulary(loaded, job.tokenizer, job.scored)
        with run.suppress_logs():
            scorer = lm.RowwiseLM(
                loaded,
                job.tokenizer,
                arguments.batch_size,
                seed=job.known.seed,
                recheck_ties=job.choice.dtype == "float32",
                answer_tokens=arguments.answer_tokens,
                screen=arguments.screen,
                say=_say,
            )
        scorer.replay_batch = job.known.replay_batch if job.replayed else None
        return scorer

    def check_scores(self, job: Job) -> None:
        """Refuse a model that rates no token above another, before its answers are waited for.

        Raises:
            NotFinite: it is one.
        """
        # Late, as above.
        from evaluation import lm

        if job.arguments.backend != vllm_backend.NAME:
            first = job.plan.sets[0].name
            lm.check_scores(self._model, job.tokenizer, job.scored[first][0])

    def remove_stores(self) -> None:
        """Remove the answers that were kept: all scores are made."""
        for store in self.stores:
            store.remove()
        self.stores.clear()

    def load(self, job: Job) -> Any:
        """Return the model of a job, with its adapter on it, in eval mode.

        Raises:
            UserError: weights cannot be read, do not fit together, or a package is missing.
        """
        # Late: torch takes seconds to import.
        import torch

        from evaluation import official_batches

        if not self._serves(job):
            self.close()
        if job.replayed:
            torch.manual_seed(job.known.seed)
        if self._base is None:
            before = torch.get_rng_state()
            self._base = loading.load_base(job.choice)
            self._drew = not torch.equal(before, torch.get_rng_state())
            self._of, self.loads = _shared(job.choice), self.loads + 1
        self._job = job
        self._model = loading.adapted(self._base, job.choice)
        self._start = (
            official_batches.Start(job.known.seed, self._model, job.tokenizer)
            if job.replayed
            else None
        )
        self._model.generation_config = job.settings.config
        return self._model

    @contextmanager
    def as_model(self, name: str) -> Iterator[None]:
        """Within this context the model of the job answers as "base", "checkpoint" or "model"."""
        job = self._job
        assert job is not None
        if job.arguments.backend == vllm_backend.NAME:
            with vllm_backend.as_model(self._model, name):
                yield
            return
        if self._start is not None:
            self._start.prepare(as_loaded=name != "base" or job.choice.adapter is None)
        with loading.as_model(self._model, name, job.known.merge):
            yield

    def close(self) -> None:
        """Let go of the model, and of its memory."""
        # Late, as above.
        import gc

        import torch

        self._job = self._start = self._base = self._model = self._of = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _serves(self, job: Job) -> bool:
        """Take the last adapter off; whether what is left is the base model that a job needs."""
        if self._base is None or self._of != _shared(job.choice):
            return False
        if job.replayed and self._drew:
            return False
        if self._job is not None and self._leaves_changes(self._job):
            return False
        if hasattr(self._model, "peft_config"):
            self._base = self._model.unload()
        return True

    def _leaves_changes(self, job: Job) -> bool:
        """Whether a job changed more than what taking its adapter off takes back."""
        if self._start is not None and self._start.needs_pad:
            return True  # it has another vocabulary
        adapters = getattr(self._model, "peft_config", {}).values()
        merged = job.known.merge and "checkpoint" in job.models
        return merged or any(
            adapter.peft_type != "LORA" or adapter.bias != "none" for adapter in adapters
        )


def _say(text: str) -> None:
    # Late, as above; it leaves the progress bar whole.
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def _shared(choice: loading.ModelChoice) -> tuple[Any, ...]:
    return (
        choice.base,
        choice.revision,
        choice.quantization,
        choice.dtype,
        choice.device,
        choice.merge and choice.quantization,  # those are not dequantized
        choice.dequantize,
        choice.trust_remote_code,
    )


def order(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs in the order in which few models are loaded: the same base model in a row.

    Of those, the ones that leave the base model changed come last.
    """
    first: dict[tuple[Any, ...], int] = {}
    for number, job in enumerate(jobs):
        first.setdefault(_shared(job.choice), number)
    return sorted(jobs, key=lambda job: (first[_shared(job.choice)], job.known.merge))
