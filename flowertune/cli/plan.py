"""``flowertune plan``: what a run will take, before it starts."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowertune.base.errors import UserError
from flowertune.base.gpus import may_have_gpu
from flowertune.base.imports import uncollected
from flowertune.base.text import one_line
from flowertune.cli.options import AppFolder, RunConfig
from flowertune.config.app import read_app
from flowertune.config.read import read_settings
from flowertune.config.settings import Settings
from flowertune.methods.registry import problems as method_problems

if TYPE_CHECKING:
    from flowertune.planning.architecture import Architecture
    from flowertune.planning.communication import Traffic

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

    The adapter's size, the communication of the whole run and the rounds that fit its budget, the
    GPU memory of one client, and the workers of a simulation on this machine. No weights are read
    and no GPU is needed: everything follows from the model's config.

    The memory is an estimate of the tensors that are live at once, within 10 % of what a trace of
    the training loop finds; PyTorch's reserve comes on top. Where FlowerTune's documents publish
    values for the model, they stand beside it. Time is not estimated: --probe loads the configured
    model and measures a few real training steps on this machine.

    The configs of mistralai/Mistral-7B-v0.3, openlm-research/open_llama_3b_v2, open_llama_7b_v2
    and the built-in model come with the library; that of another hub id is fetched (a few kB).
    Shapes are kept in the cache: the same plan takes a second when it is made again.
    """
    cfg = read_settings(app, run_config, method_problems)
    for option, given in (("--supernodes", supernodes), ("--tokens", tokens)):
        if given is not None and given < 1:
            raise UserError(f"{option} is {given}; give a whole number of at least 1.")
    from flowertune.planning.estimate import as_values, check_clients, make_plan
    from flowertune.planning.text import as_text

    nodes = supernodes or cfg.static.num_supernodes or read_app(app).supernodes
    check_clients(cfg, nodes)
    shapes, traffic = _shapes(cfg, app, nodes)
    made = make_plan(cfg, shapes, nodes, tokens, traffic)
    made = replace(made, gpu_gb=_gpu_gb(), workers=_workers())
    if probe:
        from flowertune.client.load import load_app
        from flowertune.planning import probe as probing

        print("Loading the model and training a few steps …", file=sys.stderr, flush=True)
        made = replace(made, probe=probing.probe(cfg, load_app(app), nodes))
    print(json.dumps(as_values(made), indent=2) if as_json else as_text(made).rstrip("\n"))


def _shapes(cfg: Settings, app: Path, nodes: int) -> "tuple[Architecture, Traffic | None]":
    from flowertune.planning import stored

    key = stored.key_of(cfg, app / read_app(app).package, nodes)
    if (kept := stored.load(key)) is not None:
        return kept
    with uncollected():
        # Late: torch and transformers take seconds; --help, wrong settings and shapes that were
        # worked out before need neither.
        from flowertune.base.progress_bars import disable_progress_bars

        disable_progress_bars()
        from flowertune.client.load import load_app, load_strategy
        from flowertune.planning.architecture import architecture
        from flowertune.planning.traffic import traffic_of_run

        loaded = load_app(app)
        made = architecture(cfg, loaded.functions.lora_config(cfg))
        own = loaded.functions.methods
        try:
            traffic = traffic_of_run(cfg, load_strategy(app), own, made.adapter, nodes)
        except UserError:
            raise
        except Exception as error:  # a strategy is its author's and may raise anything
            print(
                f"{cfg.strategy.name} of strategy.py makes no messages without a run "
                f"({type(error).__name__}: {one_line(error)}): counted as FedAvg's.",
                file=sys.stderr,
            )
            return made, None
    stored.save(key, made, traffic)
    return made, traffic


def _gpu_gb() -> float | None:
    if not may_have_gpu():
        return None
    import torch  # late, as above

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / 1e9


def _workers() -> int | None:
    from flowertune.base.files import flower_home
    from flowertune.deploy.config_file import client_resources
    from flowertune.deploy.resources import choose, this_machine
    from flowertune.planning.workers import workers

    machine = this_machine()
    file = flower_home(os.environ) / "config.toml"
    current = client_resources(file.read_text("utf-8")) if file.is_file() else (None, None)
    choice = choose(machine, current=current)
    return workers(machine.cpus, machine.gpus, choice.num_cpus, choice.num_gpus)
