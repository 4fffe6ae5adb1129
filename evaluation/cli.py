"""The command line that all challenges share."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import challenges
from evaluation import sets
from evaluation.evaluate import evaluate
from flowertune.base.errors import UserError

BACKENDS = ("transformers", "vllm")
_DESCRIPTION = """\
Score a checkpoint of the {title} challenge on {titles}.

Suite "official" (the default) uses the prompts, decoding and answer rules of the leaderboard's own
scorer, its oddities included. Suite "standard" is what a researcher would report. The numbers of
one say nothing about those of the other.

The base model is the one the checkpoint names. A checkpoint that was not made under the locked
values is refused unless you say --unofficial; the result then says so, too. Everything that is
needed to repeat a result is written beside it, and a run that was stopped goes on where it was.
"""
_SAMPLE = "--sample --unofficial --quantization 0 --compare base"
_EPILOG = """\
examples:
  # the official score, with the model loaded as the leaderboard's scorer loads it (GPU, hub)
  python -m {module} results/RUN/peft_{rounds}{batches}
  # how much did fine-tuning help? (GPU, hub)
  python -m {module} results/RUN/peft_{rounds} --compare base
  # the small sample: what the quickstart does
  python -m {module} results/RUN/peft_{quick} {sample}
  # any model, without a checkpoint (GPU, hub)
  python -m {module} --model mistralai/Mistral-7B-v0.3

The table says what keeps its numbers from being comparable with the leaderboard's: partial data,
another quantization or dtype, an unofficial checkpoint.
"""


def parser(challenge: str) -> argparse.ArgumentParser:
    """The options of one challenge's command."""
    facts, known = challenges.load(challenge), sets.of_challenge(challenge)
    titles = ", ".join(entry["title"] for entry in facts["evaluation"]["sets"])
    module = sets.module_name(challenge)
    options = argparse.ArgumentParser(
        prog=f"python -m {module}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION.format(title=facts["title"], titles=titles),
        epilog=_EPILOG.format(
            module=module,
            batches="" if known.replay_batch is None else " --official-batching",
            rounds=facts["num-server-rounds"],
            quick=facts["quickstart"]["num-server-rounds"],
            sample=" ".join(filter(None, (_SAMPLE, facts["evaluation"]["sample-options"]))),
        ),
    )
    add = options.add_argument
    add(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CKPT",
        help="folder peft_<round> of a run; the folder of a run stands for its last one",
    )
    add("--suite", choices=sets.SUITES, default="official", help="default: %(default)s")
    add(
        "--sets",
        metavar="A,B",
        help=f"only these of {','.join(known.named())} (default: all)",
    )
    add("--limit", type=int, metavar="N", help="only the first N rows of each set")
    add(
        "--training-data",
        metavar="FILE",
        help="compare the evaluation rows with the training rows in FILE (.jsonl, or a folder of "
        "JSONL, Parquet or CSV files), or with those of the challenge, fetched from the hub, for "
        "the word hub; rows in both are left out of the clean score (default: the hub's cache, if "
        "they are there)",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for results.json and what is beside it, not in CKPT (default: "
        "scores/<digest of CKPT>/<challenge>-<suite>, where the command runs)",
    )
    add_shared(options, [known])
    return options


def add_shared(options: argparse.ArgumentParser, known: Sequence[sets.Challenge]) -> None:
    """Add the options of scoring any of these challenges."""
    _add_models(options)
    _add_rows(options, known)
    _add_computing(options, known)


def _add_models(options: argparse.ArgumentParser) -> None:
    add = options.add_argument_group("what to score").add_argument
    add(
        "--model",
        help="base model, a hub id or a folder, instead of the one CKPT names; "
        "without CKPT, this model alone; another one than CKPT names makes the score unofficial",
    )
    add("--base-only", action="store_true", help="score CKPT's base model without the adapter")
    add(
        "--compare",
        choices=["base"],
        help="score the base model, too, and show the difference with its confidence interval",
    )
    add(
        "--unofficial",
        action="store_true",
        help="score CKPT even if it breaks the rules; the result says so",
    )


def _add_rows(options: argparse.ArgumentParser, known: Sequence[sets.Challenge]) -> None:
    group = options.add_argument_group("on which rows").add_mutually_exclusive_group()
    files = ", ".join(item.file for one in known for item in one.sets)
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"read {files} from DIR (one row a line, columns as on the hub) instead of the hub; a "
        "file with another number of rows than the hub's is scored as it is and the result marked "
        "partial; one whose hash the rules do not have on record is marked unverified",
    )
    group.add_argument(
        "--sample",
        action="store_true",
        help="the small sample in this package: no hub needed, and no score for a leaderboard",
    )


def _add_computing(options: argparse.ArgumentParser, known: Sequence[sets.Challenge]) -> None:
    add = options.add_argument_group("how to compute").add_argument
    bits = {one.quantization for one in known}
    official = next(iter(bits)) if len(bits) == 1 else None
    add(
        "--batch-size",
        type=_rows,
        default="auto",
        metavar="N",
        help="rows at a time, or auto for what free memory allows: changes speed and memory, never "
        "an answer; halved where memory runs out (default: %(default)s)",
    )
    add(
        "--screen",
        choices=["auto", "bfloat16", "tf32", "off"],
        default="auto",
        help="compute in lower precision first, and in float32 only what that could decide "
        "otherwise: the same decisions, with a bound measured on a sample of the rows; auto does "
        "so on GPUs with bfloat16, and on CPUs where it is faster (default: %(default)s)",
    )
    add(
        "--dequantize",
        choices=["auto", "on", "off"],
        default="auto",
        help="expand 4-bit weights once instead of at every pass: the same values, faster, four to "
        "eight times the memory; auto does so on GPUs with enough of it (default: %(default)s)",
    )
    add(
        "--quantization",
        type=int,
        choices=[4, 8, 0],
        default=official,
        help="bits of the base model's weights, 0 for as they are (default: "
        + ("as" if official is None else "%(default)s, as")
        + " the official scorer)",
    )
    add(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="type to compute in (default: %(default)s, as the official scorer)",
    )
    add("--device", help='such as "cuda:1" (default: the GPU if there is one)')
    add(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="cut every answer after N tokens: much faster for models that ramble, but not the "
        "official rule, and the result says so",
    )
    batched = next((one.replay_batch for one in known if one.replay_batch is not None), None)
    if batched is not None:
        add(
            "--official-batching",
            action="store_true",
            help=f"decide in the official scorer's batches of {batched} where its scores depend "
            "on them: a leaderboard score needs it; every row by itself otherwise",
        )
    if any(item.form("official").sampled for one in known for item in one.sets):
        add(
            "--n-samples",
            type=int,
            default=1,
            metavar="N",
            help="draw N answers per problem in the official suite (default: %(default)s)",
        )
        add(
            "--allow-unsandboxed",
            action="store_true",
            help="run the model's programs even where there is no sandbox for them: they can then "
            "do whatever you can",
        )
    add(
        "--backend",
        choices=BACKENDS,
        default="transformers",
        help="what runs the model (default: %(default)s); vllm, where it is installed, is for the "
        "standard suite of unquantized models: faster, and its answers may differ by rounding",
    )
    add(
        "--trust-remote-code",
        action="store_true",
        help="let the base model run Python code of its own",
    )


def _rows(given: str) -> int | str:
    return given if given == "auto" else int(given)


def main(challenge: str, argv: list[str] | None = None) -> None:
    """Run one challenge's command; exits with 1 and one sentence on stderr if it cannot be done."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(challenge).parse_args(words)
    arguments.words = words
    with ending_in_a_sentence():
        evaluate(challenge, arguments)


@contextmanager
def ending_in_a_sentence() -> Iterator[None]:
    """Exit with 1 and one sentence on stderr for a UserError, and with 130 for Ctrl-C."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
