"""Ask a SuperLink for a run's log and status."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from flwr.cli.flower_config import read_flower_config, read_superlink_connection
from flwr.cli.typing import SuperLinkConnection
from flwr.cli.utils import flwr_cli_exc_handler, init_http_client_from_connection
from flwr.proto.control_pb2 import ListRunsRequest, StreamLogsRequest
from flwr.supercore.control import ControlHttpClient

from flowertune.profiler.units import seconds, size

FINISHED = "finished"


def connection_of(name: str | None, extra: list[str]) -> SuperLinkConnection:
    """Return the SuperLink connection named after the run id, or the default one.

    Older flwr commands took an app's folder and a federation there. A folder is ignored; a
    federation counts where a connection has its name.
    """
    old_style = name is not None and (name in (".", "..") or "/" in name or Path(name).is_dir())
    if not old_style:
        return read_superlink_connection(name)
    if extra and extra[0] not in read_flower_config()[0].get("superlink", {}):
        text = f"There is no SuperLink connection {extra[0]!r}; using the default one."
        typer.echo(text, err=True)
        extra = []
    return read_superlink_connection(extra[0] if extra else None)


class Source:
    """One run on a SuperLink."""

    def __init__(self, client: ControlHttpClient, run_id: int) -> None:
        self._client, self._run_id = client, run_id

    def about(self) -> dict[str, str]:
        """Return the SuperLink's record of the run as text: status, time, traffic."""
        # Late: only these two calls need them, and their names change between versions of flwr.
        from flwr.cli.run_utils import format_runs
        from flwr.common.serde import run_from_proto

        with flwr_cli_exc_handler():
            listed = self._client.ListRuns(ListRunsRequest(run_id=self._run_id))
        runs = [run_from_proto(run) for run in listed.run_dict.values()]
        row = format_runs(runs, listed.now)[0]
        inbound, outbound = row.network_traffic_inbound, row.network_traffic_outbound
        words = {
            "Flower": f"{row.status_text}, {seconds(row.elapsed)}",
            "compute": f"ServerApp {seconds(row.compute_time_serverapp)}, ClientApps "
            f"{seconds(row.compute_time_clientapp)}",
        }
        # Flower counts no traffic in a simulation.
        if inbound or outbound:
            words["traffic"] = f"{size(inbound)} from SuperNodes, {size(outbound)} to them"
        return words

    def log(self, live: bool) -> Iterator[str]:
        """Yield the run's log in pieces: what there is now or, live, until the run ends."""
        done = self.about()["Flower"].startswith(FINISHED)
        with flwr_cli_exc_handler():
            for piece in self._client.StreamLogs(StreamLogsRequest(run_id=self._run_id)):
                yield piece.log_output
                if not live and not done:
                    # The first piece holds everything so far; more would come until the run ends.
                    return


@contextmanager
def source(run_id: int, name: str | None, extra: list[str]) -> Iterator[Source]:
    """Yield a run on the SuperLink that the arguments ask for (see ``connection_of``).

    Raises
    ------
    click.ClickException
        If there is no such connection, SuperLink or run, or the account has no access to it.
    """
    client = init_http_client_from_connection(connection_of(name, extra))
    try:
        yield Source(client, run_id)
    finally:
        client.close()
