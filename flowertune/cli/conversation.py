"""Hold a conversation with a checkpoint at a terminal or through pipes."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.progress_bars import disable_progress_bars
from flowertune.chat.answer import Sampling, answer, room
from flowertune.chat.checkpoint import Choice, choose
from flowertune.chat.forms import Form, Turns, form_of, what_fits
from flowertune.chat.model import Precision, load, opened, precision
from flowertune.models.quantized import own_quantization

END = ("exit", "quit")
_UNKNOWN, _SHORTEST = 512, 16  # tokens of an answer


@dataclass(frozen=True)
class Wanted:
    """The options of the command, by their names."""

    peft_path: Path | None
    question: str | None
    template: str
    max_new_tokens: int | None
    temperature: float
    seed: int
    device: str
    quantization: int | None
    dtype: str
    model: str | None
    trust_remote_code: bool


def hold(wanted: Wanted) -> None:
    """Answer the question, or all that come from the standard input.

    Raises
    ------
    UserError
        If there is no such checkpoint, or it cannot be loaded as wanted.
    """
    choice = choose(wanted.peft_path, wanted.model)
    if wanted.template == "trained":
        form_of("trained", _NoTokenizer, choice.manifest)
    disable_progress_bars()
    source, config = opened(choice, wanted.trust_remote_code)
    own = own_quantization(config)
    how = precision(wanted.device, wanted.quantization, wanted.dtype, choice, own)
    _note(f"{choice.adapter or choice.base}: {_in_words(choice, how)}")
    tokenizer, model = load(source, config, choice.adapter, how)
    form = form_of(wanted.template, tokenizer, choice.manifest)
    most = wanted.max_new_tokens or longest_answer(choice.manifest)
    sampling = Sampling(most, wanted.temperature, wanted.seed)

    def reply(turns: Turns, question: str) -> str:
        return _reply(tokenizer, model, form, sampling, turns, question)

    if wanted.question is not None:
        reply([], wanted.question)
    else:
        converse(reply, sys.stdin.isatty())


def converse(reply: Callable[[Turns, str], str], at_a_terminal: bool) -> None:
    """Take questions from the standard input until it ends or ``exit`` is typed."""
    turns: list[tuple[str, str]] = []
    if at_a_terminal:
        _note("Type a question; exit or Ctrl-D ends.")
    while True:
        try:
            question = input("> " if at_a_terminal else "").strip()
        except EOFError:
            break
        if question in END:
            break
        if question:
            turns.append((question, reply(turns, question)))


def _reply(
    tokenizer: Any, model: Any, form: Form, sampling: Sampling, turns: Turns, question: str
) -> str:
    limit = room(model)

    def needed(some: Turns) -> int:
        return len(tokenizer(form.write(some, question))["input_ids"])

    def fits(some: Turns) -> bool:
        return limit is None or needed(some) + sampling.max_new_tokens <= limit

    kept = what_fits(turns, fits)
    if len(kept) < len(turns):
        _note(f"(only the last {len(kept)} turns fit into the model's {limit} tokens)")
    if limit is not None and not fits(kept):
        left = limit - needed(kept)
        if left < 1:
            raise UserError(
                f"the question takes {limit - left} tokens as the model reads it, and the model "
                f"takes at most {limit}; ask a shorter one, or choose another form with --template."
            )
        sampling = replace(sampling, max_new_tokens=left)
    prompt = form.write(kept, question)
    said = answer(tokenizer, model, prompt, form.stops, sampling, _say)
    print(flush=True)
    if said.cut:
        _note(f"(cut after {sampling.max_new_tokens} tokens; --max-new-tokens changes that)")
    return said.text


def longest_answer(manifest: Mapping[str, Any]) -> int:
    """Return how many tokens an answer may have where the user does not say.

    That is the longest answer that the checkpoint was trained on, and at least 16: a model that
    was trained on single words goes on with anything after them.
    """
    longest = manifest.get("longest-answer-tokens")
    if isinstance(longest, bool) or not isinstance(longest, int):
        return _UNKNOWN
    return max(_SHORTEST, longest)


def _in_words(choice: Choice, how: Precision) -> str:
    bits = f"{how.quantization}-bit, " if how.quantization else ""
    return f"on {choice.base}, {bits}{how.dtype}, {how.device}"


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _NoTokenizer:
    # stands in while it is only checked that the manifest names a form
    chat_template = "not loaded yet"
    eos_token = ""
