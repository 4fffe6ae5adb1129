"""The prompt of a model that was tuned on conversations, from its own chat template."""

from typing import Any

from flowertune.base.errors import UserError


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
            "conversations (in [tool.flwr.app.config] of pyproject.toml)."
        )
    try:
        return conversation(tokenizer, [{"role": "user", "content": question}])
    except Exception as error:  # a template is a program of its author and may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"model.chat-template is true, and the chat template of this model's tokenizer fails "
            f"on one user turn ({reason}); set it to false to use prompt.template."
        ) from error
