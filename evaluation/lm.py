"""The lm-eval model of this package: lm-eval's HFLM with a generation loop that decides every row
by itself.
"""

from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation import generation, score
from evaluation.errors import EvaluationError


def row_limit(prompt_tokens: int, kwargs: dict[str, Any]) -> int:
    """New tokens a row may have: `max_length` counts the prompt, `max_gen_toks` does not."""
    return (
        kwargs["max_length"] - prompt_tokens if "max_length" in kwargs else kwargs["max_gen_toks"]
    )


_Base: Any = HFLM  # its registration decorator hides its type


class RowwiseLM(_Base):
    """lm-eval model whose `generate_until` gives every row the answer it would get alone.

    Beside lm-eval's own, the generation_kwargs of a task may hold
        end_tokens: "tokenizer" for the tokenizer's single end token; else the model's
            generation_config decides;
        response: "whole row" to answer with the decoded prompt and answer; else the answer alone is
            decoded;
        settled: a key of `score.SETTLED`, for rows that may stop before their end.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int,
        *,
        recheck_ties: bool = True,
        answer_tokens: int | None = None,
    ):
        """Wrap a loaded model.

        Args:
            model: causal language model, in eval mode.
            tokenizer: its tokenizer, with a padding token.
            batch_size: the most rows in one forward pass.
            recheck_ties: see `generation.generate`.
            answer_tokens: cut every answer after so many tokens; None leaves it to the task.
        """
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.recheck_ties = recheck_ties
        self.answer_tokens = answer_tokens
        self.on_row: Callable[[], None] = lambda: None  # called after each answered row

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer each request; the order of the answers is that of the requests."""
        answers: dict[int, str] = {}
        groups: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
        for index, request in enumerate(requests):
            context, kwargs = request.args
            groups.setdefault(repr(sorted(kwargs.items())), []).append((index, context, kwargs))
        for group in groups.values():
            self._answer_group(group, answers)
        return [answers[index] for index in range(len(requests))]

    def _answer_group(
        self, group: list[tuple[int, str, dict[str, Any]]], answers: dict[int, str]
    ) -> None:
        kwargs = group[0][2]
        rows = []
        for index, context, _ in group:
            prompt = self.tokenizer(context)["input_ids"]
            limit = row_limit(len(prompt), kwargs)
            if self.answer_tokens is not None:
                limit = min(limit, self.answer_tokens)
            rows.append(generation.Row(index, prompt, limit, self._settled(prompt, kwargs)))
        whole = kwargs.get("response") == "whole row"

        def done(row: generation.Row) -> None:
            answers[row.index] = self._decode(row.prompt + row.new if whole else row.new)
            self.on_row()

        generation.generate(
            self.model,
            rows,
            batch_size=int(self.batch_size),
            end_ids=self._end_ids(kwargs),
            pad_id=self.tokenizer.pad_token_id,
            recheck_ties=self.recheck_ties,
            on_done=done,
        )

    def _settled(
        self, prompt: list[int], kwargs: dict[str, Any]
    ) -> Callable[[list[int]], bool] | None:
        if "settled" not in kwargs:
            return None
        rule = score.SETTLED[kwargs["settled"]]
        return generation.settled_by_text(prompt, self._decode, rule.words, rule.decides)

    def _end_ids(self, kwargs: dict[str, Any]) -> list[int]:
        if kwargs.get("end_tokens") == "tokenizer":
            end = self.tokenizer.eos_token_id
            return [] if end is None else [end]
        return generation.end_token_ids(self.model.generation_config)

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def check_lengths(name: str, contexts: list[str], kwargs: dict[str, Any], tokenizer: Any) -> None:
    """Refuse prompts that leave no room for an answer: the official scorer stops at them, too.

    Raises:
        EvaluationError: names the first such row and how many there are.
    """
    if "max_length" not in kwargs:
        return
    lengths = [len(tokenizer(context)["input_ids"]) for context in contexts]
    long = [number for number, length in enumerate(lengths, 1) if row_limit(length, kwargs) < 1]
    if long:
        raise EvaluationError(
            f"{len(long)} prompts of {name} are too long, first row {long[0]} with "
            f"{lengths[long[0] - 1]} tokens: prompt and "
            f"answer together may have {kwargs['max_length']} tokens in the official scorer; "
            "leave these rows out"
        )
