"""``flowertune connect``: set up the Flower connection that the app runs over."""

from pathlib import Path
from typing import Annotated

import typer

from flowertune.cli.options import AppFolder, exclusive

EXAMPLES = """\b
examples:
  flowertune connect                    the usual set-up
  flowertune connect --dry-run          only look: what would change in the file, and what on this
                                        machine would keep a run from starting
  flowertune connect --num-gpus 0.5     two clients share a GPU
  flowertune connect --restart          restart the SuperLink; it keeps the environment
                                        (HF_TOKEN, CUDA_VISIBLE_DEVICES, …) it was started with
  flowertune connect --stop             stop the SuperLink when you are done
"""


def connect(
    app: AppFolder = Path(),
    num_supernodes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="SuperNodes; where the challenge locks a number, another one makes every run "
            "unofficial.",
            show_default="supernodes in [tool.flowertune] of the app's pyproject.toml",
        ),
    ] = None,
    num_cpus: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="CPU cores of one client, at most what there is.",
            show_default="6 where there is a GPU, else all",
        ),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="GPUs of one client; 0.5 lets two share one.",
            show_default="1.0 where there is a GPU, else 0",
        ),
    ] = None,
    keep_default: Annotated[
        bool, typer.Option("--keep-default", help="Do not make it the default connection.")
    ] = False,
    runtime_install: Annotated[
        bool,
        typer.Option(
            "--runtime-install",
            help="Start a SuperLink that installs the app's own dependencies again for every run.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look; status 1 where something is wrong.")
    ] = False,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Leave the SuperLink alone.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Restart the SuperLink.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Only stop the SuperLink.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --restart: even while a run is in progress.")
    ] = False,
) -> None:
    """Set up Flower so that plain `flwr run` in the app's folder runs its SuperNodes here.

    First it looks for what would keep a run from starting on this machine (paths, proxies, folders,
    ports), and says all of it at once. Then it does three things and says what it did:

    \b
      1. writes the connection [superlink.flowertune] into Flower's configuration
         file ($FLWR_HOME/config.toml, else ~/.flwr/config.toml) and makes it the
         default; comments and other connections stay as they are;
      2. records where the app is ($FLWR_HOME/flowertune/apps.json), so that
         results go into the app's own folder, and relative paths start there;
      3. starts Flower's local SuperLink so that apps run with the packages of
         this environment. Left to itself, Flower installs an app's dependencies
         again for every run (--runtime-install).

    The app need not be installed. Run this again at any time: what is already right is left alone.
    """
    exclusive({"--dry-run": dry_run, "--no-start": no_start, "--restart": restart, "--stop": stop})
    # Late: tomlkit, psutil and flwr are for those who connect.
    from flowertune.deploy import connection

    if stop:
        connection.stop(print)
        return
    connection.connect(
        connection.Options(
            app=app,
            num_supernodes=num_supernodes,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            keep_default=keep_default,
            runtime_install=runtime_install,
            dry_run=dry_run,
            start=not no_start,
            restart=restart,
            force=force,
        ),
        print,
    )
