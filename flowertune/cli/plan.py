"""What a run will take, before it starts: ``python -m flowertune.plan``."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from flowertune.base.errors import UserError
from flowertune.cli.quiet import quiet_libraries
from flowertune.config.app import read_app
from flowertune.config.read import add_settings_arguments, read_settings

DESCRIPTION = """\
Work out what a run with these settings will take: the adapter's size, the communication of the
whole run and the rounds that fit its budget, and the GPU memory of one client. No weights are read
and no GPU is needed: everything follows from the model's config.

The memory is an estimate. Its error against each value that FlowerTune's documents publish is
shown, so that you know how far to trust it. Time is not guessed: --probe loads the configured model
and measures a few real training steps on this machine.

The configs of mistralai/Mistral-7B-v0.3, openlm-research/open_llama_3b_v2, open_llama_7b_v2 and the
built-in model come with the app; that of another hub id is fetched (a few kB)."""
EPILOG = """\
examples:
  python -m flowertune.plan                                          this app as it is
  python -m flowertune.plan --run-config "model.lora.peft-lora-r=8"  a change, before you make it
  python -m flowertune.plan --run-config quickstart.toml --probe     with measured times
  python -m flowertune.plan --supernodes 20                          another number of SuperNodes
  python -m flowertune.plan --json | jq '.communication'             for programs"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _plan(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.plan",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_arguments(parser)
    add = parser.add_argument
    add(
        "--supernodes",
        type=int,
        metavar="N",
        help="SuperNodes (default: the locked number; where none is locked, what connect sets up)",
    )
    add(
        "--tokens",
        type=int,
        metavar="N",
        help="tokens of a batch's longest row, for the memory (default: train.seq-length)",
    )
    add("--probe", action="store_true", help="load the model and measure a few steps")
    add("--json", action="store_true", help="print the plan as JSON")
    return parser


def _plan(arguments: argparse.Namespace) -> None:
    cfg = read_settings(arguments.app, arguments.run_config)
    for option in ("supernodes", "tokens"):
        given = getattr(arguments, option)
        if given is not None and given < 1:
            raise UserError(f"--{option} is {given}; give a whole number of at least 1.")
    # torch and transformers take seconds to import; --help and wrong settings need neither
    quiet_libraries()
    from flowertune.cli.app import load_app
    from flowertune.planning.estimate import as_values, make_plan
    from flowertune.planning.text import as_text

    supernodes = arguments.supernodes or cfg.static.num_supernodes
    supernodes = supernodes or read_app(arguments.app).supernodes
    app = load_app(arguments.app)
    plan = make_plan(cfg, app.functions, supernodes, arguments.tokens)
    plan = replace(plan, gpu_gb=_gpu_gb())
    if arguments.probe:
        from flowertune.planning.probe import probe

        print("Loading the model and training a few steps …", file=sys.stderr, flush=True)
        plan = replace(plan, probe=probe(cfg, app, supernodes))
    if arguments.json:
        print(json.dumps(as_values(plan), indent=2))
    else:
        print(as_text(plan), end="")


def _gpu_gb() -> float | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
