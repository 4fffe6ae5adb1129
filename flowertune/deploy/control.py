"""Ask a SuperLink what it knows, through flwr's own client; the only place that knows its parts."""

import io
import ssl
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError


def healthy(address: str, ca: Path | None) -> bool:
    """Whether a SuperLink answers there."""
    # Late, as flwr's client below: both take long to import, and --help does without.
    import httpx

    scheme, verify = ("https", ssl.create_default_context(cafile=ca)) if ca else ("http", False)
    try:
        return httpx.get(f"{scheme}://{address}/health", verify=verify, timeout=2).is_success
    except httpx.HTTPError:
        return False


def supernodes(connection: str) -> Counter[str]:
    """Return how many SuperNodes a SuperLink knows in each state ("online", "offline", …)."""
    # Late, as above.
    from flwr.proto.control_pb2 import ListNodesRequest

    client = _client(connection)
    try:
        return Counter(node.status for node in client.ListNodes(ListNodesRequest()).nodes_info)
    finally:
        client.close()


@dataclass(frozen=True)
class Run:
    """How far a run is."""

    id: int
    finished: bool
    completed: bool
    details: str  # why it is not completed, where Flower knows


def runs(connection: str) -> list[Run]:
    """Return every run that a SuperLink knows, the one that was started last at the end."""
    # Late, as above.
    from flwr.proto.control_pb2 import ListRunsRequest

    client = _client(connection)
    try:
        found = client.ListRuns(ListRunsRequest()).run_dict.values()
    finally:
        client.close()
    return [
        Run(
            run.run_id,
            run.status.status == "finished",
            run.status.sub_status == "completed",
            " ".join(run.status.details.split()),
        )
        for run in sorted(found, key=lambda run: run.pending_at)
    ]


def register(connection: str, public_key: Path) -> None:
    """Tell a SuperLink the public key of a SuperNode that may join."""
    # Late, as above.
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.proto.control_pb2 import RegisterNodeRequest

    client = _client(connection)
    try:
        client.RegisterNode(RegisterNodeRequest(public_key=try_load_public_key(public_key)))
    finally:
        client.close()


def _client(connection: str):
    try:
        # Late, as above; other versions of flwr may lack it.
        from flwr.cli.flower_config import read_superlink_connection
        from flwr.cli.utils import init_http_client_from_connection
    except ImportError as error:
        raise UserError(
            f"This version of flwr has another client ({error}); use one that flowertune was "
            "tested with: pip install 'flwr[simulation]>=1.41,<1.43'."
        ) from error
    with redirect_stdout(io.StringIO()):  # it says each time which connection it uses
        return init_http_client_from_connection(read_superlink_connection(connection))
