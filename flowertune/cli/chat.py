"""``flowertune chat`` and ``python test.py``: ask a trained checkpoint."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from flowertune.base.errors import UserError
from flowertune.cli.execute import alone, execute

SCRIPT = "python test.py"


def examples(name: str) -> str:
    """Return the end of the help, for the command ``name``."""
    return f"""\b
forms (--template):
  vicuna    a chat assistant's, Vicuna 1.1 (the default)
  alpaca    the official prompt of the FlowerTune apps, the default of prompt.template
  trained   the one that the checkpoint was trained in, as its manifest.json says
  model     the chat template that comes with the model's tokenizer

\b
examples:
  {name} --peft-path=results/RUN/peft_100 --question="What is a good day in London?"
  {name} --peft-path=results/RUN --template trained       its newest checkpoint
  {name} --model smollm2-135m-instruct --template model   a model without a checkpoint
  {name} --peft-path=results/RUN --temperature 0          always the most likely token
"""


def chat(
    peft_path: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A checkpoint (peft_<round>), or a run's folder for its newest one."
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this, answer, and end.")
    ] = None,
    template: Annotated[
        Literal["vicuna", "alpaca", "trained", "model"],
        typer.Option(help="How a conversation is written down, see below."),
    ] = "vicuna",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="At most so many tokens in an answer.",
            show_default="the longest answer of the training rows; 512 where that is not known",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(metavar="X", min=0, help="0: the most likely token; higher: more varied."),
    ] = 0.7,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same answer.")] = 0,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE", help="cpu, cuda, cuda:1.", show_default="a GPU where there is one"
        ),
    ] = "auto",
    quantization: Annotated[
        Literal[4, 8, 0] | None,
        typer.Option(
            help="Bits of the base model's weights, 0 for all.",
            show_default="as trained on a GPU, 0 on CPU",
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="To compute in.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The base model, where the checkpoint's own is not there."
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """Ask a trained checkpoint.

    With --question it answers once; without, it holds a conversation until you type exit or press
    Ctrl-D (Ctrl-C cuts an answer short). The answer appears as it is written.
    """
    if question is not None and not question.strip():
        raise UserError("--question is empty; leave it out for a conversation.")
    if not math.isfinite(temperature):
        raise UserError(f"--temperature is {temperature}; give a number of at least 0.")
    # Late: a model's libraries take seconds; --help and a wrong command line need none of them.
    from flowertune.cli import conversation

    conversation.hold(
        conversation.Wanted(
            peft_path, question, template, max_new_tokens, temperature, seed, device,
            quantization, dtype, model, trust_remote_code,
        )
    )  # fmt: skip


def ask(argv: Sequence[str] | None = None) -> int:
    """Run the command as an app's ``test.py`` does; returns its exit status.

    Parameters
    ----------
    argv
        Its arguments; those of the process if None.
    """
    return execute(alone(SCRIPT, chat, epilog=examples(SCRIPT)), argv, SCRIPT)
