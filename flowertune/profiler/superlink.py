"""Ask a SuperLink for the log of a run, and for what it knows of the run itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from flwr.cli.flower_config import read_flower_config, read_superlink_connection
from flwr.cli.typing import SuperLinkConnection
from flwr.cli.utils import flwr_cli_exc_handler, init_http_client_from_connection
from flwr.proto.control_pb2 import ListRunsRequest, StreamLogsRequest
from flwr.supercore.control import ControlHttpClient

from flowertune.profiling.units import seconds, size

FINISHED = "finished"


def connection_of(name: str | None, extra: list[str]) -> SuperLinkConnection:
    """Return the connection that the arguments after the run id ask for, or the default one.

    Other flwr commands took an app's folder and a federation there in former times. The folder
    says nothing about a run; the federation counts where a connection has its name.
    """
    former = name is not None and (name in (".", "..") or "/" in name or Path(name).is_dir())
    if not former:
        return read_superlink_connection(name)
    if extra and extra[0] not in read_flower_config()[0].get("superlink", {}):
        text = f"There is no SuperLink connection {extra[0]!r}; the default one is asked."
        typer.echo(text, err=True)
        extra = []
    return read_superlink_connection(extra[0] if extra else None)


class Source:
    """One run on a SuperLink."""

    def __init__(self, client: ControlHttpClient, run_id: int) -> None:
        self._client, self._run_id = client, run_id

    def about(self) -> dict[str, str]:
        """Return the run's status and what it took, in words, as the SuperLink has it."""
        from flwr.cli.run_utils import format_runs
        from flwr.common.serde import run_from_proto

        with flwr_cli_exc_handler():
            found = self._client.ListRuns(ListRunsRequest(run_id=self._run_id))
        row = format_runs([run_from_proto(run) for run in found.run_dict.values()], found.now)[0]
        inbound, outbound = row.network_traffic_inbound, row.network_traffic_outbound
        words = {
            "Flower": f"{row.status_text}, {seconds(row.elapsed)}",
            "compute": f"ServerApp {seconds(row.compute_time_serverapp)}, ClientApps "
            f"{seconds(row.compute_time_clientapp)}",
        }
        # Between processes of a simulation Flower counts nothing.
        if inbound or outbound:
            words["traffic"] = f"{size(inbound)} from SuperNodes, {size(outbound)} to them"
        return words

    def log(self, live: bool) -> Iterator[str]:
        """Yield the run's log in pieces: what there is by now or, live, until the run ends."""
        done = self.about()["Flower"].startswith(FINISHED)
        with flwr_cli_exc_handler():
            for piece in self._client.StreamLogs(StreamLogsRequest(run_id=self._run_id)):
                yield piece.log_output
                if not live and not done:
                    # The first piece holds all there was; the SuperLink would go on until the end.
                    return


@contextmanager
def source(run_id: int, name: str | None, extra: list[str]) -> Iterator[Source]:
    """Yield a run on the SuperLink that the arguments ask for (see ``connection_of``).

    Raises
    ------
    click.ClickException
        If there is no such connection, SuperLink or run, or the account may not see it.
    """
    client = init_http_client_from_connection(connection_of(name, extra))
    try:
        yield Source(client, run_id)
    finally:
        client.close()
