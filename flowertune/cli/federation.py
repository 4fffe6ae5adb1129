"""``flowertune federation``: a SuperLink and SuperNodes on this machine."""

from pathlib import Path
from typing import Annotated

import typer

# Everything after the first word that is no option belongs to the command to run.
CONTEXT = {"allow_interspersed_args": False}
CONNECTION = "local-deployment"
EXAMPLES = """\b
examples:
  flowertune federation                   2 SuperNodes, until Ctrl-C; then, elsewhere:
      flwr run . local-deployment --stream --run-config quickstart.toml
  flowertune federation --nodes 4 --auth  with TLS and SuperNode authentication
  flowertune federation --tls -- flwr run . local-deployment --stream --run-config quickstart.toml
                                          run one command, then stop everything
  flowertune federation --gpus 0,1        every other SuperNode on the second GPU
  flowertune federation --only-keys keys --host fl.example.org
                                          certificates and keys to start one by hand
"""


def federation(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND ...]", show_default="wait for Ctrl-C"),
    ] = None,
    nodes: Annotated[int, typer.Option(metavar="N", help="SuperNodes.")] = 2,
    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt, with certificates made for it.")
    ] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="A key for every SuperNode, made for it; with TLS.")
    ] = False,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Of the connection in Flower's configuration.")
    ] = CONNECTION,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Of the SuperLink.", show_default="a free one")
    ] = 0,
    gpus: Annotated[
        str,
        typer.Option(
            metavar="0,1", help="GPUs to share out among the SuperNodes.", show_default=False
        ),
    ] = "",
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Leave a SuperNode away that has ended.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds for the start.")] = 120,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For logs and keys.",
            show_default="$FLWR_HOME/flowertune/federations/NAME",
        ),
    ] = None,
    only_keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Make certificates and keys there, start nothing."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="With --only-keys: a name or address of the SuperLink; may be given again.",
        ),
    ] = None,
) -> int:
    """Try out Flower's Deployment Engine on this machine.

    A SuperLink and SuperNodes as processes of their own, each SuperNode with a partition of its
    own. It writes a connection to them into Flower's configuration file, waits until all have
    joined, runs COMMAND where one is given, and brings back a SuperNode that ends. Everything it
    started is stopped when it ends, on Ctrl-C too. The exit status is that of COMMAND, or 1 where a
    run in it did not complete: flwr's own is 0 then, too.

    The app runs with the packages of this environment, and need not be installed itself.
    """
    # Late: cryptography, psutil and tomlkit are for those who deploy.
    from flowertune.deploy import session
    from flowertune.deploy.prepare import Options, make_keys

    if only_keys is not None:
        make_keys(only_keys.resolve(), nodes, host or (), print)
        return 0
    return session.run(
        Options(name=name, nodes=nodes, tls=tls, auth=auth, port=port, gpus=gpus, folder=folder),
        command or (),
        restart=not no_restart,
        timeout=timeout,
    )
