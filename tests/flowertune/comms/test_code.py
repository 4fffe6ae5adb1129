"""A client that runs another app's code than was sent does not take part."""

# A grid of this process stands in for Flower's.
# pyright: reportArgumentType=false

import pytest

from flowertune.base.errors import UserError
from flowertune.comms.nodes import NodeRegistry
from flowertune.rules.provenance import code_digest
from tests.apps import rendered
from tests.local_grid import LocalGrid, load
from tests.templates import copy_of


def test_clients_with_other_code_than_the_server_are_refused_with_the_folder(tmp_path):
    sent = rendered("finance")
    same, other = (copy_of(sent, tmp_path / name) for name in ("same", "other"))
    with (other / "flowertune_finance/models.py").open("a") as file:
        file.write("# another learning rate\n")
    digest = code_digest(sent / "flowertune_finance")

    grid = LocalGrid({}, 2, client=load(same)[1])
    assert NodeRegistry(code_sha256=digest).discover(grid).complete
    grid = LocalGrid({}, 2, client=load(other)[1])
    with pytest.raises(UserError, match=r"runs the code in .*/other/flowertune_finance") as refused:
        NodeRegistry(code_sha256=digest).discover(grid)
    assert "flowertune connect --restart" in str(refused.value)
