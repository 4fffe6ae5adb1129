"""The lm-eval model of this package: HFLM with generation that decides every row by itself."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation import generation, official_batches, score, screening
from evaluation.decoding import rounding
from evaluation.decoding.batch import can_decode, learned_positions
from evaluation.decoding.choice import NotFinite
from evaluation.decoding.memory import AUTO, Rows, Slots
from evaluation.likelihood import Likelihood, Likelihoods, Pair
from evaluation.store import Store
from flowertune.base.errors import UserError
from flowertune.base.text import counted

_Base: Any = HFLM  # its registration decorator hides its type


def row_limit(prompt_tokens: int, kwargs: dict[str, Any], max_new_tokens: int | None = None) -> int:
    """New tokens a row may have: `max_length` counts the prompt, `max_gen_toks` does not.

    `max_new_tokens` of a model's generation_config wins over `max_length`, as in transformers.
    """
    if "max_length" in kwargs:
        return max_new_tokens or kwargs["max_length"] - prompt_tokens
    return kwargs["max_gen_toks"]


def prompt_tokens(context: str, kwargs: dict[str, Any], tokenizer: Any) -> list[int]:
    """The tokens of a prompt; with `truncate`, its last ones, no more than `max_length`."""
    if not kwargs.get("truncate"):
        return tokenizer(context)["input_ids"]
    side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    try:
        return tokenizer(context, truncation=True, max_length=kwargs["max_length"])["input_ids"]
    finally:
        tokenizer.truncation_side = side


def hidden_token(kwargs: dict[str, Any], tokenizer: Any, config: Any) -> int | None:
    """The token that the model does not see in a prompt, or None.

    General NLP, medical and code are scored without an attention mask. transformers then takes the
    padding token wherever it stands in a prompt for padding, unless it is an end token, too.
    """
    if "unmasked" not in kwargs:
        return None
    tokenizers = kwargs["unmasked"] == "tokenizer's end token pads"
    token = tokenizer.eos_token_id if tokenizers else config.pad_token_id
    return None if token in generation.end_token_ids(config) else token


class RowwiseLM(_Base):
    """lm-eval model whose `generate_until` gives every row the answer it would get alone.

    Beside lm-eval's own, the generation_kwargs of a task may hold
        end_tokens: "tokenizer" for the tokenizer's single end token; else the model's
            generation_config decides;
        length_of: the document's field whose number of tokens is the limit of the answer;
        response: "whole row" to answer with the decoded prompt and answer, "completion" for code
            (what follows the prompt's characters, up to the first of `until`); else the answer
            alone is decoded;
        settled: a key of `score.SETTLED`, for rows that may stop before their end;
        truncate: cut a prompt on the left to `max_length` tokens;
        unmasked: the official scorer gives no attention mask, see `hidden_token`: which token pads.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: Rows,
        *,
        seed: int = 0,
        recheck_ties: bool = True,
        answer_tokens: int | None = None,
        screen: str = "off",
        say: Callable[[str], None] = lambda text: None,
    ):
        """Wrap a loaded model.

        Args:
            model: causal language model, in eval mode.
            tokenizer: its tokenizer, with a padding token.
            batch_size: the most rows in one forward pass; "auto" for what memory allows.
            seed: of drawn answers.
            recheck_ties: see `generation.generate`.
            answer_tokens: cut every answer after so many tokens; None leaves it to the task.
            screen: one of `screening.KINDS`.
            say: receives sentences on what is worth knowing of the computation.

        Raises:
            UserError: the model cannot be screened as it is asked for.
        """
        # lm-eval's own number is never used; its "auto" would try it out.
        own = 1 if batch_size == AUTO else batch_size
        with _weights_as_they_are(model):
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=own)
        self.slots = Slots(batch_size, say)
        self.screen = screening.resolve(screen, model)
        self.say = say
        self.tie: float | None = None  # measured with the first rows
        self.seed = seed
        self.recheck_ties = recheck_ties
        self.answer_tokens = answer_tokens
        self.store = Store(None)
        self.replay_batch: int | None = None  # set it to replay the official scorer's batches
        self.on_row: Callable[[], None] = lambda: None  # called after each answered row

    def begin(self) -> None:
        """Measure anew: the same object answers for a model with and without its adapter."""
        self.tie = None
        if self.screen is not None:
            self.screen.calibrations = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer each request; the order of the answers is that of the requests."""
        answers: dict[int, str] = {}
        groups: dict[str, list[tuple[int, Instance, str]]] = {}
        for index, (request, key) in enumerate(keyed(requests)):
            answer = self.store.get(key)
            if isinstance(answer, str):
                answers[index] = answer
                self.on_row()
                continue
            kwargs = json.dumps(_kwargs(request), sort_keys=True)
            groups.setdefault(kwargs, []).append((index, request, key))
        for kwargs, group in groups.items():
            if self.replay_batch is None:
                self._answer_group(group, json.loads(kwargs), answers)
            else:
                self._replay_group(group, json.loads(kwargs), answers)
        return [answers[index] for index in range(len(requests))]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """lm-eval's log-likelihoods, some rows at a time so that they can be counted and kept."""
        keys = [key for _, key in keyed(requests)]
        answers = {index: self.store.get(key) for index, key in enumerate(keys)}
        missing = [index for index, answer in answers.items() if not isinstance(answer, list)]
        # What is decided is which choice of a document is the likeliest.
        documents: dict[tuple[Any, Any], list[int]] = {}
        for index in missing:
            request = requests[index]
            documents.setdefault((request.task_name, request.doc_id), []).append(index)
        done = {(request.task_name, request.doc_id) for request in requests} - set(documents)
        for _ in done:
            self.on_row()

        def decided(indices: list[int], found: list[Likelihood]) -> None:
            if not all(math.isfinite(likelihood) for likelihood, _ in found):
                raise NotFinite
            for index, answer in zip(indices, found, strict=True):
                answers[index] = list(answer)
                self.store.put(keys[index], list(answer))
            self.on_row()

        self._decide(list(documents.values()), requests, decided)
        return [(float(answers[i][0]), bool(answers[i][1])) for i in range(len(requests))]

    def _decide(
        self,
        documents: list[list[int]],
        requests: list[Instance],
        decided: Callable[[list[int], list[Likelihood]], None],
    ) -> None:
        if not documents:
            return
        pairs = [[self._pair(requests[index]) for index in document] for document in documents]
        longest = max(len(context) + len(answer) for each in pairs for context, answer in each)
        options: Any = {"max_length": self.max_length, "share": can_decode(self.model, longest)}
        pad = self.tokenizer.pad_token_id
        exact = Likelihoods(self.model, pad, self.slots, **options)
        left = list(range(len(documents)))
        if self.screen is not None:
            before = len(self.screen.calibrations)
            low = Likelihoods(self.model, pad, self.slots, **options)
            left = self.screen.choices(
                exact, low, pairs, lambda number, found: decided(documents[number], found)
            )
            self._say_screened(before)
        self._measure([context for each in pairs for context, _ in each], longest)
        # Some at a time, so that they can be counted and kept; enough for full batches.
        left.sort(key=lambda number: -len(pairs[number][0][0]))
        size = 8 * self.slots.at_most(self.model, longest, len(left) or 1)
        for first in range(0, len(left), size):
            part = left[first : first + size]
            found = iter(exact.of([pair for number in part for pair in pairs[number]]))
            for number in part:
                own = [next(found) for _ in pairs[number]]
                # Rounding errors of a batch add up over the tokens of a choice.
                widest = max(len(answer) for _, answer in pairs[number])
                if self.recheck_ties and screening.lead(own) < widest * (self.tie or 0):
                    own = exact.of(pairs[number], alone=True)
                decided(documents[number], own)

    def _pair(self, request: Instance) -> Pair:
        context, continuation = map(str, request.args)
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        # As lm-eval: a text without a context follows the token that begins texts.
        if tokens[0] == self.prefix_token_id:
            return tokens[:1], tokens[1:]
        return [self.prefix_token_id], tokens

    def _measure(self, prompts: list[list[int]], longest: int) -> None:
        """Measure once how close a tie has to be for a batch to decide it."""
        if self.tie is not None or not self.recheck_ties:
            return
        self.tie = rounding.FLOOR
        if can_decode(self.model, longest + 1):
            few = [prompt for prompt in prompts if len(prompt) > 1]
            self.tie = rounding.tie_bound(self.model, few, self.tokenizer.pad_token_id)
        self.say(
            f"Answers whose best two are closer than {self.tie:.2g} are decided by their row alone."
        )

    def _say_screened(self, before: int) -> None:
        if self.screen is not None:
            for sentence in self.screen.sentences()[before:]:
                self.say(sentence)

    def record(self) -> dict[str, Any]:
        """How rows were computed, for results.json."""
        return {
            "batch-size": self.slots.record(),
            "tie-bound": self.tie,
            "screening": None if self.screen is None else self.screen.record(),
        }

    def _answer_group(
        self, group: list[tuple[int, Instance, str]], kwargs: dict[str, Any], answers: dict
    ) -> None:
        rows = []
        places: dict[int, tuple[str, str]] = {}
        hidden = hidden_token(kwargs, self.tokenizer, self.model.generation_config)
        for index, request, key in group:
            context = str(request.args[0])
            prompt = prompt_tokens(context, kwargs, self.tokenizer)
            limit = self._limit(prompt, kwargs, request.doc)
            settled = self._settled(prompt, len(context), kwargs)
            number = int(key[:15], 16)
            rows.append(generation.Row(index, prompt, limit, settled, number, hidden))
            places[index] = (key, context)

        def done(row: generation.Row) -> None:
            key, context = places[row.index]
            answers[row.index] = self._response(row, context, kwargs)
            self.store.put(key, answers[row.index])
            self.on_row()

        sampling = None
        if kwargs.get("do_sample"):
            sampling = generation.Sampling(kwargs["temperature"], kwargs["top_p"], self.seed)
        else:
            longest = max(len(row.prompt) + row.limit for row in rows)
            self._measure([row.seen for row in rows], longest)
        before = 0 if self.screen is None else len(self.screen.calibrations)
        generation.generate(
            self.model,
            rows,
            batch_size=self.slots,
            end_ids=self._end_ids(kwargs),
            pad_id=self.tokenizer.pad_token_id,
            recheck_ties=self.recheck_ties and sampling is None,
            tie=rounding.FLOOR if self.tie is None else self.tie,
            screen=self.screen,
            sampling=sampling,
            on_done=done,
        )
        self._say_screened(before)

    def _replay_group(
        self, group: list[tuple[int, Instance, str]], kwargs: dict[str, Any], answers: dict
    ) -> None:
        # The official scorer works through one set after the other; a batch never holds two.
        tasks = dict.fromkeys(request.task_name for _, request, _ in group)
        prompts = [self.tokenizer(str(one.args[0]))["input_ids"] for _, one, _ in group[:64]]
        self._measure(prompts, kwargs["max_length"])
        for task in tasks:
            members = [(index, request) for index, request, _ in group if request.task_name == task]
            rows = official_batches.answers(
                self.model,
                self.tokenizer,
                [str(request.args[0]) for _, request in members],
                max_length=kwargs["max_length"],
                batch_size=self.replay_batch or 1,
                slots=self.slots,
                tie=rounding.FLOOR if self.tie is None else self.tie,
                settled=lambda prompt, text: self._settled(prompt, len(text), kwargs),
                recheck_ties=self.recheck_ties,
                on_row=self.on_row,
            )
            for (index, _), row in zip(members, rows, strict=True):
                answers[index] = row

    def _limit(self, prompt: list[int], kwargs: dict[str, Any], document: Any) -> int:
        if "length_of" in kwargs:
            text = document[kwargs["length_of"]]
            limit = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            own = self.model.generation_config.max_new_tokens
            limit = row_limit(len(prompt), kwargs, own)
            positions = learned_positions(self.model.config)
            if positions is not None:
                limit = min(limit, positions - len(prompt))
        return limit if self.answer_tokens is None else min(limit, self.answer_tokens)

    def _settled(
        self, prompt: list[int], characters: int, kwargs: dict[str, Any]
    ) -> Callable[[list[int]], bool] | None:
        if "settled" in kwargs:
            rule = score.SETTLED[kwargs["settled"]]
            return generation.settled_by_text(prompt, self._decode, rule.words, rule.decides)
        if kwargs.get("response") == "completion":
            words = kwargs["until"]
            return generation.settled_by_text(
                prompt,
                self._decode_code,
                words,
                lambda row: any(word in row[characters:] for word in words),
            )
        return None

    def _response(self, row: generation.Row, context: str, kwargs: dict[str, Any]) -> str:
        kind = kwargs.get("response")
        if kind == "whole row":
            return self._decode(row.prompt + row.new)
        if kind == "completion":
            text = self._decode_code(row.prompt + row.new)[len(context) :]
            # The official scorer lets the token that begins texts stand in for a missing end token.
            end = self.tokenizer.eos_token or self.tokenizer.bos_token
            return score.cut_at(text, [*kwargs["until"], *([end] if end else [])])
        return self._decode(row.new)

    def _end_ids(self, kwargs: dict[str, Any]) -> list[int]:
        if kwargs.get("end_tokens") == "tokenizer":
            end = self.tokenizer.eos_token_id
            return [] if end is None else [end]
        return generation.end_token_ids(self.model.generation_config)

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def _decode_code(self, tokens: list[int]) -> str:
        # As the official scorer: its end token is cut off as text, other special tokens stay.
        if tokens and tokens[0] == self.tokenizer.bos_token_id:
            tokens = tokens[1:]
        return self.tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def keyed(requests: list[Instance]) -> Iterator[tuple[Instance, str]]:
    """Each request with a key that tells it from every other of the run, the same every time.

    Several samples of one document come as the same request several times; they differ by count.
    """
    count: dict[str, int] = {}
    for request in requests:
        what = [request.task_name, request.doc_id, request.idx, list(request.args)]
        text = json.dumps(what, sort_keys=True, ensure_ascii=True)
        number = count[text] = count.get(text, -1) + 1
        yield request, hashlib.sha256(f"{number} {text}".encode()).hexdigest()


def _kwargs(request: Instance) -> dict[str, Any]:
    arguments: Any = request.args
    return dict(arguments[1])


def check_lengths(
    name: str,
    contexts: list[str],
    kwargs: dict[str, Any],
    tokenizer: Any,
    max_new_tokens: int | None,
) -> None:
    """Refuse prompts that leave no room for an answer: the official scorer stops at them, too.

    Raises:
        UserError: names the first such row and how many there are.
    """
    if "max_length" not in kwargs:
        return
    lengths = [len(tokenizer(context)["input_ids"]) for context in contexts]
    long = [
        n for n, length in enumerate(lengths, 1) if row_limit(length, kwargs, max_new_tokens) < 1
    ]
    if long:
        raise UserError(
            f"{counted(len(long), 'prompt')} of {name} {'is' if len(long) == 1 else 'are'} too "
            f"long, first row {long[0]} with "
            f"{lengths[long[0] - 1]} tokens: prompt and answer together may have "
            f"{kwargs['max_length']} tokens in the official scorer, which stops with an error at "
            "such a row; leave these rows out"
        )


def check_positions(
    name: str, contexts: list[str], tokenizer: Any, config: Any, answer_tokens: int = 1
) -> None:
    """Refuse prompts longer than a model that has a learned vector for each position.

    Models that compute their positions go on, as they do in the official scorer.

    Raises:
        UserError: names the first such row, the model's positions and what to do.
    """
    positions = learned_positions(config)
    if positions is None:
        return
    for number, context in enumerate(contexts, 1):
        length = len(tokenizer(context)["input_ids"])
        if length + answer_tokens > positions:
            raise UserError(
                f"row {number} of {name} has {length} tokens, and the base model has only "
                f"{positions} positions (max_position_embeddings of its config.json): leave the "
                "row out with --data-dir, or choose another model with --model"
            )


def positions_departure(kwargs: dict[str, Any], config: Any) -> str | None:
    """What to say of a model with fewer positions than a row may have; None if it has enough."""
    positions = learned_positions(config)
    if positions is None or kwargs.get("max_length", 0) <= positions:
        return None
    return (
        f"answers end at the model's {positions} positions (the official scorer stops with an "
        f"error there, and allows {kwargs['max_length']} tokens)"
    )


def check_vocabulary(
    model: Any, tokenizer: Any, documents: dict[str, list[dict[str, Any]]]
) -> None:
    """Refuse rows with tokens that the model has no embedding for.

    Raises:
        UserError: names the first such row, the token and both sizes.
    """
    size = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= size:
        return
    for name, rows in documents.items():
        for number, row in enumerate(rows, 1):
            for text in _texts(row):
                token = max(tokenizer(text)["input_ids"], default=0)
                if token >= size:
                    raise UserError(
                        f"row {number} of {name} has the token "
                        f"{tokenizer.convert_ids_to_tokens(token)!r}, number {token} of "
                        f"{len(tokenizer)} in the tokenizer, but the base model knows {size} "
                        "(vocab_size of its config.json): give a model and tokenizer that belong "
                        "together with --model"
                    )


@contextmanager
def _weights_as_they_are(model: Any) -> Iterator[None]:
    """Within this context nobody ties a model's weights: they were when it was loaded.

    lm-eval ties them again. In a model whose layers share a block (Zamba), that would give all of
    them the adapter of the first.
    """
    model.tie_weights = lambda *given, **named: None
    try:
        yield
    finally:
        del model.tie_weights


@torch.inference_mode()
def check_scores(model: Any, tokenizer: Any, document: dict[str, Any]) -> None:
    """Have a model say what follows the beginning of a document.

    Values that are too large can end up as scores that are all the same: a norm divides by
    infinity.

    Raises:
        NotFinite: the scores are NaN, infinite, or the same for all tokens.
    """
    tokens = tokenizer("\n".join(_texts(document)))["input_ids"][:64]
    if not tokens:
        return
    ids = torch.tensor([tokens], device=model.device)
    scores = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    if not scores.isfinite().all() or scores.max() == scores.min():
        raise NotFinite


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
