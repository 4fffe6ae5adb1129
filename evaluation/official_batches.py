"""The official finance scorer's own batches, with all that makes its scores depend on them.

Its answers depend on batches in three ways. The tokens left for an answer are those of the longest
prompt of the batch. Padding goes to the side the tokenizer chooses, and on the right it changes the
shorter rows. And where the model's generation_config says so, tokens are drawn, from one stream of
random numbers for all batches.

Where answers are greedy, a batch means no more for its rows than a limit and, where padding is on
the right, a token of padding from which the answer begins. So rows are decoded like all others, and
a batch is repeated as it is only if a rounding error could have decided one of its rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evaluation.decoding.batch import can_decode, decode
from evaluation.decoding.choice import Finite
from evaluation.decoding.memory import Slots
from evaluation.decoding.rounding import FLOOR
from evaluation.decoding.row import Row
from evaluation.model_settings import relevant, unbatchable
from flowertune.base.errors import UserError
from flowertune.base.out_of_memory import out_of_memory

Settled = Callable[[list[int], str], Callable[[list[int]], bool] | None]


class Start:
    """Random numbers and vocabulary as they are when the official scorer begins with a model.

    It seeds torch before it loads the model. Putting an adapter on a model draws numbers, and so
    does enlarging the vocabulary.
    """

    def __init__(self, seed: int, model: Any, tokenizer: Any) -> None:
        """Call it when the model has just been loaded, after `torch.manual_seed(seed)`.

        Args:
            seed: of the official scorer.
            model: base model, with or without an adapter.
            tokenizer: its tokenizer, which may have been given another token for padding.
        """
        self.seed, self.model, self.tokenizer = seed, model, tokenizer
        self.states = _random_states()
        self.tokens = model.get_input_embeddings().weight.shape[0]
        own = tokenizer.init_kwargs.get("pad_token")
        self.needs_pad = not own or tokenizer.pad_token_id == tokenizer.eos_token_id

    def prepare(self, as_loaded: bool) -> None:
        """Go there: seed torch, and give tokenizer and model a padding token if they need one.

        `as_loaded` is false for the base model where an adapter was put on it.
        """
        if self.needs_pad and self.model.get_input_embeddings().weight.shape[0] != self.tokens:
            _resize(self.model, self.tokens)
        if as_loaded:
            _restore(self.states)
        else:
            torch.manual_seed(self.seed)
        if self.needs_pad:
            self.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
            _resize(self.model, len(self.tokenizer))


def _resize(model: Any, tokens: int) -> None:
    """Enlarge or cut the vocabulary of a model.

    An embedding or output head that an adapter trained whole is in a wrapper of PEFT's, which
    transformers cannot resize: what is active in it takes its place meanwhile.
    """
    from peft.utils.other import ModulesToSaveWrapper  # late: it takes seconds to import

    places = (
        (model.get_input_embeddings, model.set_input_embeddings),
        (model.get_output_embeddings, model.set_output_embeddings),
    )
    wrapped = [(get(), get, put) for get, put in places if isinstance(get(), ModulesToSaveWrapper)]
    for wrapper, _, put in wrapped:
        put(wrapper.modules_to_save[wrapper.active_adapters[0]])
    model.resize_token_embeddings(tokens)
    for wrapper, get, put in wrapped:
        wrapper.modules_to_save[wrapper.active_adapters[0]] = get()
        put(wrapper)


def _random_states() -> tuple[Any, list[Any]]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices


def _restore(states: tuple[Any, list[Any]]) -> None:
    processor, devices = states
    torch.set_rng_state(processor)
    if devices:
        torch.cuda.set_rng_state_all(devices)


@dataclass
class _Batch:
    first: int
    contexts: list[str]
    rows: list[Row]

    @property
    def padded(self) -> bool:
        return any(row.padding is not None for row in self.rows)


@torch.inference_mode()
def answers(
    model: Any,
    tokenizer: Any,
    contexts: list[str],
    *,
    max_length: int,
    batch_size: int,
    slots: int | Slots,
    settled: Settled,
    recheck_ties: bool = True,
    tie: float = FLOOR,
    on_row: Callable[[], None] = lambda: None,
) -> list[str]:
    """Answer the prompts in the official scorer's batches: each row decoded whole, in their order.

    A greedy row may end early, as soon as nothing can change its answer any more.

    Args:
        model: a causal language model with transformers' `generate`.
        tokenizer: with a padding token.
        contexts: the prompts.
        max_length: of a batch with its answers, in tokens.
        batch_size: of the official scorer.
        slots: the most rows in one forward pass, for rows that need not stay in their batch.
        settled: makes `Row.settled` for a prompt's tokens and text.
        recheck_ties: repeat a batch as it is where a row came closer to a tie than rounding errors.
        tie: the lead of a token below which rounding errors could have decided it.
        on_row: called for each row when it is done.
    """
    config = model.generation_config
    drawn = "do_sample" in relevant(config)
    batches = []
    for first in range(0, len(contexts), batch_size):
        texts = contexts[first : first + batch_size]
        prompts = [tokenizer(text)["input_ids"] for text in texts]
        width = max(map(len, prompts))
        limit = config.max_new_tokens or max_length - width
        rows = [
            Row(
                first + number,
                prompt,
                limit,
                None if drawn else settled(prompt, text),
                padding=_padding(len(prompt), width, tokenizer),
            )
            for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        ]
        batches.append(_Batch(first, texts, rows))

    longest = max((len(row.prompt) + row.limit for b in batches for row in b.rows), default=0)
    whole, singly = batches, []
    if not drawn and not unbatchable(config) and can_decode(model, longest):
        # A penalty counts padding as a token of the row.
        penalized = "repetition_penalty" in relevant(config)
        whole = [b for b in batches if penalized and b.padded]
        singly = [b for b in batches if not (penalized and b.padded)]
    end = tokenizer.eos_token_id
    decode(
        model,
        [row for b in singly for row in b.rows],
        slots=slots if isinstance(slots, Slots) else Slots(slots),
        end_ids=[] if end is None else [end],
        pad_id=tokenizer.pad_token_id,
        sampling=None,
        on_done=lambda row: on_row(),
    )
    as_generate_does = _padding_is_as_in_generate(model, tokenizer, singly, tie)
    found: dict[int, str] = {}
    for b in singly:
        near = recheck_ties and any(row.gap < tie for row in b.rows)
        if near or (b.padded and not as_generate_does):
            found |= dict(_as_it_is(model, tokenizer, b, max_length, drawn))
        else:
            for row in b.rows:
                found[row.index] = tokenizer.decode(row.prompt + row.new, skip_special_tokens=True)
    for b in whole:
        for index, text in _as_it_is(model, tokenizer, b, max_length, drawn):
            found[index] = text
            on_row()
    return [found[index] for index in range(len(contexts))]


def _padding(length: int, width: int, tokenizer: Any) -> int | None:
    right = tokenizer.padding_side == "right" and length < width
    return tokenizer.pad_token_id if right else None


def _padding_is_as_in_generate(
    model: Any, tokenizer: Any, batches: list[_Batch], tie: float
) -> bool:
    """Whether rows that begin from padding begin as they do in this version of transformers.

    Where padding is, and what comes after it, is for transformers' `generate` to say.
    """
    for batch in batches:
        if batch.padded:
            tokens = _tokens(model, tokenizer, batch)
            out = model.generate(**tokens, max_new_tokens=4, eos_token_id=tokenizer.eos_token_id)[
                :, tokens["input_ids"].shape[1] :
            ].tolist()
            pairs = zip(batch.rows, out, strict=True)
            return all(row.new[:4] == new[: len(row.new)] or row.gap < tie for row, new in pairs)
    return True


def _as_it_is(
    model: Any, tokenizer: Any, batch: _Batch, max_length: int, drawn: bool
) -> Iterator[tuple[int, str]]:
    """A batch as the official scorer answers it, up to where nothing changes an answer any more."""
    tokens = _tokens(model, tokenizer, batch)
    # A row that ends early draws no more numbers, and of several beams the last decides.
    early = not drawn and (model.generation_config.num_beams or 1) == 1
    criteria = [_Settled(batch.rows, tokens["input_ids"].shape[1])] if early else []
    try:
        out = model.generate(
            **tokens,
            max_length=max_length,
            eos_token_id=tokenizer.eos_token_id,
            logits_processor=LogitsProcessorList([Finite()]),
            stopping_criteria=StoppingCriteriaList(criteria),
        )
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error) is None:
            raise
        raise UserError(
            f"out of memory with a batch of the official {len(batch.rows)} rows, which "
            "--official-batching decides together: leave it out (the result says so), score with "
            "--quantization 4, or on a --device with more memory free"
        ) from None
    for number, row in enumerate(out):
        yield batch.first + number, tokenizer.decode(row, skip_special_tokens=True)


def _tokens(model: Any, tokenizer: Any, batch: _Batch) -> Any:
    return tokenizer(
        batch.contexts, return_tensors="pt", padding=True, return_token_type_ids=False
    ).to(model.device)


class _Settled(StoppingCriteria):
    def __init__(self, rows: list[Row], width: int) -> None:
        self.rows, self.width = rows, width
        self.done = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        new = input_ids[:, self.width :].tolist()
        for number, (row, tokens) in enumerate(zip(self.rows, new, strict=True)):
            if not self.done[number] and row.settled is not None:
                self.done[number] = row.settled(tokens)
        return torch.tensor(self.done, device=input_ids.device)
