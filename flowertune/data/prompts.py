"""Prompts: what an app makes of a row, and the form that a tokenizer's own chat template has."""

from collections.abc import Callable, Mapping
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.config.settings import WHERE, Settings

# (row, settings, tokenizer) -> the prompt and the answer.
PromptAndAnswer = Callable[[Mapping[str, Any], Settings, Any], tuple[str, str]]


def conversation(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """Return what the tokenizer's template writes for ``turns``, up to the next answer.

    The text comes without the beginning-of-sequence token if the tokenizer puts it in front by
    itself: encoded with special tokens, as ``tokens.encode`` does, it has one and not two.

    Raises
    ------
    Exception
        Whatever the template raises: it is a program of its author.
    """
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    bos = tokenizer.bos_token
    if bos and text.startswith(bos) and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        return text.removeprefix(bos)
    return text


def chat_prompt(tokenizer: Any, question: str) -> str:
    """Return one user turn with ``question`` up to where the model's answer begins.

    The text is what the tokenizer's template writes, system turn included where it has one.

    Raises
    ------
    UserError
        If the tokenizer has no chat template, or its template refuses a single user turn.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "model.chat-template is true, but the tokenizer of this model has no chat template; "
            "set it to false to use prompt.template, or name a model that was tuned on "
            f"conversations ({WHERE})."
        )
    try:
        return conversation(tokenizer, [{"role": "user", "content": question}])
    except Exception as error:  # a template is a program of its author and may raise anything
        raise UserError(
            f"model.chat-template is true, and the chat template of this model's tokenizer fails "
            f"on one user turn ({one_line(error)}); set it to false to use prompt.template "
            f"({WHERE})."
        ) from error
