"""How a conversation becomes a prompt: Vicuna's format, Alpaca's, or the model's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from flowertune.base.errors import UserError
from flowertune.data.prompts import conversation

FORMS = ("vicuna", "alpaca", "trained", "model")
# Other tools' names of the same formats.
ALSO = {"vicuna_v1.1": "vicuna"}

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)

Turns = Sequence[tuple[str, str]]  # the questions asked so far, each with its answer


@dataclass(frozen=True)
class Form:
    """A prompt format.

    Attributes
    ----------
    write
        Makes the prompt out of the turns so far and a new question.
    stops
        Texts that begin the next question: an answer ends where the model generates one.
    """

    write: Callable[[Turns, str], str]
    stops: tuple[str, ...] = ()


def vicuna(end: str) -> Form:
    """Return the format of Vicuna 1.1; ``end`` is the text of the end-of-sequence token."""

    def write(turns: Turns, question: str) -> str:
        before = "".join(f"USER: {asked} ASSISTANT: {said}{end or ' '}" for asked, said in turns)
        return f"{VICUNA} {before}USER: {question} ASSISTANT:"

    return Form(write, ("USER:",))


def alpaca() -> Form:
    """Return the format of Stanford Alpaca, the official prompt of all FlowerTune apps."""

    def turn(question: str) -> str:
        return f"### Instruction:\n{question}\n### Response:"

    def write(turns: Turns, question: str) -> str:
        before = "".join(f"{turn(asked)} {said}\n" for asked, said in turns)
        return f"{ALPACA}\n{before}{turn(question)}"

    return Form(write, ("### Instruction:",))


def trained(template: str) -> Form:
    """Return the format of ``prompt.template``, in which the checkpoint was trained.

    The question replaces {question} and {instruction}; other columns are empty. Where a template
    has neither, the question replaces every column.
    """
    fields = {name for _, name, _, _ in Formatter().parse(template) if name}
    asked_for = fields & {"question", "instruction"} or fields

    def turn(question: str) -> str:
        return template.format_map({name: question * (name in asked_for) for name in fields})

    def write(turns: Turns, question: str) -> str:
        before = "".join(f"{_gap(turn(asked))}{said}\n\n" for asked, said in turns)
        return before + turn(question)

    return Form(write)


def own(tokenizer: Any) -> Form:
    """Return the format of the chat template that comes with the model's tokenizer.

    Raises
    ------
    UserError
        If it has none; and from ``write``, if the template rejects the conversation.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "The tokenizer of this model has no chat template; choose another "
            "format with --template (vicuna, alpaca, trained)."
        )

    def write(turns: Turns, question: str) -> str:
        said = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        try:
            return conversation(tokenizer, [*said, {"role": "user", "content": question}])
        except Exception as error:  # a template is its author's program and may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"The chat template of this model's tokenizer fails ({reason}); choose another "
                "format with --template (vicuna, alpaca, trained)."
            ) from error

    return Form(write)


def form_of(name: str, tokenizer: Any, manifest: Mapping[str, Any]) -> Form:
    """Return the format called ``name``: one of FORMS or ALSO.

    Raises
    ------
    UserError
        If "trained" is asked for and the checkpoint has no manifest, or "model" and the
        tokenizer has no chat template.
    """
    name = ALSO.get(name, name)
    if name == "vicuna":
        return vicuna(tokenizer.eos_token or "")
    if name == "alpaca":
        return alpaca()
    if name == "model" or manifest.get("settings", {}).get("model.chat-template"):
        return own(tokenizer)
    if not isinstance(manifest.get("prompt-template"), str):
        raise UserError(
            "There is no manifest.json that says in which format this model was trained; choose "
            "another format with --template (vicuna, alpaca, model)."
        )
    return trained(manifest["prompt-template"])


def what_fits(turns: Turns, fits: Callable[[Turns], bool]) -> Turns:
    """Return the latest turns that fit; there may be none, as the question itself always stays."""
    kept = list(turns)
    while kept and not fits(kept):
        kept.pop(0)
    return kept


def _gap(prompt: str) -> str:
    # The same space that training puts between a prompt and its answer.
    return prompt if prompt[-1:].isspace() else f"{prompt} "
