"""``flowertune plan``: what a run will take, before it starts."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder, RunConfig
from flowertune.config.app import read_app
from flowertune.config.read import read_settings

EXAMPLES = """\b
examples:
  flowertune plan                                           this app as it is
  flowertune plan --run-config "model.lora.peft-lora-r=8"   a change, before you make it
  flowertune plan --run-config quickstart.toml --probe      with measured times
  flowertune plan --supernodes 20                           another number of SuperNodes
  flowertune plan --json | jq .communication                for programs
"""


def plan(
    app: AppFolder = Path(),
    run_config: RunConfig = None,
    supernodes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="SuperNodes.",
            show_default="the locked number; where none is locked, what connect sets up",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tokens of a batch's longest row, for the memory.",
            show_default="train.seq-length",
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Load the model and measure a few steps.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Work out what a run with these settings will take.

    The adapter's size, the communication of the whole run and the rounds that fit its budget, and
    the GPU memory of one client. No weights are read and no GPU is needed: everything follows from
    the model's config.

    The memory is an estimate. Its error against each value that FlowerTune's documents publish is
    shown, so that you know how far to trust it. Time is not estimated: --probe loads the configured
    model and measures a few real training steps on this machine.

    The configs of mistralai/Mistral-7B-v0.3, openlm-research/open_llama_3b_v2, open_llama_7b_v2
    and the built-in model come with the library; that of another hub id is fetched (a few kB).
    """
    cfg = read_settings(app, run_config)
    for option, given in (("--supernodes", supernodes), ("--tokens", tokens)):
        if given is not None and given < 1:
            raise UserError(f"{option} is {given}; give a whole number of at least 1.")
    # Late: torch and transformers take seconds; --help and wrong settings need neither.
    from flowertune.base.progress_bars import disable_progress_bars

    disable_progress_bars()
    from flowertune.cli.app import load_app
    from flowertune.planning.estimate import as_values, make_plan
    from flowertune.planning.text import as_text

    nodes = supernodes or cfg.static.num_supernodes or read_app(app).supernodes
    loaded = load_app(app)
    made = replace(make_plan(cfg, loaded.functions, nodes, tokens), gpu_gb=_gpu_gb())
    if probe:
        from flowertune.planning import probe as probing

        print("Loading the model and training a few steps …", file=sys.stderr, flush=True)
        made = replace(made, probe=probing.probe(cfg, loaded, nodes))
    print(json.dumps(as_values(made), indent=2) if as_json else as_text(made).rstrip("\n"))


def _gpu_gb() -> float | None:
    import torch  # late, as above

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / 1e9
