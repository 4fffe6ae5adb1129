"""One round on one client, as the app sees it: what came, the rows to train on, the reply."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, TypeVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from flowertune.base.cache import cached, clear_cache
from flowertune.base.errors import UserError
from flowertune.base.numbers import as_float, as_int
from flowertune.base.progress_bars import disable_progress_bars
from flowertune.base.seeds import derive_seed
from flowertune.base.text import one_line
from flowertune.client.functions import AppFunctions
from flowertune.client.leaks import changed, fingerprint
from flowertune.client.optimizers import check_here, optimizer_of, schedule_of
from flowertune.client.rows import load_rows
from flowertune.client.transport import keep_for_buckets, packed_reply
from flowertune.comms.codec import unpack
from flowertune.comms.partition_files import RESIDUAL, STATE, TRAINED, PartitionFiles
from flowertune.comms.validation import (
    ARRAYS,
    CLIENT,
    CONFIG,
    FROZEN,
    KEPT,
    METRICS,
    ROWS,
    SHIFT,
)
from flowertune.config.checks import check_settings, is_layerwise
from flowertune.config.settings import MADE, WHERE, Settings, keys_of_models
from flowertune.data.held_out import split
from flowertune.data.steps import Step, steps_of_round, tokens_in
from flowertune.methods.base import MethodClient
from flowertune.methods.registry import client_class, options_of
from flowertune.models.adapter import adapter_of, drawn_factor, load_adapter, thaw
from flowertune.models.cuda import repeatable
from flowertune.models.merging import merge
from flowertune.models.shift import set_shift
from flowertune.profiling.phases import profile_of
from flowertune.rules.held_out import LOSS

T = TypeVar("T")

_NUMBERS = ("num-examples", "train-loss", "tokens")


class ClientTask:
    """One round on one client.

    Attributes
    ----------
    cfg : Settings
        The settings of the run.
    round, partition, partitions : int
        Which round this is, and which of how many partitions is here.
    config : ConfigRecord
        What the strategy sent with the adapter.
    adapter : dict[str, torch.Tensor]
        The adapter that came: float32 on the CPU. Whole once it is on a model: what a method does
        not send is made on the client.
    """

    def __init__(self, message: Message, context: Context, functions: AppFunctions, app_dir: Any):
        disable_progress_bars()
        self.cfg: Settings = check_settings(context.run_config, app_dir)
        check_here(self.cfg)
        self.partition = int(context.node_config["partition-id"])
        self.partitions = int(context.node_config["num-partitions"])
        self.config = message.content.config_records[CONFIG]
        self.round = as_int(self.config, "server-round")
        # Whoever sends a single task, as a probe does, has no earlier rounds.
        self._last_round = as_int({"last-round": 0, **self.config}, "last-round")
        self.adapter = unpack(message.content.array_records[ARRAYS])
        self._asked = set(self.adapter)  # the names that come back
        if FROZEN in message.content.array_records:
            self.adapter |= unpack(message.content.array_records[FROZEN])
        self._message, self._functions = message, functions
        self._profile = profile_of(self.cfg)
        self._model: Any = None
        self._frozen: dict[str, bytes] = {}
        self._rows: Any = None
        self._tokens = 0
        self._kept: set[str] = set()  # kinds of files that stay from this round
        self._counted = 1

    @cached_property
    def method(self) -> MethodClient:
        """The client's half of the method that ``strategy.name`` names: hooks of the loop.

        They do nothing for FedAvg, and for a name that ``client_app(methods=...)`` does not have.
        """
        name = self.cfg.strategy.name
        own = self._functions.methods.get(name)
        return (own or client_class(name))(self, options_of(self.cfg))

    @property
    def learning_rate(self) -> float:
        """The rate of this round, as the server sent it."""
        return as_float(self.config, "learning-rate")

    @property
    def seed(self) -> int:
        """A seed for this client in this round, the same whenever the round is done again."""
        return derive_seed("dropout", self.cfg.seed, self.round, self.partition)

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Time what happens inside, where ``profile.enabled`` is true (``flwr profile``).

        The phase "train" counts the round's tokens, so that the profile has tokens a second. In it
        a GPU sums in the same order each time, unless ``train.deterministic`` is false; so it does
        in "evaluate".
        """
        training = name == "train"
        phase = self._profile.phase(name, tokens=self._tokens if training else 0)
        return self._repeatable(phase) if name in ("train", "evaluate") else phase

    @contextmanager
    def _repeatable(self, phase: AbstractContextManager[Any]) -> Iterator[Any]:
        try:
            with repeatable(self.cfg.train.deterministic), phase as timed:
                yield timed
        except RuntimeError as error:
            if "deterministic" not in str(error) or not self.cfg.train.deterministic:
                raise
            raise UserError(
                "train.deterministic is true, and this model computes with an operation that gives "
                f"other bits each time on this GPU ({one_line(error, 120)}); set it to false: the "
                f"result then differs a little from run to run ({WHERE})."
            ) from error

    def cached(self, make: Callable[..., T], *arguments: Hashable) -> T:
        """Return ``make(cfg, *arguments)``, made once in this worker for the settings of a model.

        A change of a ``model.`` setting or of a setting of your own, or other arguments, make it
        anew. One result of each function is kept.
        """
        return cached(make, self.cfg, keys_of_models(self.cfg), *arguments)

    def load_adapter(self, model: Any) -> None:
        """Put the adapter that came on a PEFT model.

        Raises
        ------
        UserError
            If its names or shapes are not the model's.
        """
        if SHIFT in self._message.content.array_records:
            set_shift(model, self.received(SHIFT))
        parameters = dict(model.named_parameters())  # found once: a model has hundreds
        thaw(model, parameters)
        self.adapter = self.method.whole(self.adapter, adapter_of(model))
        load_adapter(model, self.adapter, parameters)
        merge(model, self.method.merged())
        self._model, self._frozen = model, fingerprint(parameters)

    def steps(self, tokenizer: Any, device: torch.device | str) -> list[Step]:
        """Return this round's ``max-steps`` steps: which rows, in which order, is repeatable.

        The rows are those of this partition, made to text by the app's ``prompt_and_answer``. Which
        of them a round trains on depends on ``seed``, round and partition only.

        Raises
        ------
        UserError
            If the dataset cannot be had, lacks a column, or no row has room for its answer.
        """
        cfg = self.cfg
        rows = load_rows(cfg, self._functions, self.partition, self.partitions)
        examples = rows.cut(cfg.train.seq_length, self.partition)
        if cfg.train.evaluate_every:
            examples, _ = split(examples, cfg.train.held_out, cfg.seed, self.partition)
        steps = steps_of_round(examples, cfg, self.round, self.partition)
        self._rows, self._counted, self._tokens = rows.record, len(examples), tokens_in(steps)
        return [Step(micro_batches, tokenizer.pad_token_id, device) for micro_batches in steps]

    def held_out(self, tokenizer: Any, device: torch.device | str) -> list[Step]:
        """Return the rows that ``train.held-out`` keeps out of training, the longest first.

        They are laid out as steps of one batch each, since a batch is what fits into memory.

        Raises
        ------
        UserError
            If the dataset cannot be had, lacks a column, or no row has room for its answer.
        """
        cfg = self.cfg
        rows = load_rows(cfg, self._functions, self.partition, self.partitions)
        examples = rows.cut(cfg.train.seq_length, self.partition)
        _, held = split(examples, cfg.train.held_out, cfg.seed, self.partition)
        held.sort(key=lambda example: -len(example.ids))
        size = cfg.train.training_arguments.per_device_train_batch_size
        batches = [held[start : start + size] for start in range(0, len(held), size)]
        steps = [Step([batch], tokenizer.pad_token_id, device) for batch in batches]
        self._counted, self._tokens = len(held), sum(step.answer_tokens for step in steps)
        return steps

    def optimizer(self, model: Any, parameters: Sequence[Any]) -> torch.optim.Optimizer | None:
        """Return the optimizer of ``train.optimizer`` for the parameters that are trained.

        None for AdamW as it comes, which the app has written out.

        Raises
        ------
        UserError
            If this machine cannot run it.
        """
        return optimizer_of(self.cfg, model, parameters, self.learning_rate)

    def schedule(self, optimizer: Any, steps: int) -> Any:
        """Return the learning rate within this round of so many steps: a scheduler of torch.

        By ``train.schedule`` and ``train.warmup-steps``; its ``step()`` goes after the optimizer's.
        """
        return schedule_of(self.cfg, optimizer, steps)

    def received(self, name: str) -> dict[str, torch.Tensor]:
        """Return tensors that the strategy sent beside the adapter, under a name of its own.

        Raises
        ------
        KeyError
            If it sent none of that name.
        """
        return unpack(self._message.content.array_records[name])

    def drawn_factor(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """Return a factor A as the server drew it before round 1, so that it need not travel.

        Raises
        ------
        UserError
            If one client made it (``model.lora.init``).
        """
        if self.cfg.model.lora.init in MADE:
            raise UserError(
                f"model.lora.init is {self.cfg.model.lora.init!r}, for which one client makes the "
                f"first adapter, and {self.cfg.strategy.name} has each client draw it; use "
                f"'default' or 'gaussian', or another method ({WHERE})."
            )
        config = self._functions.lora_config(self.cfg)
        return drawn_factor(self.cfg.seed, name, shape, config.init_lora_weights)

    def load_state(self) -> dict[str, torch.Tensor]:
        """Return what this partition kept in the last round in which its reply counted.

        Empty at first.
        """
        return self._files(STATE).load(self._last_round)

    def save_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors of this partition for its next round.

        A round that is done again, or does not count, starts from what was kept before it.
        """
        self._files(STATE).keep(self.round, tensors, self._last_round)
        self._kept.add(STATE)

    def _files(self, kind: str) -> PartitionFiles:
        key, states = str(self.config["state-key"]), self.cfg.train.keep_states
        return PartitionFiles(key, self.partition, kind, states)

    def evaluated(self, loss: float) -> Message:
        """Return the reply to an evaluation: the mean loss per answer token of ``held_out``."""
        numbers = {"num-examples": self._counted, "tokens": self._tokens, LOSS: float(loss)}
        client = ConfigRecord({"partition-id": self.partition})
        content = RecordDict({METRICS: MetricRecord(numbers), CLIENT: client})
        return Message(content, reply_to=self._message)

    def reply(
        self,
        model: Any,
        loss: float,
        metrics: Mapping[str, float] | None = None,
        arrays: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    ) -> Message:
        """Return the reply: the adapter in the run's precision, and what to weight it by.

        Parameters
        ----------
        model : PeftModel | Mapping[str, torch.Tensor]
            The trained model, or its adapter's tensors.
        loss : float
            The mean loss per answer token.
        metrics : Mapping[str, float] | None
            More numbers, for the strategy.
        arrays : Mapping[str, Mapping[str, torch.Tensor]] | None
            More tensors for the strategy, by a name of their own; float32 on the wire.

        Raises
        ------
        UserError
            If a name is one that the reply has already, or train() changed base weights.
        """
        if self._model is not None and (name := changed(self._model, self._frozen)):
            clear_cache()  # the next client of this worker loads the model anew
            raise UserError(
                f"train() of client_app.py changed {name!r} of the base model, which is not sent, "
                "and on which the next client of this worker would start; train only parameters "
                "that require gradients (model.parameters() after task.load_adapter), and merge no "
                "adapter into the base model."
            )
        taken = {*_NUMBERS} & {*(metrics or {})} | {ARRAYS, METRICS, CLIENT} & {*(arrays or {})}
        if taken:
            raise UserError(
                f"the reply of client_app.py names {', '.join(sorted(taken))}, which every reply "
                "has already; choose another name."
            )
        trained = dict(model) if isinstance(model, Mapping) else adapter_of(model)
        frozen = self.adapter.keys() - self._asked  # the server has it
        trained = {n: t.detach().float().cpu() for n, t in trained.items() if n not in frozen}
        kind = self.cfg.train.transport
        with self._profile.phase("serve") as served:
            if is_layerwise(self.cfg):
                keep_for_buckets(trained, kind, self._files(TRAINED), self.round)
                packed = ArrayRecord()
            else:
                feeds_back = kind == "int8" and self.method.feedback
                residuals = self._files(RESIDUAL) if feeds_back else None
                self._kept |= {RESIDUAL} if feeds_back else set()
                packed = packed_reply(
                    self.adapter, trained, kind, residuals, self.round, self._last_round
                )
            served.nbytes = sum(len(array.data) for array in packed.values())
        numbers = dict(zip(_NUMBERS, (self._counted, float(loss), self._tokens), strict=True))
        client: dict[str, Any] = {"partition-id": self.partition}
        if self._rows is not None:
            client[ROWS] = json.dumps(self._rows.record())
        if self._kept:
            digests = {kind: self._files(kind).sha256_of(self.round) for kind in self._kept}
            client[KEPT] = json.dumps(digests, sort_keys=True)
        content = RecordDict(
            {
                ARRAYS: packed,
                METRICS: MetricRecord({**numbers, **(metrics or {})}),
                CLIENT: ConfigRecord(client),
            }
        )
        for name, tensors in (arrays or {}).items():
            content[name] = ArrayRecord({n: t.detach().float().cpu() for n, t in tensors.items()})
        return Message(content, reply_to=self._message)
