"""Ask a trained checkpoint, once or in a conversation: ``python test.py``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.chat.answer import Sampling, answer, room
from flowertune.chat.checkpoint import Choice, choose
from flowertune.chat.forms import ALSO, FORMS, Form, Turns, form_of, what_fits
from flowertune.chat.model import DTYPES, Precision, load, precision

END = ("exit", "quit")
DESCRIPTION = """\
Ask a trained checkpoint. With --question it answers once; without, it holds a conversation until
you type exit or press Ctrl-D (Ctrl-C cuts an answer short). The answer appears as it is written."""
EPILOG = """\
forms (--template):
  vicuna    a chat assistant's, Vicuna 1.1 (the default)
  alpaca    the official prompt of the FlowerTune apps, which is the default of prompt.template
  trained   the one that the checkpoint was trained in, as its manifest.json says
  model     the chat template that comes with the model's tokenizer

examples:
  python test.py --peft-path=results/<run id>/peft_100 --question="What is a good day in London?"
  python test.py --peft-path=results/<run id> --template trained      its newest checkpoint
  python test.py --model smollm2-135m-instruct --template model       a model without a checkpoint
  python test.py --peft-path=… --temperature 0                        always the likeliest token"""


def ask(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _chat(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python test.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--peft-path",
        type=Path,
        metavar="DIR",
        help="a checkpoint (peft_<round>), or a run's folder for its newest one",
    )
    add("--question", metavar="TEXT", help="ask this, answer, and end")
    add(
        "--template",
        choices=(*FORMS, *ALSO),
        default="vicuna",
        help="how a conversation is written down, see below (default: vicuna)",
    )
    add("--max-new-tokens", type=_at_least_one, default=512, metavar="N", help="(default: 512)")
    add(
        "--temperature",
        type=_not_negative,
        default=0.7,
        metavar="X",
        help="0: always the likeliest token; more: more varied (default: 0.7)",
    )
    add("--seed", type=int, default=0, help="same seed, same answer (default: 0)")
    add("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    add(
        "--quantization",
        type=int,
        choices=(4, 8, 0),
        help="bits of the base model's weights, 0 for all (default: as trained on a GPU, 0 on CPU)",
    )
    add("--dtype", choices=DTYPES, default="auto", help="to compute in (default: auto)")
    add("--model", metavar="NAME", help="the base model, where the checkpoint's own is not there")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def _chat(arguments: argparse.Namespace) -> None:
    if arguments.question is not None and not arguments.question.strip():
        raise UserError("--question is empty; leave it out for a conversation.")
    choice = choose(arguments.peft_path, arguments.model)
    if arguments.template == "trained":
        form_of("trained", _NoTokenizer, choice.manifest)
    from flowertune.cli.quiet import quiet_libraries

    quiet_libraries()
    how = precision(arguments.device, arguments.quantization, arguments.dtype, choice)
    _note(f"{choice.adapter or choice.base}: {_in_words(choice, how)}")
    tokenizer, model = load(choice, how, arguments.trust_remote_code)
    form = form_of(arguments.template, tokenizer, choice.manifest)
    sampling = Sampling(arguments.max_new_tokens, arguments.temperature, arguments.seed)

    def reply(turns: Turns, question: str) -> str:
        return _reply(tokenizer, model, form, sampling, turns, question)

    if arguments.question is not None:
        reply([], arguments.question)
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

    def fits(some: Turns) -> bool:
        needed = len(tokenizer(form.write(some, question))["input_ids"])
        return limit is None or needed + sampling.max_new_tokens <= limit

    kept = what_fits(turns, fits)
    if len(kept) < len(turns):
        _note(f"(only the last {len(kept)} turns fit into the model's {limit} tokens)")
    prompt = form.write(kept, question)
    said = answer(tokenizer, model, prompt, form.stops, sampling, _say)
    print(flush=True)
    return said


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


if __name__ == "__main__":
    raise SystemExit(ask())
