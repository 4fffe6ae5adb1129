"""What `flwr run` looks at before it sends an app of ours: what a run would refuse a minute later.

Flower starts Ray before an app's own code runs, so the run itself can say nothing earlier.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from flowertune.base.errors import SettingsError, UserError
from flowertune.base.files import flower_home
from flowertune.base.gpus import may_have_gpu
from flowertune.config.app import QUICKSTART
from flowertune.config.apps import app_id, read_project, record_app, record_start
from flowertune.config.paths import is_path, local_path
from flowertune.config.read import read_settings
from flowertune.config.results import is_sent_copy
from flowertune.config.settings import ANEW, WHERE, Settings
from flowertune.deploy import superlink
from flowertune.deploy.config_file import CONNECTION, supernodes_of
from flowertune.deploy.flower_parts import replaced
from flowertune.deploy.preflight import look_around, problems
from flowertune.deploy.prepare import default_text
from flowertune.methods.registry import problems as method_problems
from flowertune.models.known import known_models

# The names of the parameters of flwr's own command.
APP, SUPERLINK = "app", "superlink"
RUN_CONFIG, FEDERATION_CONFIG = "run_config_overrides", "federation_config_overrides"
DATASET = "static.dataset.name"
FLOWERS_DEFAULT = 2  # SuperNodes of a simulation, where nothing says how many


@dataclass(frozen=True)
class Findings:
    """What keeps a run from starting, and what its participant should know; a sentence for each."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def before_run(options: Mapping[str, Any]) -> Findings:
    """Return what there is to say of a run that `flwr run` is asked for.

    Of an app that is not ours, nothing is said. Where an app of ours lies is written down, so that
    its run finds the folder: it sees only the copy that Flower sends.

    Parameters
    ----------
    options
        The arguments of flwr's own command, by their names.
    """
    folder = Path(str(options.get(APP, "."))).expanduser().resolve()
    if "flowertune" not in read_project(folder).get("tool", {}):
        return Findings()
    try:
        cfg = read_settings(folder, options.get(RUN_CONFIG), method_problems)
    except SettingsError as error:
        return Findings(tuple(error.problems))
    except UserError as error:
        return Findings((str(error),))
    connection = _simulation(options.get(SUPERLINK))
    wrong, notes = (), ()
    if connection is not None:  # elsewhere, other folders count, and nothing is started here
        running = superlink.find_superlink(superlink.managed_port())
        around = look_around(() if running else superlink.managed_ports())
        wrong = (*problems(around), *missing_paths(cfg))
        notes = (*slow_without_gpu(cfg), *installs_anew(running, os.environ))
    if not wrong and not is_sent_copy(folder, os.environ):
        home, app = flower_home(os.environ), app_id(folder) or ""
        record_app(home, app, folder)
        record_start(home, app)
    asked = None if options.get(FEDERATION_CONFIG) else connection
    return Findings(wrong, (*connect_first(asked, cfg.static.num_supernodes), *notes))


def connect_first(connection: tuple[str, int] | None, locked: int) -> tuple[str, ...]:
    """Say that another number of SuperNodes than the locked one was set up, if so.

    Parameters
    ----------
    connection
        The name of a simulation's connection and its SuperNodes, 0 where it does not say.
    locked
        0 where any number is allowed.
    """
    if connection is None or locked in (0, connection[1]):
        return ()
    name, count = connection
    has = f"has {count}" if count else f"says no number, which Flower takes for {FLOWERS_DEFAULT}"
    return (
        f"The challenge is locked to {locked} SuperNodes, and the connection {name!r} {has}: "
        "`flowertune connect` sets them up.",
    )


def installs_anew(running: superlink.SuperLink | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Say that Flower installs the app's dependencies for this run, if it does.

    Parameters
    ----------
    running
        The SuperLink on this machine; None where `flwr run` is about to start one.
    """
    if running is not None and running.installs_dependencies is not True:
        return ()
    if running is None and env.get(superlink.NO_INSTALL) == "1":
        return ()
    again = " --restart" if running is not None else ""
    return (
        "Flower installs the app's dependencies for this run, which takes minutes and gigabytes; "
        f"after `flowertune connect{again}` runs use the packages of this environment.",
    )


def slow_without_gpu(cfg: Settings, here: bool | None = None) -> tuple[str, ...]:
    """Say that a model of billions of values is about to be trained on a CPU, if so.

    Parameters
    ----------
    here
        Whether there may be a GPU; None looks for one.
    """
    values = known_models().get(cfg.model.name, {})
    width, inner = values.get("hidden_size", 0), values.get("intermediate_size", 0)
    billions = values.get("num_hidden_layers", 0) * width * (4 * width + 3 * inner) / 1e9
    trains = cfg.train.training_arguments.max_steps > 0 and cfg.resume_from == ANEW
    if not trains or billions < 1 or (may_have_gpu() if here is None else here):
        return ()
    return (
        f"There is no GPU here, and model.name is {cfg.model.name!r}: a step of a model of so many "
        f"values takes minutes on a CPU; --run-config {QUICKSTART} trains a small one.",
    )


def missing_paths(cfg: Settings) -> tuple[str, ...]:
    """Name the model or the data of a run on this machine where it is a path that is not there."""
    if cfg.resume_from != ANEW:
        return ()  # its model and data are those of the run that goes on
    found = []
    for key, name in (("model.name", cfg.model.name), (DATASET, cfg.static.dataset.name)):
        if is_path(name) or (key == DATASET and name.endswith(".jsonl")):
            path = local_path(name, cfg.app_dir)
            if not path.exists():
                found.append(
                    f"{key} is {name!r}, and there is no {path}; a relative path starts at the "
                    f"app's folder ({WHERE})."
                )
    return tuple(found)


@contextmanager
def as_connected() -> Iterator[None]:
    """Let flwr in this process run an app as ``flowertune connect`` has set it up.

    It waits for its SuperLink as long as that takes, and its advice on the options of our
    connection is left out: what it advises instead is lost when the SuperLink ends, and a run
    after that would have two SuperNodes and not say so.
    """
    # By its name: the package has a function of that name, too.
    module = import_module("flwr.cli.run.run")

    def silently(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def parses(connection: Any) -> Any:
            with redirect_stdout(io.StringIO()) if connection.name == CONNECTION else nullcontext():
                return parse(connection)

        return parses

    with superlink.patience(), replaced(module, "_parse_deprecated_options", silently):
        yield


def _simulation(name: str | None) -> tuple[str, int] | None:
    """The connection that flwr will take, if it is a simulation's."""
    file = flower_home(os.environ) / "config.toml"
    try:
        text = file.read_text("utf-8") if file.exists() else default_text()
        return supernodes_of(text, name)
    except (OSError, ValueError):  # flwr itself says what is wrong with it
        return None
